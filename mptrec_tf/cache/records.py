"""A represented row as one record of a NumPy array, as files hold it."""

from typing import Any

import numpy as np
import tensorflow as tf


def record_dtype(structure: Any) -> np.dtype:
    """A row's type: its tensors are fields, in the order of `tf.nest.flatten`.

    Args:
        structure: What a batch is, of `tf.TensorSpec`.
    """
    return np.dtype(
        [
            (str(index), stored_dtype(spec.dtype).as_numpy_dtype, tuple(spec.shape[1:]))
            for index, spec in enumerate(tf.nest.flatten(structure))
        ]
    )


def to_records(batch: Any, record: np.dtype) -> np.ndarray:
    """The rows of a batch, of that type."""
    tensors = tf.nest.flatten(batch)
    records = np.empty(len(tensors[0]), record)
    for name, tensor in zip(record.names or (), tensors, strict=True):
        records[name] = reinterpret(tensor, stored_dtype(tensor.dtype))
    return records


def stored_dtype(dtype: tf.DType) -> tf.DType:
    """The type of a field; NumPy's format has no bfloat16."""
    return tf.uint16 if dtype == tf.bfloat16 else dtype


def reinterpret(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The same bits as another type."""
    return tensor if tensor.dtype == dtype else tf.bitcast(tensor, dtype)
