"""One gradient for each id, however often a batch looks it up."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class DuplicateSums:
    """Adds up what the gradients of embedding tables hold for the same row.

    A sparse gradient lists the rows that were looked up; a row that was looked up several times is
    listed several times, with a part of its gradient each. Every occurrence writes its position
    into a scratch vector, at the place of its row, and reads there which position has won: so all
    occurrences of a row agree on one, its leader, without sorting, with fixed shapes (as XLA
    needs), at a cost that follows the batch.

    The scratch vector, one number a row, is no state: it is written before it is read, and is not
    saved.

    Args:
        variables: The variables whose gradients may be sparse.
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        # float32, exact up to 16 million positions, can be scattered on every device; int32 cannot.
        self._scratch = [
            keras.Variable(
                shape=tuple(variable.shape)[:1],
                initializer="zeros",
                dtype="float32",
                trainable=False,
                name="scratch",
            )
            for variable in variables
        ]

    def at_leaders(self, gradient: tf.IndexedSlices, index: int) -> tf.IndexedSlices:
        """The same gradient with each row's sum at its leader, and zeros at other occurrences.

        Args:
            gradient: The gradient, of n rows.
            index: Number of its variable.
        """
        sums, _ = self._sums(gradient, index)
        return tf.IndexedSlices(sums, gradient.indices, gradient.dense_shape)

    def everywhere(self, gradient: tf.IndexedSlices, index: int) -> Any:
        """Each row's sum, at every occurrence of the row.

        Args:
            gradient: The gradient, of n rows.
            index: Number of its variable.

        Returns:
            A tensor like `gradient.values`, (n, ...).
        """
        return tf.gather(*self._sums(gradient, index))

    def leaders(self, ids: Any, index: int) -> Any:
        """Of each occurrence of an id, the position of the one that stands for all.

        Args:
            ids: The rows that were looked up, int (n,).
            index: Number of their variable.

        Returns:
            int32 (n,).
        """
        # By the handle, since each replica of a `tf.distribute.Strategy` has a vector of its own.
        handle = self._scratch[index].handle
        tf.raw_ops.ResourceScatterUpdate(
            resource=handle,
            indices=ids,
            updates=tf.cast(tf.range(tf.shape(ids)[0]), tf.float32),
        )
        leaders = tf.raw_ops.ResourceGather(resource=handle, indices=ids, dtype=tf.float32)
        return tf.cast(leaders, tf.int32)

    def _sums(self, gradient: tf.IndexedSlices, index: int) -> tuple[Any, Any]:
        count = tf.shape(gradient.indices)[0]
        leaders = self.leaders(gradient.indices, index)
        return tf.math.unsorted_segment_sum(gradient.values, leaders, count), leaders
