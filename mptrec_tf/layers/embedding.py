"""Category ids as vectors."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("mptrec_tf")
class FeatureEmbedding(keras.layers.Layer):
    """Embeds all categorical columns with one lookup for each embedding width.

    Columns of one width share a table in which each has its own range of rows, so looking them all
    up is one gather. Multi-valued columns are looked up in the same gather and pooled.

    Args:
        sizes: Number of ids of each single-valued column.
        dims: Embedding width of each single-valued column.
        multivalued_sizes: Number of ids of each multi-valued column. Defaults to none.
        multivalued_dims: Embedding width of each multi-valued column. Defaults to none.
        multivalued_lengths: How many ids a row holds for each multi-valued column. Defaults to
            none.
        poolings: `"mean"`, `"sum"` or `"max"` for each multi-valued column. Defaults to none.
        embeddings_initializer: Defaults to a normal distribution with standard deviation 0.05.
        l2: Penalty on the squares of the embeddings that a batch looks up, as a mean over the
            batch's rows. Defaults to 0.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        ids: int (B, number of single-valued columns), or `None` where there are none.
        multivalued_ids: int (B, sum of `multivalued_lengths`), or `None`. The id 0 is padding and
            counts in no pooling; a row of padding only gives zeros.

    Output shape: float (B, `output_dim`): single-valued columns first, each kind in its order.

    Example:

    >>> layer = FeatureEmbedding(sizes=[10, 20], dims=[4, 4])
    >>> layer(np.array([[3, 0], [9, 19]])).shape
    TensorShape([2, 8])

    Reference: the feature embedding layer of arXiv:2408.17214, section 3.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        dims: Sequence[int],
        multivalued_sizes: Sequence[int] = (),
        multivalued_dims: Sequence[int] = (),
        multivalued_lengths: Sequence[int] = (),
        poolings: Sequence[str] = (),
        embeddings_initializer: Any = None,
        l2: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sizes, self.dims = list(sizes), list(dims)
        self.multivalued_sizes = list(multivalued_sizes)
        self.multivalued_dims = list(multivalued_dims)
        self.multivalued_lengths = list(multivalued_lengths)
        self.poolings = list(poolings)
        self.embeddings_initializer = keras.initializers.get(
            embeddings_initializer or keras.initializers.RandomNormal(stddev=0.05)
        )
        self.l2 = l2
        for settings in (
            (sizes, dims),
            (multivalued_sizes, multivalued_dims, multivalued_lengths, poolings),
        ):
            if len(set(map(len, settings))) > 1:
                raise ValueError(f"each column needs all of its settings. Received: {settings}")
        for pooling in self.poolings:
            if pooling not in ("mean", "sum", "max"):
                raise ValueError(f"pooling must be mean, sum or max. Received: {pooling!r}")
        columns = len(self.sizes)
        # Each id column of the input, single-valued ones first, then the positions of the others.
        owner = list(range(columns))
        for index, length in enumerate(self.multivalued_lengths):
            owner += [columns + index] * length
        all_sizes = self.sizes + self.multivalued_sizes
        all_dims = self.dims + self.multivalued_dims
        self._groups = []
        for dim in sorted(set(all_dims)):
            members = [i for i, width in enumerate(all_dims) if width == dim]
            starts = np.cumsum([0] + [all_sizes[i] for i in members])
            offset_of = dict(zip(members, starts[:-1].tolist(), strict=True))
            positions = [p for p, feature in enumerate(owner) if feature in offset_of]
            offsets = np.array([offset_of[owner[p]] for p in positions], np.int32)
            self._groups.append((dim, int(starts[-1]), members, positions, offsets))

    @property
    def output_dim(self) -> int:
        """Width of the output."""
        return sum(self.dims) + sum(self.multivalued_dims)

    def build(self, ids_shape: Any = None, multivalued_ids_shape: Any = None) -> None:
        self.tables = [
            self.add_weight(
                name=f"table_{dim}",
                shape=(rows, dim),
                initializer=self.embeddings_initializer,
                autocast=False,  # what is looked up is cast, not the table
            )
            for dim, rows, *_ in self._groups
        ]

    def call(self, ids: Any = None, multivalued_ids: Any = None, training: bool = False) -> Any:
        given = [part for part in (ids, multivalued_ids) if part is not None]
        all_ids = ops.concatenate(given, axis=-1) if len(given) > 1 else given[0]
        outputs: dict[int, Any] = {}
        for table, (_, _, members, positions, offsets) in zip(
            self.tables, self._groups, strict=True
        ):
            every_position = len(positions) == all_ids.shape[-1]
            group_ids = all_ids if every_position else ops.take(all_ids, positions, axis=-1)
            # From the variable itself: reading it first copies the whole table in each step.
            rows = tf.gather(table.value, group_ids + offsets)
            rows = ops.cast(rows, self.compute_dtype)
            if training and self.l2:
                squares = ops.sum(ops.square(ops.cast(rows, "float32")))
                self.add_loss(self.l2 * squares / ops.cast(ops.shape(rows)[0], "float32"))
            start = 0
            for member in members:
                if member < len(self.sizes):
                    outputs[member] = rows[:, start]
                    start += 1
                else:
                    index = member - len(self.sizes)
                    stop = start + self.multivalued_lengths[index]
                    outputs[member] = _pool(
                        rows[:, start:stop],
                        ops.not_equal(group_ids[:, start:stop], 0),
                        self.poolings[index],
                    )
                    start = stop
            if len(self._groups) == 1 and not self.multivalued_sizes:
                return ops.reshape(rows, (-1, self.output_dim))
        return ops.concatenate([outputs[i] for i in range(len(outputs))], axis=-1)

    def compute_output_shape(
        self, ids_shape: Any = None, multivalued_ids_shape: Any = None
    ) -> tuple[int | None, ...]:
        return (None, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sizes": self.sizes,
            "dims": self.dims,
            "multivalued_sizes": self.multivalued_sizes,
            "multivalued_dims": self.multivalued_dims,
            "multivalued_lengths": self.multivalued_lengths,
            "poolings": self.poolings,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "l2": self.l2,
        }


def _pool(rows: Any, known: Any, pooling: str) -> Any:
    """Pools (B, L, dim) over L where `known` (B, L) is true."""
    mask = ops.cast(known, rows.dtype)[:, :, None]
    if pooling == "max":
        highest = ops.max(ops.where(known[:, :, None], rows, -np.inf), axis=1)
        return ops.where(ops.any(known, axis=1, keepdims=True), highest, ops.zeros_like(highest))
    total = ops.sum(rows * mask, axis=1)
    return total / ops.maximum(ops.sum(mask, axis=1), 1) if pooling == "mean" else total
