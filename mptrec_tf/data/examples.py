"""Rows as `tf.Example`s in files."""

import os

import numpy as np
import pyarrow as pa
import tensorflow as tf

COMPRESSION = "GZIP"


def record_writer(path: str | os.PathLike[str]) -> tf.io.TFRecordWriter:
    """A writer of a compressed TFRecord, at the level that costs the least time.

    Args:
        path: The file; it may be remote.
    """
    options = tf.io.TFRecordOptions(compression_type=COMPRESSION, compression_level=1)
    return tf.io.TFRecordWriter(os.fspath(path), options)


def lists_of_one(values: pa.Array, present: np.ndarray) -> pa.ListArray:
    """Lists of one value, null where it is not present.

    Args:
        values: The values (B,).
        present: Bool (B,).

    Example:

    >>> lists_of_one(pa.array([1, 2]), np.array([True, False])).to_pylist()
    [[1], None]
    """
    offsets = np.concatenate([[0], np.cumsum(present)]).astype(np.int32)
    absent = np.concatenate([~present, [False]])
    return pa.ListArray.from_arrays(
        pa.array(offsets, mask=absent), values.filter(pa.array(present))
    )
