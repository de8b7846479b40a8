"""Columns of mean 0 and deviation 1."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import RunningStandardization
from mptrec_tf.layers.standardization import MOST_ROWS

ROWS = np.random.default_rng(0).normal([3.0, -0.02, 0.0], [2.0, 0.05, 0.0], (30, 3)).astype("f")


def trained(*batches, **settings):
    layer = RunningStandardization(**settings)
    for batch in batches:
        layer(batch, training=True)
    return layer


def test_the_statistics_are_those_of_all_rows_however_they_are_batched():
    for cuts in ([], [1], [10, 20], [29]):
        layer = trained(*np.split(ROWS, cuts))
        np.testing.assert_allclose(layer.mean, ROWS.mean(0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(layer.variance, ROWS.var(0), rtol=1e-4, atol=1e-9)
        assert float(layer.rows) == len(ROWS)


def test_a_mean_far_from_zero_costs_no_precision():
    rows = np.random.default_rng(1).normal(1e4, 1.0, (512, 1)).astype("f")
    layer = trained(*np.split(rows, [256]))
    np.testing.assert_allclose(layer.variance, rows.astype(float).var(0), rtol=2e-3)


def test_training_and_serving_give_the_same():
    layer = trained(ROWS[:20])
    outputs = layer(ROWS[20:], training=True)
    np.testing.assert_array_equal(outputs, layer(ROWS[20:]))
    expected = (ROWS[20:] - ROWS.mean(0)) / np.sqrt(ROWS.var(0) + 1e-3)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert np.all(outputs.numpy()[:, 2] == 0)  # a column that never varies


def test_before_training_it_passes_its_input():
    np.testing.assert_array_equal(RunningStandardization(epsilon=0.0)(ROWS), ROWS)


def test_only_training_of_a_trainable_layer_moves_the_statistics():
    layer = trained(ROWS[:10])
    before = [np.array(weight) for weight in layer.weights]
    layer(ROWS)
    layer.trainable = False
    layer(ROWS, training=True)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_new_rows_keep_a_share_after_very_many():
    layer = trained(ROWS[:10])
    layer.rows.assign(MOST_ROWS)
    layer(np.full((1000, 3), 1e4, "float32"), training=True)
    assert float(layer.rows) == MOST_ROWS
    np.testing.assert_allclose(layer.mean - ROWS[:10].mean(0), 1.0, rtol=0.01)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_computed_in_single(dtype):
    layer = trained(ROWS, dtype=dtype)
    half = tf.cast(ROWS, layer.compute_dtype)
    outputs = layer(half)
    assert outputs.dtype == half.dtype
    assert layer(keras.Input((3,), dtype="float32")).dtype == "float32"
    expected = tf.cast(trained(ROWS)(tf.cast(half, "float32")), half.dtype)
    np.testing.assert_array_equal(tf.cast(outputs, "float32"), tf.cast(expected, "float32"))


def test_it_is_compiled_and_restored_from_its_file(tmp_path):
    layer = RunningStandardization(epsilon=0.01)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=True)
    model.fit(ROWS, ROWS[:, :1], batch_size=8, epochs=2, verbose=0)
    np.testing.assert_allclose(layer.mean, ROWS.mean(0), rtol=1e-4, atol=1e-6)
    assert float(layer.rows) == 60
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config()["epsilon"] == 0.01
    np.testing.assert_array_equal(loaded.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_left_out(wrong):
    rows = ROWS.copy()
    rows[4, 1] = wrong
    expected, layer = trained(np.delete(ROWS, 4, axis=0)), trained(rows)
    for name in ("mean", "variance", "rows"):
        np.testing.assert_allclose(getattr(layer, name), getattr(expected, name), rtol=1e-5)


def test_no_rows_change_nothing():
    layer = trained(ROWS[:0])
    values = [np.ravel(part) for part in (layer.mean, layer.variance, layer.rows)]
    np.testing.assert_array_equal(np.concatenate(values), [0, 0, 0, 1, 1, 1, 0])
    layer = trained(ROWS)
    before = [np.array(weight) for weight in layer.weights]
    layer(ROWS[:0], training=True)
    layer(np.full((2, 3), np.nan, "float32"), training=True)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
