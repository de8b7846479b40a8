import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import PhiloxDropout


@pytest.mark.parametrize(("rate", "jit"), [(0.2, False), (0.5, True)])
def test_each_call_drops_another_fraction_and_scales_the_rest(rate, jit):
    layer = PhiloxDropout(rate)
    step = tf.function(lambda x: layer(x, training=True), jit_compile=jit)
    first, second = (step(tf.ones((100, 200))).numpy() for _ in range(2))
    assert (first != second).any()
    for outputs in (first, second):
        np.testing.assert_allclose(np.mean(outputs == 0), rate, atol=0.02)
        np.testing.assert_allclose(outputs[outputs != 0], 1 / (1 - rate), rtol=1e-6)


def test_a_seed_reproduces_the_calls():
    layers = [PhiloxDropout(0.5, seed=seed) for seed in (3, 3, 4)]
    for _ in range(3):
        first, same, other = (layer(tf.ones((4, 50)), training=True) for layer in layers)
        np.testing.assert_array_equal(first, same)
        assert (first.numpy() != other.numpy()).any()


def test_outside_training_and_at_rate_0_the_input_passes(normal):
    inputs = normal(4, 5)
    np.testing.assert_array_equal(PhiloxDropout(0.5)(inputs), inputs)
    np.testing.assert_array_equal(PhiloxDropout(0.5)(inputs, training=False), inputs)
    np.testing.assert_array_equal(PhiloxDropout(0.0)(inputs, training=True), inputs)


@pytest.mark.parametrize("noise_shape", [(None, 1), (40, 1)])
def test_noise_shape_drops_whole_rows(noise_shape):
    layer = PhiloxDropout(0.5, noise_shape=noise_shape)
    outputs = layer(tf.ones((40, 6)), training=True).numpy()
    assert set(outputs[:, 0]) == {0, 2}
    np.testing.assert_array_equal(outputs, np.repeat(outputs[:, :1], 6, axis=1))


def test_the_gradient_passes_where_the_input_does():
    layer, inputs = PhiloxDropout(0.5), tf.ones((4, 50))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, inputs), outputs)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    layer = PhiloxDropout(0.5, dtype=policy)
    outputs = layer(tf.ones((4, 50)), training=True)
    assert outputs.dtype == policy.removeprefix("mixed_")
    assert set(tf.cast(outputs, "float32").numpy().ravel()) == {0, 2}


def test_configuration_round_trip(normal, check_config):
    layer = PhiloxDropout(0.3, noise_shape=(None, 1), seed=5, name="dropout")
    assert isinstance(layer, keras.layers.Dropout)
    check_config(layer, normal(3, 4))


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_that_is_no_fraction_is_refused(rate):
    with pytest.raises(ValueError, match=f"Received: rate={rate}"):
        PhiloxDropout(rate)


def test_dropping_everything_is_refused():
    with pytest.raises(ValueError, match=r"range \[0, 1\). Received: rate=1.0"):
        PhiloxDropout(1.0)(tf.ones((2, 2)), training=True)
