"""Dropout that costs next to nothing under XLA on a CPU."""

import zlib
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("mptrec_tf")
class HashedDropout(keras.layers.Dropout):
    """`keras.layers.Dropout` whose mask is a hash of seed, call and place.

    Keras leaves the mask to TensorFlow's random numbers, which under XLA on a CPU take longer than
    the matrix products around them. A hash of the element's number needs a few multiplications that
    XLA fuses into what reads the mask, so none is ever stored. It is good enough for dropout, and
    for nothing that needs more of random numbers.

    Args:
        rate: Fraction of the inputs that are dropped, in [0, 1).
        **kwargs: Other arguments of `keras.layers.Dropout`.

    Input shape: any. Output shape: the same.

    Raises:
        ValueError: If the rate is not in [0, 1).

    Example:

    >>> float(keras.ops.sum(HashedDropout(0.5)(keras.ops.ones((2, 3)), training=False)))
    6.0

    Reference: the hash is "lowbias32", C. Wellons, "Prospecting for Hash Functions", 2018.
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(rate, **kwargs)
        if rate == 1:
            raise ValueError(f"rate must be in the range [0, 1). Received: rate={rate}")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        shape = tf.shape(inputs)
        if self.noise_shape:
            given = enumerate(self.noise_shape)
            shape = tf.stack([shape[axis] if size is None else size for axis, size in given])
        seed, calls = tf.unstack(tf.cast(self.seed_generator.next(), tf.uint32))
        key = _hashed(seed)
        numbers = tf.cast(tf.range(tf.reduce_prod(shape)), tf.uint32)
        # Hashed twice: with one key inside, two calls would have the same mask, shifted.
        bits = _hashed(tf.bitwise.bitwise_xor(_hashed(numbers + key), _hashed(key + calls)))
        kept = tf.reshape(bits >= tf.constant(int(self.rate * 2**32), tf.uint32), shape)
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros([], inputs.dtype))


def seed_of(seed: int | None, layer: str) -> int | None:
    """A seed for one of a model's layers; with the same one, layers of a shape drop the same.

    Args:
        seed: The model's, or `None` for none.
        layer: Name of the layer, which no other layer of the model has.

    Example:

    >>> seed_of(7, "experts") == seed_of(7, "towers"), seed_of(None, "towers")
    (False, None)
    """
    return None if seed is None else zlib.crc32(f"{seed} {layer}".encode())


def _hashed(words: tf.Tensor) -> tf.Tensor:
    """A bijection of 32-bit words in which a changed bit changes about half of all."""
    words = _folded(words, 16) * tf.constant(0x7FEB352D, tf.uint32)
    words = _folded(words, 15) * tf.constant(0x846CA68B, tf.uint32)
    return _folded(words, 16)


def _folded(words: tf.Tensor, bits: int) -> tf.Tensor:
    shifted = tf.bitwise.right_shift(words, tf.constant(bits, tf.uint32))
    return tf.bitwise.bitwise_xor(words, shifted)
