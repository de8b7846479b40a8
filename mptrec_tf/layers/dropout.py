"""Dropout that is fast under XLA on a CPU."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("mptrec_tf")
class PhiloxDropout(keras.layers.Dropout):
    """`keras.layers.Dropout` with the Philox generator.

    Keras leaves the generator to TensorFlow, and under XLA on a CPU TensorFlow's choice is about a
    hundred times slower than Philox, which is then most of a training step.

    Args:
        rate: Fraction of the inputs that are dropped, in [0, 1).
        **kwargs: Other arguments of `keras.layers.Dropout`.

    Input shape: any. Output shape: the same.

    Example:

    >>> float(keras.ops.sum(PhiloxDropout(0.5)(keras.ops.ones((2, 3)), training=False)))
    6.0

    Reference: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011 (Philox).
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        sizes = tf.shape(inputs)
        noise_shape = self.noise_shape and [
            sizes[axis] if size is None else size for axis, size in enumerate(self.noise_shape)
        ]
        return tf.nn.experimental.stateless_dropout(
            inputs, self.rate, seed, rng_alg="philox", noise_shape=noise_shape
        )
