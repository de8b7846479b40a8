"""Exports that crash, exports at once, and a served model on all test rows of Census-income."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    LoRAModule,
    MPTRec,
    NumericFeature,
    Task,
    make_dataset,
    model_class,
    save_model,
)
from mptrec_tf.config import Config
from mptrec_tf.serving import Client, Manifest, check, export
from mptrec_tf.serving.exporting.versions import versions
from mptrec_tf.serving.local import LocalServer

CRASH = """
import os, pathlib, signal, sys
import mptrec_tf.serving.exporting.exporter as exporting
from mptrec_tf import load_model

model, base_path, step = load_model(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]

def crash(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if step == "rename":
    pathlib.Path.rename = crash
elif step == "variables":
    import tensorflow as tf
    tf.saved_model.save = lambda module, path, **kwargs: (
        pathlib.Path(path, "saved_model.pb").write_bytes(b"half"), crash()
    )
else:
    setattr(exporting, step, crash)
exporting.export(model, base_path)
"""

REPEAT = """
import sys
from mptrec_tf import load_model
from mptrec_tf.serving import export

model = load_model(sys.argv[1])
for _ in range(3):
    export(model, sys.argv[2])
"""


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = {
        "age": rng.integers(18, 80, 64),
        "city": rng.choice(["Lima", "Oslo"], 64),
        "click": rng.integers(0, 2, 64),
    }
    encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    model = MPTRec(encoder, [Task("click", "click")], expert_units=(4,), tower_units=(4,))
    path = tmp_path_factory.mktemp("model") / "model.keras"
    save_model(model, path)
    return path


def start(script, *arguments):
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)])


@pytest.mark.parametrize("step", ["variables", "write_warmup", "check_without_manifest", "rename"])
def test_a_crash_leaves_nothing_that_a_server_could_load(step, model_file, tmp_path):
    base_path = tmp_path / "shop"
    assert start(CRASH, model_file, base_path, step).wait() == -9
    assert versions(base_path) == []
    (left,) = base_path.iterdir()
    assert left.name.startswith(".staging-")


@pytest.mark.long
def test_exports_at_once_never_mix(model_file, tmp_path):
    base_path = tmp_path / "shop"
    processes = [start(REPEAT, model_file, base_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert versions(base_path) == [1, 2, 3, 4, 5, 6]
    assert len(list(base_path.iterdir())) == 6
    for version in versions(base_path):
        assert Manifest.read(base_path / str(version)).version == version
        findings = check(base_path / str(version), ["c_api"])
        assert not [finding for finding in findings if finding.problem]


def test_every_census_test_row_is_served_the_score_of_predict(tmp_path):
    config = Config.from_yaml("configs/census_income.yaml")
    sources = config.data.sources()
    encoder = FeatureEncoder(config.features).adapt(sources.train)
    model = MPTRec(encoder, config.tasks[:2], expert_units=(32, 16), tower_units=(8,))
    model.compile("adam", jit_compile=False)
    model.fit(make_dataset(sources.validation, encoder, config.tasks[:2]), verbose=0)
    expected = model.predict(encoder.encode(sources.test), batch_size=4096, verbose=0)
    export(model, tmp_path / "census", rows=sources.validation)
    rows = pd.read_parquet(sources.test)
    assert len(rows) == 49_881
    with (
        LocalServer(tmp_path / "census") as server,
        Client(f"grpc://{server.grpc_address}", "census") as client,
    ):
        scores = client.predict(rows, timeout=300)
    assert set(scores) == {"income", "marital"}
    for task, values in scores.items():
        np.testing.assert_allclose(values, expected[task], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "added"), [("mmoe", {}), ("mptrec", {"module": LoRAModule(rank=2)})]
)
def test_a_task_that_was_added_without_prompts_is_a_version_too(kind, added, tmp_path):
    """Each version passes its check, which is done by TensorFlow's C++ loader."""
    rng = np.random.default_rng(0)
    rows = {
        "age": rng.integers(18, 80, 64),
        "city": rng.choice(["Lima", "Oslo"], 64),
        **{name: rng.integers(0, 2, 64) for name in ("click", "like", "buy")},
    }
    encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    tasks = [Task(name, name) for name in ("click", "like", "buy")]
    model = model_class(kind)(encoder, tasks[:2], expert_units=(8, 4), tower_units=(4,))
    model.compile("adam", run_eagerly=True)
    model.fit(make_dataset(rows, encoder, tasks[:2]), verbose=0)
    export(model, tmp_path / "shop")
    model.add_task(tasks[2], **added)
    model.fit(make_dataset(rows, encoder, tasks[2:]), verbose=0)

    export(model, tmp_path / "shop", rows=rows)

    first, second = (Manifest.read(tmp_path / "shop" / version) for version in ("1", "2"))
    assert (second.stage, second.parent_version, second.added_tasks) == (2, 1, ["buy"])
    assert second.frozen_fingerprint == first.fingerprint
    with (
        LocalServer(tmp_path / "shop") as server,
        Client(f"grpc://{server.grpc_address}", "shop") as client,
    ):
        scores = client.predict(pd.DataFrame(rows)[["age", "city"]])
    expected = model.predict(encoder.encode(rows), verbose=0)
    assert set(scores) == set(expected)
    for task, values in scores.items():
        np.testing.assert_allclose(values, expected[task], atol=1e-6)
