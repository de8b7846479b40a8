"""Category ids as vectors."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

MOST_ROWS = 2**31 - 1
"""Of a table, whose rows are looked up by int32."""


class _Group(NamedTuple):
    """The columns of one width, which share a table.

    Attributes:
        dim: The width.
        rows: Rows of the table.
        members: Numbers of the columns, those that are compressed last.
        starts: First row of each member.
        positions: Where the members' ids are in the input.
        offsets: What is added to the id at each position.
        plain: How many of the positions belong to columns that are not compressed.
        divisors: Divisor at each position after those.
        quotient_offsets: What is added to the quotient there.
    """

    dim: int
    rows: int
    members: list[int]
    starts: list[int]
    positions: list[int]
    offsets: np.ndarray
    plain: int
    divisors: np.ndarray
    quotient_offsets: np.ndarray


@keras.saving.register_keras_serializable("mptrec_tf")
class FeatureEmbedding(keras.layers.Layer):
    """Embeds all categorical columns with one lookup for each embedding width.

    Columns of one width share a table in which each has its own range of rows, so looking them all
    up is one gather. Multi-valued columns are looked up in the same gather and pooled.

    A column with a divisor `m` is compressed: its id `i` gets the element-wise product of row
    `i mod m` and row `m + floor(i / m)` of its range, so `n` ids take `m + ceil(n / m)` rows and
    each still gets an embedding of its own. Quotient rows begin as what the initializer gives,
    moved away from 0 by 1, so a product begins nearly as a plain embedding would, and ids that
    share a remainder row begin unlike.

    Args:
        sizes: Number of ids of each single-valued column. Columns of a width share a table, so the
            layer trusts that ids are below these: one beyond them reads another column's row.
        dims: Embedding width of each single-valued column.
        multivalued_sizes: Number of ids of each multi-valued column. Defaults to none.
        multivalued_dims: Embedding width of each multi-valued column. Defaults to none.
        multivalued_lengths: How many ids a row holds for each multi-valued column. Defaults to
            none.
        poolings: `"mean"`, `"sum"` or `"max"` for each multi-valued column. Defaults to none.
        divisors: For each column, single-valued ones first, the divisor that compresses it, or
            `None`. A column of no more ids than its divisor is not compressed. Defaults to `None`:
            no column is.
        embeddings_initializer: Defaults to a normal distribution with standard deviation 0.05.
        l2: Penalty on the squares of the embeddings that a batch looks up, as a mean over the
            batch's rows. Defaults to 0.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Attributes:
        applied_divisors: For each column, single-valued ones first, the divisor of one that is
            compressed, else `None`.

    Call arguments:
        ids: int (B, number of single-valued columns), or `None` where there are none.
        multivalued_ids: int (B, sum of `multivalued_lengths`), or `None`. The id 0 is padding and
            counts in no pooling; a row of padding only gives zeros.

    Output shape: float (B, `output_dim`): single-valued columns first, each kind in its order.

    Raises:
        ValueError: If a setting has another length or value than these, or a table more rows than
            int32 counts.

    Example:

    >>> layer = FeatureEmbedding(sizes=[10, 20], dims=[4, 4])
    >>> layer(np.array([[3, 0], [9, 19]])).shape
    TensorShape([2, 8])

    Reference: the feature embedding layer of arXiv:2408.17214, section 3. Compression: Shi et al.,
    "Compositional Embeddings Using Complementary Partitions for Memory-Efficient Recommendation
    Systems", KDD 2020, arXiv:1909.02107, the quotient-remainder trick with multiplication.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        dims: Sequence[int],
        multivalued_sizes: Sequence[int] = (),
        multivalued_dims: Sequence[int] = (),
        multivalued_lengths: Sequence[int] = (),
        poolings: Sequence[str] = (),
        divisors: Sequence[int | None] | None = None,
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
        columns = len(self.sizes) + len(self.multivalued_sizes)
        self.divisors = [None] * columns if divisors is None else list(divisors)
        self.embeddings_initializer = keras.initializers.get(
            embeddings_initializer or keras.initializers.RandomNormal(stddev=0.05)
        )
        self.l2 = l2
        for settings in (
            (sizes, dims),
            (multivalued_sizes, multivalued_dims, multivalued_lengths, poolings),
            (range(columns), self.divisors),
        ):
            if len(set(map(len, settings))) > 1:
                raise ValueError(f"each column needs all of its settings. Received: {settings}")
        for pooling in self.poolings:
            if pooling not in ("mean", "sum", "max"):
                raise ValueError(f"pooling must be mean, sum or max. Received: {pooling!r}")
        for divisor in self.divisors:
            if divisor is not None and divisor < 2:
                raise ValueError(f"a divisor must be 2 or more. Received: {divisor}")
        all_sizes = self.sizes + self.multivalued_sizes
        self.applied_divisors = [
            divisor if divisor is not None and divisor < size else None
            for size, divisor in zip(all_sizes, self.divisors, strict=True)
        ]
        self._rows = [
            divisor + -(-size // divisor) if divisor else size
            for size, divisor in zip(all_sizes, self.applied_divisors, strict=True)
        ]
        all_dims = self.dims + self.multivalued_dims
        self._groups = [self._group(dim, all_dims) for dim in sorted(set(all_dims))]

    def _group(self, dim: int, all_dims: Sequence[int]) -> _Group:
        members = [i for i, width in enumerate(all_dims) if width == dim]
        members.sort(key=lambda i: self.applied_divisors[i] is not None)
        starts = np.cumsum([0] + [self._rows[i] for i in members]).tolist()
        if starts[-1] > MOST_ROWS:
            raise ValueError(
                f"columns of one width share a table, which has at most {MOST_ROWS:,} rows; give "
                f"some another width, or a divisor. Received: {starts[-1]:,} rows of width {dim}"
            )
        lengths = [1] * len(self.sizes) + self.multivalued_lengths
        firsts = np.cumsum([0] + lengths).tolist()
        positions: list[int] = []
        offsets, divisors, quotient_offsets = [], [], []
        for member, start in zip(members, starts, strict=False):
            positions += range(firsts[member], firsts[member + 1])
            offsets += [start] * lengths[member]
            if divisor := self.applied_divisors[member]:
                divisors += [divisor] * lengths[member]
                quotient_offsets += [start + divisor] * lengths[member]
        return _Group(
            dim,
            starts[-1],
            members,
            starts[:-1],
            positions,
            np.array(offsets, np.int32),
            len(positions) - len(divisors),
            np.array(divisors, np.int32),
            np.array(quotient_offsets, np.int32),
        )

    @property
    def output_dim(self) -> int:
        """Width of the output."""
        return sum(self.dims) + sum(self.multivalued_dims)

    def build(self, ids_shape: Any = None, multivalued_ids_shape: Any = None) -> None:
        self.tables = [
            self.add_weight(
                name=f"table_{group.dim}",
                shape=(group.rows, group.dim),
                initializer=self._initializer(group),
                autocast=False,  # what is looked up is cast, not the table
            )
            for group in self._groups
        ]

    def _initializer(self, group: _Group) -> Any:
        if not len(group.divisors):
            return self.embeddings_initializer
        quotients = np.zeros((group.rows, 1), bool)
        for member, start in zip(group.members, group.starts, strict=True):
            if divisor := self.applied_divisors[member]:
                quotients[start + divisor : start + self._rows[member]] = True

        def initialize(shape: tuple[int, ...], dtype: Any = None) -> Any:
            table = self.embeddings_initializer(shape, dtype=dtype)
            away = ops.where(table < 0, table - 1, table + 1)
            return ops.where(quotients, away, table)

        return initialize

    def call(self, ids: Any = None, multivalued_ids: Any = None, training: bool = False) -> Any:
        given = [part for part in (ids, multivalued_ids) if part is not None]
        all_ids = ops.concatenate(given, axis=-1) if len(given) > 1 else given[0]
        outputs: dict[int, Any] = {}
        for table, group in zip(self.tables, self._groups, strict=True):
            in_order = group.positions == list(range(all_ids.shape[-1]))
            group_ids = all_ids if in_order else ops.take(all_ids, group.positions, axis=-1)
            # From the variable itself: reading it first copies the whole table in each step.
            rows = tf.gather(table.value, _table_rows(group, group_ids))
            rows = _products(group, ops.cast(rows, self.compute_dtype))
            if training and self.l2:
                squares = ops.sum(ops.square(ops.cast(rows, "float32")))
                count = ops.maximum(ops.cast(ops.shape(rows)[0], "float32"), 1)
                self.add_loss(self.l2 * squares / count)
            if in_order and not self.multivalued_sizes:
                return ops.reshape(rows, (-1, self.output_dim))
            start = 0
            for member in group.members:
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
        return ops.concatenate([outputs[i] for i in range(len(outputs))], axis=-1)

    def column_tables(self) -> list[np.ndarray]:
        """The rows of each column, single-valued ones first.

        Returns:
            For each column, float32 (rows, dim): a row for each id, or of a compressed column its
            remainder rows and then its quotient rows.
        """
        columns: dict[int, np.ndarray] = {}
        for table, group in zip(self.tables, self._groups, strict=True):
            values = ops.convert_to_numpy(table)
            for member, start in zip(group.members, group.starts, strict=True):
                columns[member] = values[start : start + self._rows[member]]
        return [columns[i] for i in range(len(columns))]

    def assign_column_tables(self, tables: Mapping[int, np.ndarray]) -> None:
        """Replaces the rows of some columns.

        Args:
            tables: By number of the column, as `column_tables` counts them, its new rows.

        Raises:
            ValueError: If a table has another shape.
        """
        for table, group in zip(self.tables, self._groups, strict=True):
            if not tables.keys() & set(group.members):
                continue
            values = np.array(ops.convert_to_numpy(table))
            for member, start in zip(group.members, group.starts, strict=True):
                if member in tables:
                    expected = (self._rows[member], group.dim)
                    if tables[member].shape != expected:
                        raise ValueError(
                            f"the table of column {member} must have the shape {expected}. "
                            f"Received: {tables[member].shape}"
                        )
                    values[start : start + expected[0]] = tables[member]
            table.assign(values)

    def compute_output_shape(
        self, ids_shape: Any = None, multivalued_ids_shape: Any = None
    ) -> tuple[int | None, ...]:
        return ((ids_shape or multivalued_ids_shape)[0], self.output_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sizes": self.sizes,
            "dims": self.dims,
            "multivalued_sizes": self.multivalued_sizes,
            "multivalued_dims": self.multivalued_dims,
            "multivalued_lengths": self.multivalued_lengths,
            "poolings": self.poolings,
            "divisors": self.divisors,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "l2": self.l2,
        }


def _table_rows(group: _Group, ids: Any) -> Any:
    """Where ids (B, P) are in the table; the quotients of the compressed columns come last."""
    if not len(group.divisors):
        return ids + group.offsets
    compressed = ids[:, group.plain :]
    remainders = ops.concatenate(
        [ids[:, : group.plain], ops.mod(compressed, group.divisors)], axis=-1
    )
    quotients = ops.floor_divide(compressed, group.divisors)
    return ops.concatenate(
        [remainders + group.offsets, quotients + group.quotient_offsets], axis=-1
    )


def _products(group: _Group, rows: Any) -> Any:
    """Multiplies the remainder rows of the compressed columns by their quotient rows."""
    if not len(group.divisors):
        return rows
    positions = len(group.positions)
    products = rows[:, group.plain : positions] * rows[:, positions:]
    return ops.concatenate([rows[:, : group.plain], products], axis=1)


def _pool(rows: Any, known: Any, pooling: str) -> Any:
    """Pools (B, L, dim) over L where `known` (B, L) is true."""
    mask = ops.cast(known, rows.dtype)[:, :, None]
    if pooling == "max":
        # Keras' refuses a batch of no rows.
        highest = tf.reduce_max(ops.where(known[:, :, None], rows, -np.inf), axis=1)
        return ops.where(ops.any(known, axis=1, keepdims=True), highest, ops.zeros_like(highest))
    total = ops.sum(rows * mask, axis=1)
    return total / ops.maximum(ops.sum(mask, axis=1), 1) if pooling == "mean" else total
