"""Representations in memory."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from mptrec_tf.cache.representing import RepresentedRows


def in_memory(rows: RepresentedRows, progress: bool) -> Callable[[tf.Tensor], Any]:
    """Computes representations and holds them.

    Args:
        rows: The rows.
        progress: Whether to show a progress bar.

    Returns:
        Gives the rows of some numbers, int64 (B,).
    """
    parts, columns = [], []
    for batch in rows.encoded(progress):
        represented = tf.nest.flatten(rows.represent(batch))
        with tf.device("CPU:0"):  # not in the memory of an accelerator
            parts.append([tf.identity(tensor) for tensor in represented])
    with tf.device("CPU:0"):
        while parts[0]:  # each column frees its parts before the next one
            columns.append(tf.concat([part.pop(0) for part in parts], axis=0))
    tensors = tf.nest.pack_sequence_as(rows.structure, columns)
    return lambda index: tf.nest.map_structure(lambda t: tf.gather(t, index), tensors)
