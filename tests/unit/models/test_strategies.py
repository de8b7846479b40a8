"""XLA, half precision, several replicas, several steps in one call."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import load_model
from mptrec_tf.training import MultiWorkerStrategy

STAGE1 = ("click", "kind", "price")
SMALL = {"tower_units": (4,), "input_projection": 3}


def test_xla_gives_the_same_training(make_model, dataset):
    results = []
    for jit in (False, True):
        keras.utils.set_random_seed(1)
        model = make_model(*STAGE1, compile_with={"run_eagerly": False, "jit_compile": jit})
        history = model.fit(dataset(*STAGE1, batch_size=31), verbose=0).history
        results.append((history, model.trainable_weights))

    (history, weights), (xla_history, xla_weights) = results
    assert history.keys() == xla_history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(xla_history[name], values, rtol=1e-3, err_msg=name)
    for weight, xla_weight in zip(weights, xla_weights, strict=True):
        np.testing.assert_allclose(xla_weight, weight, atol=1e-4, err_msg=weight.path)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(make_model, arrays, tasks, policy):
    """The rows hold gains of 99999, which is infinite in float16."""
    model = make_model(*STAGE1, dtype=policy)
    x, y = arrays(*STAGE1)
    assert x["numeric"].max() == 99_999

    history = model.fit(x, y, epochs=2, verbose=0).history
    model.add_task(tasks["buy"], **SMALL)
    history |= model.fit(*arrays("buy"), validation_data=arrays("buy"), epochs=2, verbose=0).history

    assert all(np.isfinite(values).all() for values in history.values())
    assert all(np.isfinite(weight).all() for weight in model.weights)
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    assert model.represent(x).shared.dtype == policy.removeprefix("mixed_")
    for values in model.predict(x, verbose=0).values():
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    scaled = type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert scaled == (policy == "mixed_float16")


def test_the_scale_of_losses_is_kept(make_model, arrays, tmp_path):
    """In a file, and where what trains is made anew, as for another number of steps."""
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(), initial_scale=8.0, dynamic_growth_steps=1
    )
    model = make_model("click", compile_with={"optimizer": optimizer})
    model.fit(*arrays("click"), batch_size=48, verbose=0)
    model.save(tmp_path / "model.keras")
    for one in (model, load_model(tmp_path / "model.keras")):
        one.make_train_function(force=True)
        assert float(one.optimizer.dynamic_scale) == 8.0 * 2**2


def test_half_precision_is_close_to_full(make_model, arrays):
    x, _ = arrays("click")
    full = make_model(*STAGE1)
    half = make_model(*STAGE1, dtype="mixed_bfloat16")
    half.set_weights(full.get_weights())

    expected = full.predict(x, verbose=0)
    for name, values in half.predict(x, verbose=0).items():
        np.testing.assert_allclose(values, expected[name], atol=0.05)


def test_several_steps_in_one_call(make_model, dataset):
    results = []
    for steps in (1, 2):
        keras.utils.set_random_seed(1)
        settings = {"run_eagerly": False, "jit_compile": False, "steps_per_execution": steps}
        model = make_model("click", "like", compile_with=settings)
        history = model.fit(dataset("click", "like"), epochs=2, verbose=0).history
        results.append((history, model))

    # Three steps an epoch, so that the last call has one left.
    (history, model), (together_history, together) = results
    assert int(together.optimizer.iterations) == int(model.optimizer.iterations) == 6
    for name, values in history.items():
        np.testing.assert_allclose(together_history[name], values, rtol=1e-4, err_msg=name)
    for weight, other in zip(model.trainable_weights, together.trainable_weights, strict=True):
        np.testing.assert_allclose(other, weight, atol=1e-5)


REPLICAS = """
# The last batch of 31 has three rows, two for one replica.
# Few labels for one replica of a batch, many for the other one.
rows["like"] = [v if i % 32 > 12 else float("nan") for i, v in enumerate(rows["like"])]
click, like, buy = (mpt.Task(name, name) for name in ("click", "like", "buy"))


def make_model():
    model = mpt.MPTRec(encoder, [click, like], expert_units=(6,), tower_units=(4,))
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    return model


def train(model):
    x = encoder.encode(rows)
    data = mpt.make_dataset(rows, encoder, [click, like], batch_size=31)
    stage1 = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    # Its layers add penalties, of which each replica has to take those of its own thread.
    settings = {"calibrator_weight": 50.0, "l2_embedding": 1.0}
    with model.distribute_strategy.scope():
        funnel = mpt.model_class("aitm")(
            encoder, [click, like], expert_units=(6,), tower_units=(4,), **settings
        )
        funnel.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    even = mpt.make_dataset(rows, encoder, [click, like], batch_size=32)
    funnel.fit(even, epochs=2, verbose=0)
    stage1_weights = [weight.numpy().tolist() for weight in model.trainable_weights]
    before = model.predict(x, batch_size=32, verbose=0)
    # Made outside of the scope, so add_task has to enter it.
    model.add_task(buy, tower_units=(4,))
    new = mpt.make_dataset(rows, encoder, [buy], batch_size=31)
    every = mpt.make_dataset(rows, encoder, [click, like, buy], batch_size=31)
    frozen = model.fingerprint(frozen_only=True)
    stage2 = model.fit(new, validation_data=every, epochs=2, verbose=0).history
    after = model.predict(x, batch_size=32, verbose=0)
    return {
        "stage1": stage1,
        "stage2": stage2,
        "same": [bool(np.array_equal(before[name], after[name])) for name in before],
        "frozen": model.fingerprint(frozen_only=True) == frozen,
        "weights": [
            *stage1_weights,
            *(w.numpy().tolist() for m in (model, funnel) for w in m.trainable_weights),
        ],
    }
"""


def test_two_replicas_train_as_one(one_and_two_replicas):
    one, two = one_and_two_replicas(REPLICAS)

    for stage in ("stage1", "stage2"):
        assert one[stage].keys() == two[stage].keys()
        for name, values in one[stage].items():
            np.testing.assert_allclose(two[stage][name], values, rtol=2e-3, err_msg=name)
    for found in (one, two):
        assert found["same"] == [True, True]
        assert found["frozen"]
        assert found["iterations"] == 8
    for weight, expected in zip(two["weights"], one["weights"], strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["mirrored", "one device", "several workers"])
def test_a_strategy_of_one_replica_trains_as_none(kind, make_model, dataset):
    strategy = {
        "mirrored": lambda: tf.distribute.MirroredStrategy(["CPU:0"]),
        "one device": lambda: tf.distribute.OneDeviceStrategy("CPU:0"),
        "several workers": MultiWorkerStrategy,
    }[kind]()
    histories = []
    for scope in (strategy.scope(), contextlib.nullcontext()):
        keras.utils.set_random_seed(1)
        with scope:
            model = make_model("click", "like", compile_with={"run_eagerly": False})
        rows = dataset("click", "like", batch_size=32)
        histories.append(model.fit(rows, validation_data=rows, epochs=2, verbose=0).history)
    for name, values in histories[1].items():
        np.testing.assert_allclose(histories[0][name], values, rtol=1e-3, err_msg=name)
