"""What holds for every model of the registry."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mptrec_tf import ModelError, load_model, model_class
from mptrec_tf.models import MODELS, GrowingModel, MMoE
from mptrec_tf.models.multi_step import MultiStep

from .conftest import SMALL

BASELINES = [name for name in MODELS if name != "mptrec"]
FINE_TUNED = ["shared_bottom", "mmoe", "ple", "stem"]
TASKS = ("click", "buy")

READER = """
import json, sys

import keras
import numpy as np

import mptrec_tf

folder = sys.argv[1]
rows = json.load(open(f"{folder}/rows.json"))
report = {}
for name in json.load(open(f"{folder}/names.json")):
    model = keras.models.load_model(f"{folder}/{name}.keras")
    x = model.encoder.encode(rows)
    np.savez(f"{folder}/{name}-read.npz", **model(x))
    report[name] = {
        "class": type(model).__name__,
        "fingerprint": model.fingerprint(),
        "config": model.get_config(),
        "tasks": [task.name for task in model.tasks],
        "tuned": model.tuned_task,
        "trainable": [w.path for w in model.trainable_weights],
        "iterations": int(model.optimizer.iterations),
        "epochs": model.trained_epochs,
    }
    data = mptrec_tf.make_dataset(rows, model.encoder, model.trained_tasks, batch_size=96)
    model.train_on_batch(*next(iter(data)))
    report[name]["trained_on"] = model.fingerprint()
json.dump(report, open(f"{folder}/report.json", "w"))
"""


def test_names():
    assert list(MODELS) == [
        "mptrec", "single_task", "shared_bottom", "mmoe", "ple", "stem", "sparse_sharing",
        "esmm", "aitm",
    ]  # fmt: skip
    assert model_class("mmoe") is MMoE
    with pytest.raises(ModelError, match=r"no model 'dcn'; the models are \['mptrec', 'single"):
        model_class("dcn")


@pytest.mark.parametrize("name", ["stem", "sparse_sharing", "esmm", "aitm"])
def test_learns_in_steps_that_are_one_computation(make_baseline, dataset, rows, arrays, name):
    """`click` follows from the age, `buy` from the city. These models have a step of their own."""
    compiled = {
        "optimizer": keras.optimizers.Adam(0.03),
        "run_eagerly": False,
        "jit_compile": True,
        "steps_per_execution": 4,
    }
    model = make_baseline(name, *TASKS, expert_dropout=0.05, compile_with=compiled)
    if name == "sparse_sharing":  # with masks, so that `fit` looks for none
        for task in range(2):
            model.network.prune(task, 0.7)
    masks = [np.array(weight) for weight in model.weights if "mask" in weight.path]

    history = model.fit(dataset(*TASKS, batch_size=24), epochs=20, verbose=0).history

    assert isinstance(model.train_function, MultiStep)
    assert set(history) == {
        *("loss", "mean_auc", "click_loss", "click_auc", "buy_loss", "buy_auc"),
    }
    assert history["loss"][-1] < history["loss"][0]
    scores = model(arrays("click")[0])
    assert roc_auc_score(rows["click"], scores["click"]) > 0.9
    # In a funnel, who buys has clicked.
    bought = rows["buy"] * rows["click"] if name in ("esmm", "aitm") else rows["buy"]
    assert roc_auc_score(bought, scores["buy"]) > 0.9
    after = [weight for weight in model.weights if "mask" in weight.path]
    for mask, before in zip(after, masks, strict=True):
        assert np.mean(mask) < 1
        np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("name", BASELINES)
def test_half_precision(make_baseline, arrays, name):
    """Scores are nearly those of single precision, weights and their updates are float32."""
    x, y = arrays(*TASKS)
    exact = make_baseline(name, *TASKS)
    model = make_baseline(name, *TASKS, dtype="mixed_bfloat16")
    model.set_weights(exact.get_weights())

    for task, scores in model(x).items():
        assert scores.dtype == "float32"
        np.testing.assert_allclose(scores, exact(x)[task], atol=0.03)

    before = {weight.path: np.array(weight) for weight in model.trainable_weights}
    assert np.isfinite(model.train_on_batch(x, y, return_dict=True)["loss"])
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    moved = [not np.array_equal(w, before[w.path]) for w in model.trainable_weights]
    assert np.mean(moved) > 0.9


@pytest.mark.parametrize("name", BASELINES)
def test_dropout_acts_in_training_only(make_baseline, arrays, name):
    model = make_baseline(name, *TASKS, expert_dropout=0.5, tower_dropout=0.5)
    x, _ = arrays("click")

    for training in (False, True):
        one, two = (np.array(model(x, training=training)["click"]) for _ in range(2))
        assert np.array_equal(one, two) != training


@pytest.mark.parametrize("name", BASELINES)
def test_l2_is_that_of_kernels_and_looked_up_embeddings(make_baseline, arrays, name):
    x, y = arrays(*TASKS)
    own = {"calibrator_weight": 0.0} if name == "aitm" else {}
    model = make_baseline(name, *TASKS, l2=0.1, l2_embedding=0.3, **own)

    model.training_outcome(x, y, {})

    weights = {weight.path: np.array(weight) for weight in model.trainable_weights}
    kernels = [w for path, w in weights.items() if "bias" not in path and "table" not in path]
    looked_up = [
        table[x["categorical" if table.shape[1] == 4 else "multivalued"]]
        for path, table in weights.items()
        if "table" in path
    ]
    expected = 0.1 * sum(np.sum(np.square(kernel)) for kernel in kernels)
    expected += 0.3 * sum(np.sum(np.square(rows)) for rows in looked_up) / 96
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def folder(make_baseline, arrays, rows, tasks, tmp_path_factory):
    """Holds every model after some training, two of the fine-tuned ones with an added task."""
    folder = tmp_path_factory.mktemp("saved")
    x, _ = arrays("click")
    models = {}
    for name in BASELINES:
        model = make_baseline(name, *TASKS, seed=3, tower_dropout=0.1)
        if name == "sparse_sharing":
            model.network.prune(0, 0.5)
            model.network.prune(1, 0.5)
        model.train_on_batch(*arrays(*TASKS))
        model.count_epoch()
        if name in FINE_TUNED:
            for new in ("grade", "cost"):
                model.add_task(tasks[new])
            model.train_on_batch(*arrays("cost"))
        models[name] = model
        model.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.npz", **model(x))
    columns = {name: np.asarray(values).tolist() for name, values in rows.items()}
    (folder / "rows.json").write_text(json.dumps(columns))
    (folder / "names.json").write_text(json.dumps(BASELINES))
    script = folder / "reader.py"
    script.write_text(READER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, script, folder], check=True, env=environment)
    return folder, models


@pytest.mark.parametrize("name", BASELINES)
def test_another_process_reads_the_same_model_and_trains_on(folder, name):
    folder, models = folder
    model, found = models[name], json.loads((folder / "report.json").read_text())[name]

    read, expected = (np.load(folder / f"{name}{part}.npz") for part in ("-read", ""))
    assert set(read) == set(expected) == {task.name for task in model.tasks}
    for task in expected:
        np.testing.assert_array_equal(read[task], expected[task])
    assert found["class"] == type(model).__name__
    assert found["fingerprint"] == model.fingerprint() != found["trained_on"]
    assert found["config"] == json.loads(json.dumps(model.get_config()))
    assert found["tasks"] == [task.name for task in model.tasks]
    assert found["tuned"] == model.tuned_task == ("cost" if name in FINE_TUNED else None)
    assert found["trainable"] == [weight.path for weight in model.trainable_weights]
    assert found["iterations"] == int(model.optimizer.iterations)
    assert found["epochs"] == model.trained_epochs


def test_load_model_reads_the_kind_that_is_asked_for(folder):
    path = folder[0] / "mmoe.keras"

    assert type(load_model(path, MMoE)) is MMoE
    assert type(load_model(path, GrowingModel)) is MMoE
    with pytest.raises(ModelError, match="holds the model 'MMoE', expected MPTRec"):
        load_model(path)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"embedding_dim": 0}, {"expert_units": ()}, {"expert_units": (0, 3)}, {"tower_units": ()},
        {"l2": -1.0}, {"l2_embedding": -1.0}, {"own_settings": {}},
    ],
    ids=repr,
)  # fmt: skip
def test_a_wrong_setting_is_named(make_baseline, name, wrong):
    ((argument, value),) = wrong.items()
    with pytest.raises((ValueError, TypeError), match=argument) as caught:
        make_baseline(name, *TASKS, **wrong)
    if argument != "own_settings":  # which is none of the arguments
        assert str(caught.value).endswith(f"Received: {value}")


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("mmoe", "num_experts", 0),
        ("ple", "levels", 0),
        ("ple", "specific_experts", 0),
        ("ple", "shared_experts", 0),
        ("stem", "specific_experts", 0),
        ("stem", "shared_experts", 0),
        ("sparse_sharing", "pruning_rounds", 0),
        ("sparse_sharing", "pruning_epochs", 0),
        ("aitm", "calibrator_weight", -5),
    ],
)
def test_a_wrong_setting_of_its_own_is_named(make_baseline, name, argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be . or more. Received: {value}$"):
        make_baseline(name, *TASKS, **{argument: value})


@pytest.mark.parametrize("name", BASELINES)
def test_every_setting_is_kept(encoder, tasks, name):
    common = {
        **SMALL,
        "activation": "gelu",
        "expert_dropout": 0.1,
        "tower_dropout": 0.2,
        "l2_embedding": 0.3,
        "l2": 0.4,
        "seed": 11,
        "dtype": "mixed_bfloat16",
        "name": "another",
    }
    own = {
        "mmoe": {"num_experts": 5},
        "ple": {"levels": 1, "specific_experts": 2, "shared_experts": 3},
        "stem": {"specific_experts": 2, "shared_experts": 3},
        "sparse_sharing": {"density": 0.3, "pruning_rounds": 5, "pruning_epochs": 2},
        "esmm": {"funnel": ("buy", "click"), "conditional": True},
        "aitm": {"funnel": ("buy", "click"), "calibrator_weight": 0.1},
    }.get(name, {})
    model = MODELS[name](encoder, [tasks[task] for task in TASKS], **common, **own)

    config = model.get_config()

    settings = {**common, **own, "dtype": config["dtype"]}
    assert {key: config[key] for key in settings} == settings
    twin = MODELS[name].from_config(json.loads(json.dumps(config)))
    assert twin.get_config() == config
    assert twin.dtype_policy.name == "mixed_bfloat16"
    assert [w.path for w in twin.weights] == [w.path for w in model.weights]
