"""Softmax over a handful of numbers."""

from typing import Any

from keras import ops


def softmax(logits: Any) -> Any:
    """Softmax over the last axis, in float32, as elementwise operations.

    On a CPU, TensorFlow's own takes 40 microseconds a call however few the numbers (oneDNN sets it
    up anew), as long as the rest of a gate.

    Args:
        logits: Numbers of any shape.

    Returns:
        float32 of the same shape, which sums to 1 over the last axis.

    Example:

    >>> softmax(ops.zeros((1, 2))).numpy()
    array([[0.5, 0.5]], dtype=float32)
    """
    logits = ops.cast(logits, "float32")
    exponents = ops.exp(logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True)))
    return exponents / ops.sum(exponents, axis=-1, keepdims=True)
