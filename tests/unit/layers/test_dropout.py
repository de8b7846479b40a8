import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import HashedDropout, dropout


@pytest.mark.parametrize(("rate", "jit"), [(0.2, False), (0.5, True)])
def test_each_call_drops_another_fraction_and_scales_the_rest(rate, jit):
    layer = HashedDropout(rate)
    step = tf.function(lambda x: layer(x, training=True), jit_compile=jit)
    first, second = (step(tf.ones((100, 200))).numpy() for _ in range(2))
    assert (first != second).any()
    for outputs in (first, second):
        np.testing.assert_allclose(np.mean(outputs == 0), rate, atol=0.02)
        np.testing.assert_allclose(outputs[outputs != 0], 1 / (1 - rate), rtol=1e-6)


def test_a_seed_reproduces_the_calls():
    layers = [HashedDropout(0.5, seed=seed) for seed in (3, 3, 4)]
    for _ in range(3):
        first, same, other = (layer(tf.ones((4, 50)), training=True) for layer in layers)
        np.testing.assert_array_equal(first, same)
        assert (first.numpy() != other.numpy()).any()


def test_outside_training_and_at_rate_0_the_input_passes(normal):
    inputs = normal(4, 5)
    np.testing.assert_array_equal(HashedDropout(0.5)(inputs), inputs)
    np.testing.assert_array_equal(HashedDropout(0.5)(inputs, training=False), inputs)
    np.testing.assert_array_equal(HashedDropout(0.0)(inputs, training=True), inputs)


@pytest.mark.parametrize("noise_shape", [(None, 1), (40, 1)])
def test_noise_shape_drops_whole_rows(noise_shape):
    layer = HashedDropout(0.5, noise_shape=noise_shape)
    outputs = layer(tf.ones((40, 6)), training=True).numpy()
    assert set(outputs[:, 0]) == {0, 2}
    np.testing.assert_array_equal(outputs, np.repeat(outputs[:, :1], 6, axis=1))


def test_the_gradient_passes_where_the_input_does():
    layer, inputs = HashedDropout(0.5), tf.ones((4, 50))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, inputs), outputs)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    layer = HashedDropout(0.5, dtype=policy)
    outputs = layer(tf.ones((4, 50)), training=True)
    assert outputs.dtype == policy.removeprefix("mixed_")
    assert set(tf.cast(outputs, "float32").numpy().ravel()) == {0, 2}


def test_configuration_round_trip(normal, check_config):
    layer = HashedDropout(0.3, noise_shape=(None, 1), seed=5, name="dropout")
    assert isinstance(layer, keras.layers.Dropout)
    check_config(layer, normal(3, 4))


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_that_is_no_fraction_is_refused(rate):
    with pytest.raises(ValueError, match=f"Received: rate={rate}"):
        HashedDropout(rate)


def test_dropping_everything_is_refused():
    with pytest.raises(ValueError, match=r"range \[0, 1\). Received: rate=1.0"):
        HashedDropout(1.0)


def test_the_hash_is_lowbias32():
    words = np.array([0, 1, 2, 12345, 2**32 - 1], np.uint32)
    expected = []
    for word in words.tolist():
        word = (word ^ (word >> 16)) * 0x7FEB352D % 2**32
        word = (word ^ (word >> 15)) * 0x846CA68B % 2**32
        expected.append(word ^ (word >> 16))
    np.testing.assert_array_equal(dropout._hashed(tf.constant(words)), expected)


def masks(rate, seeds, calls, rows=250, columns=256):
    """Masks of layers with these seeds over several calls, (masks, rows, columns)."""
    step = tf.function(lambda layer: layer(tf.ones((rows, columns)), training=True))
    layers = [HashedDropout(rate, seed=seed) for seed in seeds]
    return np.stack([step(layer).numpy() != 0 for layer in layers for _ in range(calls)])


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_the_fraction_dropped_is_binomial(rate):
    kept = masks(rate, range(4), 5)
    _, *sizes = kept.shape
    for axes in ((1, 2), 1, 2):
        fractions = kept.mean(axes).ravel()
        number = kept[0].size if axes == (1, 2) else sizes[axes - 1]
        z = (fractions - (1 - rate)) / np.sqrt(rate * (1 - rate) / number)
        assert np.abs(z).max() < 5.5
        np.testing.assert_allclose(np.std(z), 1, atol=0.6 if axes == (1, 2) else 0.05)


def test_masks_do_not_depend_on_each_other():
    """Correlations between calls, seeds, and shifts within a mask are those of chance."""
    kept = masks(0.5, [0, 1, 2, 1000], 4) * 2.0 - 1
    flat = kept.reshape(len(kept), -1)
    number = flat.shape[1]
    between = flat @ flat.T / number
    np.fill_diagonal(between, 0)
    assert np.abs(between).max() < 5 / np.sqrt(number)
    spectrum = np.fft.rfft(flat)
    for other in range(len(flat)):  # all shifts of all masks against the first one
        shifted = np.fft.irfft(spectrum[other] * spectrum[0].conj()) / number
        if other == 0:
            shifted[0] = 0
        assert np.abs(shifted).max() < 6 / np.sqrt(number)
