"""Model files: what is saved comes back, in another process too."""

import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    ModelError,
    MPTRec,
    NumericFeature,
    Task,
    load_model,
)
from mptrec_tf.models import save_model
from mptrec_tf.models.saving import saved_tasks

SMALL = {"tower_units": (4,), "input_projection": 3}

READER = """
import json, sys

import keras
import numpy as np

import mptrec_tf

folder = sys.argv[1]
rows = json.load(open(f"{folder}/rows.json"))
report = {}
for name in ("stage1", "stage2"):
    model = keras.models.load_model(f"{folder}/{name}.keras")
    x = model.encoder.encode(rows)
    np.savez(f"{folder}/{name}-read.npz", **model.predict(x, batch_size=96, verbose=0))
    report[name] = {
        "fingerprint": model.fingerprint(),
        "frozen": model.fingerprint(frozen_only=True),
        "tasks": [repr(task) for task in model.tasks],
        "tuned": model.tuned_task,
        "trainable": {w.path: w.trainable for w in model.weights},
        "iterations": int(model.optimizer.iterations),
        "slots": {w.path: float(np.sum(np.abs(w))) for w in model.optimizer.variables},
        "epochs": model.trained_epochs,
        "eager": model.run_eagerly,
    }
    data = mptrec_tf.make_dataset(rows, model.encoder, model.tasks, batch_size=96)
    model.fit(data, epochs=2, initial_epoch=1, verbose=0)
    report[name]["trained_on"] = model.fingerprint()
    report[name]["iterations_after"] = int(model.optimizer.iterations)
json.dump(report, open(f"{folder}/report.json", "w"))
"""


@pytest.fixture(scope="module")
def models(make_model, arrays, tasks):
    """A model after stage 1, and one with the tasks buy, grade and share of which grade left."""
    keras.utils.set_random_seed(1)
    found = {}
    for name in ("stage1", "stage2"):
        model = make_model("click", "like", l2=0.01, compile_with={"optimizer": "adamw"})
        model.fit(*arrays("click", "like"), batch_size=48, verbose=0)
        found[name] = model
    for name in ("buy", "grade", "share"):
        model.add_task(tasks[name], **SMALL)
        model.fit(*arrays(name), batch_size=48, verbose=0)
    model.drop_task("grade")
    model.tune_task("buy")
    model.fit(*arrays("buy"), batch_size=32, verbose=0)
    return found


@pytest.fixture(scope="module")
def folder(models, arrays, rows, tmp_path_factory):
    """Holds both models, their predictions, and what another process says of them."""
    folder = tmp_path_factory.mktemp("saved")
    x, _ = arrays("click")
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.npz", **model.predict(x, batch_size=96, verbose=0))
    columns = {name: np.asarray(values).tolist() for name, values in rows.items()}
    (folder / "rows.json").write_text(json.dumps(columns))
    script = folder / "reader.py"
    script.write_text(READER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, script, folder], check=True, env=environment)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_another_process_reads_the_same_model(models, folder, report, name):
    model, found = models[name], report[name]

    expected = np.load(folder / f"{name}.npz")
    read = np.load(folder / f"{name}-read.npz")
    assert set(read) == set(expected) == {task.name for task in model.tasks}
    for task in expected:
        np.testing.assert_array_equal(read[task], expected[task])
    assert found["fingerprint"] == model.fingerprint()
    assert found["frozen"] == model.fingerprint(frozen_only=True)
    assert found["tasks"] == [repr(task) for task in model.tasks]
    assert found["tuned"] == model.tuned_task
    assert found["trainable"] == {w.path: w.trainable for w in model.weights}
    assert found["epochs"] == model.trained_epochs
    assert found["eager"] is True


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_training_goes_on_in_another_process(models, report, dataset, copy_of, name):
    model, found = models[name], report[name]
    slots = {w.path: float(np.sum(np.abs(w))) for w in model.optimizer.variables}
    assert found["slots"] == pytest.approx(slots)
    assert (
        found["iterations"] == int(model.optimizer.iterations) == {"stage1": 2, "stage2": 3}[name]
    )
    assert found["iterations_after"] == found["iterations"] + 1
    assert found["trained_on"] != found["fingerprint"]


def test_training_goes_on_as_if_it_had_not_stopped(models, arrays, tmp_path):
    """The step after reading a file moves the weights as the same step without it."""
    models["stage1"].save(tmp_path / "model.keras")
    fingerprints = []
    for _ in range(2):
        model = keras.models.load_model(tmp_path / "model.keras")
        model.train_on_batch(*arrays("click", "like"))
        fingerprints.append(model.fingerprint())
    models["stage1"].train_on_batch(*arrays("click", "like"))

    assert fingerprints == [models["stage1"].fingerprint()] * 2


def test_a_file_that_was_read_can_be_extended(folder, arrays, tasks):
    model = load_model(folder / "stage2.keras")
    x, _ = arrays("click")
    before = model.predict(x, verbose=0)

    model.add_task(tasks["cost"], **SMALL)
    model.fit(*arrays("cost"), verbose=0)

    after = model.predict(x, verbose=0)
    assert list(after) == ["click", "like", "buy", "share", "cost"]
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)


def test_the_encoder_comes_along(folder, encoder, rows):
    model = load_model(folder / "stage1.keras")

    assert model.encoder.vocabulary("city") == encoder.vocabulary("city")
    for key, values in encoder.encode(rows).items():
        np.testing.assert_array_equal(model.encoder.encode(rows)[key], values)


def test_a_model_keeps_its_encoder_when_the_one_it_was_given_is_adapted_again(rows, tmp_path):
    given = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    model = MPTRec(given, [Task("click", "click")], embedding_dim=4, expert_units=(8,))
    before = model.predict(model.encoder.encode(rows), verbose=0)["click"]

    tomorrow = rows | {"city": np.where(rows["age"] > 40, "Rome", "Quito")}
    given.adapt(tomorrow)

    assert given.vocabulary("city") != model.encoder.vocabulary("city")
    save_model(model, tmp_path / "model.keras")
    for found in (model, load_model(tmp_path / "model.keras")):
        after = found.predict(found.encoder.encode(rows), verbose=0)["click"]
        np.testing.assert_array_equal(after, before)
        with pytest.raises(ModelError, match="this encoder belongs to a model"):
            found.encoder.adapt(tomorrow)


def test_a_clone_says_that_its_vocabularies_are_not_loaded(models, rows):
    clone = keras.models.clone_model(models["stage1"])
    with pytest.raises(ModelError, match="the vocabulary of 'city' is not loaded"):
        clone.encoder.encode(rows)


def test_weights_alone(models, arrays, tmp_path):
    model = models["stage2"]
    model.save_weights(tmp_path / "model.weights.h5")
    twin = MPTRec.from_config(model.get_config())
    assert twin.fingerprint() != model.fingerprint()

    twin.load_weights(tmp_path / "model.weights.h5")

    assert twin.fingerprint() == model.fingerprint()
    assert twin.trained_epochs == model.trained_epochs


def test_uncompiled_model(make_model, encoder, tasks, arrays, tmp_path):
    model = MPTRec(encoder, [tasks["click"]], expert_units=(4,), tower_units=(3,))
    model.save(tmp_path / "model.keras")
    read = load_model(tmp_path / "model.keras")

    assert not read.compiled
    x, _ = arrays("click")
    np.testing.assert_array_equal(read(x)["click"], model(x)["click"])


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_configuration_is_plain_data(models, name):
    config = json.loads(json.dumps(models[name].get_config()))

    assert MPTRec.from_config(config).get_config() == models[name].get_config()


def test_every_setting_is_kept(make_model):
    settings = {
        "activation": "gelu",
        "expert_dropout": 0.1,
        "tower_dropout": 0.2,
        "generic_weight": 0.9,
        "adversarial": "assigned",
        "adversarial_weight": 0.5,
        "l2_embedding": 0.3,
        "l2": 0.4,
        "seed": 11,
        "dtype": "mixed_bfloat16",
    }
    model = make_model("click", "kind", **settings)

    twin = MPTRec.from_config(model.get_config())

    assert twin.get_config() == model.get_config()
    assert twin.dtype_policy.name == "mixed_bfloat16"
    assert (twin.generic_weight, twin.adversarial_weight) == (0.9, 0.5)
    assert twin.adversary.form == "assigned"
    assert twin.tasks == model.tasks


# Files that are no models


def truncated(folder, path):
    path.write_bytes((folder / "stage2.keras").read_bytes()[:-2000])


def text(folder, path):
    path.write_text("not a model")


def empty(folder, path):
    path.touch()


def without_weights(folder, path):
    with zipfile.ZipFile(folder / "stage2.keras") as whole, zipfile.ZipFile(path, "w") as part:
        for name in whole.namelist():
            if name != "model.weights.h5":
                part.writestr(name, whole.read(name))


def foreign(folder, path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)


def absent(folder, path):
    pass


@pytest.mark.parametrize("make", [truncated, text, empty, without_weights, foreign, absent])
def test_files_that_are_no_models(folder, tmp_path, make):
    path = tmp_path / "model.keras"
    make(folder, path)

    with pytest.raises(ModelError, match=r"model\.keras"):
        load_model(path)


def test_code_in_a_file_is_not_executed(folder, tmp_path):
    """A file that names MPTRec, with a lambda where a regularizer or an activation belongs."""
    lambda_layer = keras.layers.Lambda(lambda x: x)
    config = keras.saving.serialize_keras_object(lambda_layer)
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(folder / "stage1.keras") as whole, zipfile.ZipFile(path, "w") as changed:
        for name in whole.namelist():
            content = whole.read(name)
            if name == "config.json":
                content = json.loads(content)
                content["config"]["activation"] = config
                content = json.dumps(content)
            changed.writestr(name, content)

    with pytest.raises(ModelError, match="lambda"):
        load_model(path)
    plain = tmp_path / "plain.keras"
    keras.Sequential([keras.Input((2,)), lambda_layer]).save(plain)
    with pytest.raises(ModelError, match="Sequential"):
        load_model(plain)
    with pytest.raises(ValueError, match="lambda"):
        keras.models.load_model(plain)


@pytest.mark.parametrize("name", ["model.h5", "model", "model.keras.bak"])
def test_a_name_that_no_model_file_has_is_refused(models, tmp_path, name):
    with pytest.raises(ModelError, match=rf"{name}: the name of a model file ends in \.keras"):
        save_model(models["stage1"], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_uri_is_refused_and_not_taken_for_a_directory_of_this_machine(
    models, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    uri = "gs://bucket/model.keras"
    for use in (lambda: save_model(models["stage1"], uri), lambda: load_model(uri),
                lambda: saved_tasks(uri)):  # fmt: skip
        with pytest.raises(ModelError, match=r"^gs://bucket/model\.keras: expected a path on this"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_when_it_is_complete(models, tmp_path, monkeypatch):
    model, path = models["stage1"], tmp_path / "runs" / "model.keras"
    save_model(model, path)
    assert load_model(path).fingerprint() == model.fingerprint()
    complete = path.read_bytes()

    def fail(partial):
        partial.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(model, path)
    assert path.read_bytes() == complete
    assert [file.name for file in path.parent.iterdir()] == ["model.keras"]
