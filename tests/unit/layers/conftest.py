"""What the tests of every layer need."""

import keras
import numpy as np
import pytest
import tensorflow as tf


def _arrays(outputs):
    """The outputs as float32 arrays, whatever their structure and dtype."""
    return [tf.cast(output, "float32").numpy() for output in tf.nest.flatten(outputs)]


@pytest.fixture
def check_config():
    """Checks that a layer's configuration and weights make a layer with the same outputs."""

    def check(layer, *inputs):
        expected = layer(*inputs)
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert copy is not layer
        copy(*inputs)
        copy.set_weights(layer.get_weights())
        assert copy.get_config() == layer.get_config()
        for actual, wanted in zip(_arrays(copy(*inputs)), _arrays(expected), strict=True):
            np.testing.assert_array_equal(actual, wanted)

    return check


@pytest.fixture
def check_compiled():
    """Checks that a layer gives the same outputs and gradients when XLA compiles it."""

    def check(layer, *inputs, **arguments):
        layer(*inputs, **arguments)
        weights = [weight.value for weight in layer.trainable_weights]
        watched = weights + [i for i in inputs if i is not None and i.dtype.is_floating]

        def step(*inputs):
            with tf.GradientTape() as tape:
                tape.watch(watched)
                outputs = layer(*inputs, **arguments)
                total = tf.add_n([tf.reduce_sum(tf.sin(o)) for o in tf.nest.flatten(outputs)])
            gradients = tape.gradient(total, weights)
            return outputs, [tf.convert_to_tensor(g) for g in gradients if g is not None]

        compiled = tf.function(step, jit_compile=True)(*inputs)
        for actual, wanted in zip(_arrays(compiled), _arrays(step(*inputs)), strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)

    return check


@pytest.fixture
def normal():
    """Random tensors of a shape."""
    generator = np.random.default_rng(0)
    return lambda *shape: tf.constant(generator.normal(size=shape), tf.float32)


def numeric_gradient(function, array, step=1e-3):
    """Central differences of a function of an array that gives a number."""
    array = np.array(array, np.float32)
    gradient = np.zeros(array.shape)
    for index in np.ndindex(array.shape):
        values = []
        for sign in (1, -1):
            moved = array.copy()
            moved[index] += sign * step
            values.append(float(function(moved)))
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


@pytest.fixture
def check_gradient():
    """Checks the gradient of `sum(sin(layer(...)))` in a weight against central differences."""

    def check(layer, weight, *inputs, tolerance=2e-3):
        @tf.function
        def total(value):
            weight.assign(value)
            return tf.add_n([tf.reduce_sum(tf.sin(o)) for o in tf.nest.flatten(layer(*inputs))])

        start = weight.numpy()
        expected = numeric_gradient(total, start)
        with tf.GradientTape() as tape:
            loss = total(start)
        gradient = tf.convert_to_tensor(tape.gradient(loss, weight.value))
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=tolerance)

    return check
