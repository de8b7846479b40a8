"""What a training depends on; where its state is kept, and that none stays; remote models."""

import json
import math
import os
import pathlib
import subprocess
import sys
import types

import pandas as pd
import pytest
import small_runs
import tensorflow as tf

from mptrec_tf import FeatureEncoder, MPTRec, NumericFeature, Task, load_model
from mptrec_tf.config import TrainingConfig
from mptrec_tf.serving import Manifest
from mptrec_tf.training import Trained
from pipelines.base import Base, check_base
from pipelines.components.trainer import (
    StageRun,
    base_model_file,
    remove_state,
    run_fn,
    write_model,
)
from pipelines.components.tuner import tuner_fn
from pipelines.examples import LABEL, WEIGHT, encoded_examples, open_writer
from pipelines.layout import TRAINING_FILE

REMOTE = """\
import sys
from pipelines.components.trainer import StageRun, base_model_file
state = StageRun(None, None, 0, "gs://bucket/state").state_of("train", ["identity"])
state.mkdir()
base = base_model_file(sys.argv[1])
print(open(base).read(), base, state)
"""


RATE = {"learning_rate": {"kind": "float", "min": 1e-3, "max": 1e-1}}


@pytest.mark.parametrize(
    ("task", "own", "other"), [(None, "stage1", "stage2"), ("buy", "stage2", "stage1")]
)
def test_a_stage_depends_on_its_own_search_alone(task, own, other, tmp_path):
    def told(tuner, tune=True):
        config = small_runs.config(tmp_path, tuner=tuner, pipeline={"tune": tune})
        return StageRun(config, task, 0, "state").to_dict()

    alone = told({own: RATE})
    assert told({own: RATE, other: RATE}) == alone
    assert told({own: RATE, "trials": 3}) != alone
    assert told({own: {}}) != alone
    assert told({own: RATE}, tune=False) == told({}, tune=False)


def test_a_removal_that_was_cut_off_is_finished_by_the_next(tmp_path):
    state, half_removed = tmp_path / "train-0123", tmp_path / "train-0123.removed"
    for directory in (state, half_removed):
        directory.mkdir()
        (directory / "state.json").touch()
    remove_state(state)
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_beside_a_remote_root_goes_with_the_process(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra/model.keras").write_text("model")
    path = os.pathsep.join(filter(None, sys.path))
    made = subprocess.run(
        [sys.executable, "-c", REMOTE, f"file://{tmp_path}"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    content, *kept = made.stdout.split()[-3:]
    base, state = map(pathlib.Path, kept)
    assert content == "model"
    assert tmp_path not in base.parents
    assert state.name.startswith("train-")
    assert not base.parent.exists()
    assert not state.parent.exists()


def test_what_is_no_number_is_null_in_what_is_written(tmp_path):
    encoder = FeatureEncoder([NumericFeature("age")]).adapt({"age": [31, 45, 60]})
    tasks = [Task("click", "click"), Task("like", "like")]
    model = MPTRec(encoder, tasks, expert_units=(4,), tower_units=(3,))
    found = {"click_loss": 0.5, "click_auc": math.nan, "like_loss": math.inf, "like_auc": 0.75}
    epoch = {"loss": 1.0} | {f"val_{name}": value for name, value in found.items()}
    write_model(Trained(model, [epoch], 0), TrainingConfig(), str(tmp_path), "shop")
    assert Manifest.read(tmp_path).metrics == {
        "click": {"loss": 0.5, "auc": None},
        "like": {"loss": None, "auc": 0.75},
    }
    text = (tmp_path / TRAINING_FILE).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["epochs"] == [
        {
            "loss": 1.0,
            "val_click_loss": 0.5,
            "val_click_auc": None,
            "val_like_loss": None,
            "val_like_auc": 0.75,
        }
    ]


BUCKET = "ram://bucket"
"""A file system of TensorFlow that, like those of clouds, knows no paths of this machine."""


def run_remotely(function, config, task, model=None, base=None):
    """Calls what Trainer or Tuner call, with everything but the configuration in the bucket."""
    arguments = types.SimpleNamespace(
        custom_config=StageRun(config, task, 0, f"{BUCKET}/state").to_dict(),
        transform_graph_path=f"{BUCKET}/graph",
        train_files=[f"{BUCKET}/Split-train/*"],
        eval_files=[f"{BUCKET}/Split-validation/*"],
        serving_model_dir=model,
        base_model=base,
        hyperparameters=None,
    )
    return function(arguments)


def write_encoded(rows, config):
    """Fills the bucket with what Transform would write."""
    frames = {part: pd.read_csv(rows / f"synthetic-{part}.csv") for part in small_runs.ROWS}
    encoder = FeatureEncoder(config.features).adapt(frames["train"])
    tf.io.gfile.makedirs(f"{BUCKET}/graph/transform_fn/assets")
    with tf.io.gfile.GFile(f"{BUCKET}/graph/transform_fn/assets/encoder.json", "w") as file:
        file.write(encoder.to_json())
    for part in ("train", "validation"):
        encoded = encoder.encode(frames[part]).items()
        columns = {n: v if v.dtype == "float32" else v.astype("int64") for n, v in encoded}
        for task in config.tasks:
            columns[LABEL + task.name] = frames[part][task.label].to_numpy("float32")
            columns[WEIGHT + task.name] = columns[LABEL + task.name] * 0 + 1
        with open_writer(f"{BUCKET}/Split-{part}", 0) as writer:
            for example in encoded_examples(columns):
                writer.write(example)


def test_a_model_in_remote_storage_gets_a_task(tmp_path, monkeypatch):
    rows, here = tmp_path / "rows", tmp_path / "here"
    rows.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)  # "ram://bucket" could become the directory "ram:/bucket" in it
    small_runs.write_rows(rows)
    training = small_runs.TRAINING | {"epochs": 1}
    config = small_runs.config(
        rows,
        stage1=small_runs.PLAIN["stage1"] | {"training": training},
        stage2=small_runs.PLAIN["stage2"] | {"training": training},
        tuner={"trials": 1, "stage2": RATE},
        pipeline={"tune": True},
    )
    write_encoded(rows, config)
    one, two = (f"{BUCKET}/{number}/Format-Serving" for number in (1, 2))

    run_remotely(run_fn, config, None, model=one)
    base = load_model(base_model_file(one))
    sources = {part: str(rows / f"synthetic-{part}.csv") for part in small_runs.ROWS}
    checked = check_base(config, "buy", Base(f"{BUCKET}/1", f"{BUCKET}/graph", "", ""), sources)
    assert checked == ["click", "like"]
    found = run_remotely(tuner_fn, config, "buy", base=one)
    found.tuner.search()
    assert [trial.error for trial in found.tuner.results()] == [None]

    run_remotely(run_fn, config, "buy", model=two, base=one)
    model = load_model(base_model_file(two))
    assert [task.name for task in model.tasks] == ["click", "like", "buy"]
    assert model.fingerprint(frozen_only=True) == base.fingerprint()
    assert list(here.iterdir()) == []
