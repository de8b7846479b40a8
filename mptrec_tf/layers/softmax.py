"""Softmax over a handful of numbers."""

from typing import Any

import tensorflow as tf
from keras import ops


def softmax(logits: Any, axis: int = -1) -> Any:
    """Softmax in float32, as elementwise operations.

    On a CPU, TensorFlow's own takes 40 microseconds a call however few the numbers (oneDNN sets it
    up anew), as long as the rest of a gate.

    Args:
        logits: Numbers of any shape.
        axis: The axis over which it sums to 1. Defaults to -1, the last one.

    Returns:
        float32 of the same shape.

    Example:

    >>> softmax(ops.zeros((1, 2))).numpy()
    array([[0.5, 0.5]], dtype=float32)
    """
    logits = ops.cast(logits, "float32")
    highest = tf.reduce_max(logits, axis=axis, keepdims=True)  # Keras' refuses a batch of no rows
    exponents = ops.exp(logits - ops.stop_gradient(highest))
    return exponents / ops.sum(exponents, axis=axis, keepdims=True)
