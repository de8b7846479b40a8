"""Operations against ones counted by hand."""

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf.experiments.costs import matmul_flops


def test_layers_and_their_gradients():
    first, second = keras.layers.Dense(5, activation="relu"), keras.layers.Dense(2)
    model = keras.Sequential([first, second])
    model.build((None, 3))
    x = tf.zeros((7, 3))
    forward = 2 * 7 * (3 * 5 + 5 * 2)
    assert matmul_flops(model, x) == forward

    def gradient(x):
        with tf.GradientTape() as tape:
            loss = ops.sum(model(x) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    # Each kernel's gradient costs as much as the layer, and so does that of the second's input.
    assert matmul_flops(gradient, x) == 2 * forward + 2 * 7 * 5 * 2


def test_batched_products():
    left, right = tf.zeros((4, 6, 3)), tf.zeros((6, 3, 5))
    assert (
        matmul_flops(lambda a, b: ops.einsum("bed,edh->beh", a, b), left, right)
        == 4 * 6 * 3 * 5 * 2
    )


def test_what_is_no_product_costs_nothing():
    assert matmul_flops(lambda x: tf.gather(x, [0, 2]) * 3.0 + 1.0, tf.zeros((5, 5))) == 0
