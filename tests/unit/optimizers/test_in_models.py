"""Lazy optimizers in the training of a model: saved, resumed, in half precision, on replicas."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import mptrec_tf as mpt
from mptrec_tf.optimizers import LazyAdagrad, LazyAdam, SplitOptimizer

OPTIMIZERS = {
    "lazy_adam": lambda: LazyAdam(0.01, weight_decay=0.01, global_clipnorm=1.0),
    "split": lambda: SplitOptimizer(LazyAdagrad(0.1), keras.optimizers.AdamW(0.01)),
}
TASKS = {name: mpt.Task(name, name) for name in ("click", "like", "buy")}
UNSEEN = 10  # buckets of the column "item" that no row has


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    item, tags = np.arange(64) % 20, rng.choice(["a|b", "b", "", "a|c|a"], 64)
    labels = {name: rng.integers(0, 2, 64) for name in TASKS}
    return {"item": item, "tags": tags, "age": rng.integers(18, 80, 64), **labels}


@pytest.fixture(scope="module")
def encoder(rows):
    features = [
        mpt.CategoricalFeature("item", vocabulary=tuple(map(str, range(20 + UNSEEN)))),
        mpt.MultiValuedFeature("tags", max_length=3, embedding_dim=3),
        mpt.NumericFeature("age", bins=4),
    ]
    return mpt.FeatureEncoder(features).adapt(rows)


@pytest.fixture(scope="module")
def make_model(encoder):
    def make(optimizer, dtype=None, **compile_with):
        keras.utils.set_random_seed(2)
        settings = {"embedding_dim": 4, "expert_units": (6,), "tower_units": (4,), "dtype": dtype}
        model = mpt.MPTRec(encoder, [TASKS["click"], TASKS["like"]], l2_embedding=0.01, **settings)
        model.compile(optimizer, **{"jit_compile": False, **compile_with})
        return model

    return make


@pytest.fixture(scope="module")
def dataset(rows, encoder):
    def make(*names, batch_size=16):
        return mpt.make_dataset(rows, encoder, [TASKS[n] for n in names], batch_size=batch_size)

    return make


def item_rows(model):
    """The rows of the table of width 4: those that were looked up, those that never were."""
    table = next(w for w in model.trainable_weights if w.path.endswith("table_4")).numpy()
    return table[2:22], np.concatenate([table[:2], table[22:]])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fit_moves_the_rows_that_were_looked_up_and_no_other(name, make_model, dataset):
    model = make_model(OPTIMIZERS[name]())
    seen, unseen = item_rows(model)
    assert len(unseen) == UNSEEN + 2
    losses = model.fit(dataset("click", "like"), epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    seen_after, unseen_after = item_rows(model)
    assert (seen_after != seen).all()
    assert unseen_after.tobytes() == unseen.tobytes()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_xla_and_several_steps_in_one_call_give_the_same_training(name, make_model, dataset):
    weights = []
    for settings in ({}, {"jit_compile": True, "steps_per_execution": 3}, {"run_eagerly": True}):
        model = make_model(OPTIMIZERS[name](), **settings)
        model.fit(dataset("click", "like"), epochs=2, verbose=0)
        assert int(model.optimizer.iterations) == 8
        weights.append(model.trainable_weights)
    for others in weights[1:]:
        for found, expected in zip(others, weights[0], strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=expected.path)


@pytest.mark.parametrize(
    ("name", "policy", "jit"),
    [
        ("lazy_adam", "mixed_bfloat16", False),
        ("lazy_adam", "mixed_float16", True),
        ("split", "mixed_float16", False),
    ],
)
def test_half_precision(name, policy, jit, make_model, dataset):
    model = make_model(OPTIMIZERS[name](), policy, jit_compile=jit)
    scaled = type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert scaled == (policy == "mixed_float16")
    seen, unseen = item_rows(model)
    model.fit(dataset("click", "like"), epochs=2, verbose=0)
    seen_after, unseen_after = item_rows(model)
    full = make_model(OPTIMIZERS[name]())
    full.fit(dataset("click", "like"), epochs=2, verbose=0)
    np.testing.assert_allclose(seen_after, item_rows(full)[0], atol=0.03)
    assert (seen_after != seen).any(axis=1).all()
    assert unseen_after.tobytes() == unseen.tobytes()


def test_loss_scaling_skips_a_step_with_an_infinite_gradient_and_halves_the_scale():
    table = keras.Variable(np.ones((4, 2), np.float32))
    optimizer = keras.optimizers.LossScaleOptimizer(LazyAdagrad(0.1), initial_scale=8.0)
    slices = [
        tf.IndexedSlices(tf.constant([[value, 8.0]]), tf.constant([2]), (4, 2))
        for value in (np.inf, 8.0)
    ]
    optimizer.apply([slices[0]], [table])
    np.testing.assert_array_equal(table, np.ones((4, 2)))
    assert float(optimizer.dynamic_scale) == 4.0
    optimizer.apply([slices[1]], [table])
    moved = 1 - 0.1 * 2 / np.sqrt(0.1 + 4)  # the gradient is 8 / 4
    np.testing.assert_allclose(table, [[1, 1], [1, 1], [moved, moved], [1, 1]], rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stage_2_goes_on_with_the_same_kind_of_optimizer(name, make_model, dataset):
    model = make_model(OPTIMIZERS[name]())
    model.fit(dataset("click", "like"), verbose=0)
    model.add_task(TASKS["buy"], tower_units=(4,))
    frozen = model.fingerprint(frozen_only=True)
    model.fit(dataset("buy"), verbose=0)
    assert model.fingerprint(frozen_only=True) == frozen
    assert type(model.optimizer) is type(OPTIMIZERS[name]())
    assert int(model.optimizer.iterations) == 4


READER = """
import json, sys

import keras

import mptrec_tf

folder = sys.argv[1]
rows = json.load(open(f"{folder}/rows.json"))
report = {}
for name in sys.argv[2:]:
    model = keras.models.load_model(f"{folder}/{name}.keras")
    slots = {v.path: v.numpy().tolist() for v in model.optimizer.variables}
    iterations = int(model.optimizer.iterations)
    data = mptrec_tf.make_dataset(rows, model.encoder, model.tasks, batch_size=16)
    model.fit(data, epochs=2, initial_epoch=1, verbose=0)
    report[name] = {
        "slots": list(slots.values()),
        "iterations": iterations,
        "weights": [weight.numpy().tolist() for weight in model.trainable_weights],
    }
json.dump(report, open(f"{folder}/report.json", "w"))
"""


@pytest.mark.long
def test_training_goes_on_from_a_file_in_another_process(make_model, dataset, rows, tmp_path):
    columns = {name: np.asarray(values).tolist() for name, values in rows.items()}
    (tmp_path / "rows.json").write_text(json.dumps(columns))
    (tmp_path / "reader.py").write_text(READER)
    data, models = dataset("click", "like"), {}
    for name, optimizer in OPTIMIZERS.items():
        model = models[name] = make_model(optimizer())
        model.fit(data, epochs=1, verbose=0)
        model.save(tmp_path / f"{name}.keras")
    slots = {
        name: [variable.numpy() for variable in model.optimizer.variables]
        for name, model in models.items()
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, tmp_path / "reader.py", tmp_path, *OPTIMIZERS]
    subprocess.run(command, check=True, env=environment)
    report = json.loads((tmp_path / "report.json").read_text())
    for name, model in models.items():
        assert report[name]["iterations"] == 4
        for found, expected in zip(report[name]["slots"], slots[name], strict=True):
            np.testing.assert_array_equal(np.array(found, expected.dtype), expected)
        model.fit(data, epochs=2, initial_epoch=1, verbose=0)
        for found, weight in zip(report[name]["weights"], model.trainable_weights, strict=True):
            np.testing.assert_allclose(found, weight, rtol=1e-5, atol=1e-7, err_msg=weight.path)


REPLICAS = """
import contextlib, json, sys

import keras
import numpy as np
import tensorflow as tf

from mptrec_tf.layers import FeatureEmbedding
from mptrec_tf.optimizers import LazyAdagrad, LazyAdam, SplitOptimizer

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
ids, labels = rng.integers(0, 8, (64, 2)), rng.normal(size=(64, 1)).astype("float32")
optimizers = {
    "lazy_adam": lambda: LazyAdam(0.05, weight_decay=0.01),
    "split": lambda: SplitOptimizer(LazyAdagrad(0.1), keras.optimizers.Adam(0.01)),
    "clipped": lambda: LazyAdagrad(0.1, global_clipnorm=1000.0),
}
report = {}
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name, make in optimizers.items():
    for replicas in (1, 2):
        keras.utils.set_random_seed(1)
        with strategy.scope() if replicas == 2 else contextlib.nullcontext():
            ids_of_rows = keras.Input((2,), dtype="int64")
            embedded = FeatureEmbedding([8, 9], [3, 3])(ids_of_rows)
            model = keras.Model(ids_of_rows, keras.layers.Dense(1)(embedded))
            model.compile(make(), "mse", jit_compile=False)
        before = model.get_weights()[0]
        data = tf.data.Dataset.from_tensor_slices((ids, labels)).batch(16)
        model.fit(data, epochs=2, verbose=0)
        weights = model.get_weights()
        report[f"{name} {replicas}"] = {
            "weights": [weight.tolist() for weight in weights],
            "iterations": int(model.optimizer.iterations.numpy()),
            "untouched": bool((weights[0][-1] == before[-1]).all()),
        }
json.dump(report, open(sys.argv[1], "w"))
"""


@pytest.mark.long
def test_two_replicas_train_as_one(tmp_path):
    script, file = tmp_path / "replicas.py", tmp_path / "report.json"
    script.write_text(REPLICAS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, script, file], check=True, env=environment)
    report = json.loads(file.read_text())
    for name in ("lazy_adam", "split", "clipped"):
        one, two = report[f"{name} 1"], report[f"{name} 2"]
        assert one["iterations"] == two["iterations"] == 8
        assert one["untouched"]
        assert two["untouched"]
        for found, expected in zip(two["weights"], one["weights"], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)
