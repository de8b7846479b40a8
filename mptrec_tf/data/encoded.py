"""Encoded rows that any number of trainings take their batches from."""

import functools
from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from mptrec_tf.data.datasets import (
    Batch,
    dataset_of_arrays,
    make_dataset,
    read_through,
    summarize,
    with_ids,
)
from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.data.readers import Source
from mptrec_tf.spec import Task


class EncodedRows(Protocol):
    """Rows with a digest that tells them apart from others, cut into batches of any size.

    Example:

    ```python
    def fit(model: MPTRec, rows: EncodedRows) -> None:  # RowsInMemory, RowsInFiles, CachedRows
        model.fit(rows.batches(512, shuffle=True), epochs=10)
    ```
    """

    @property
    def digest(self) -> str:
        """What tells the rows apart from others."""

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        with_example_ids: bool = False,
    ) -> tf.data.Dataset:
        """The rows as `make_dataset` gives them, with a known number of batches.

        Args:
            batch_size: Rows in a batch.
            shuffle: Whether to shuffle anew in each epoch. Defaults to `False`.
            seed: Seed of the shuffle. Defaults to 0.
            with_example_ids: Whether the inputs hold the number of the row. Defaults to `False`.
        """


class RowsInMemory:
    """Rows that are encoded once and held in memory.

    Args:
        arrays: The rows, as `encode_rows` gives them.

    Example:

    ```python
    rows = RowsInMemory(encode_rows("train.parquet", encoder, tasks, training=True))
    small, large = rows.batches(256, shuffle=True), rows.batches(1024, shuffle=True)
    ```
    """

    def __init__(self, arrays: Batch) -> None:
        self._tensors = tf.nest.map_structure(tf.convert_to_tensor, arrays)

    @functools.cached_property
    def digest(self) -> str:
        """See `EncodedRows.digest`; all rows are read for it, which batches alone do not need."""
        return summarize([self._tensors]).digest

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        with_example_ids: bool = False,
    ) -> tf.data.Dataset:
        """See `EncodedRows.batches`."""
        tensors = with_ids(self._tensors) if with_example_ids else self._tensors
        return dataset_of_arrays(tensors, batch_size=batch_size, shuffle=shuffle, seed=seed)


class RowsInFiles:
    """Rows that are read and encoded in every epoch; all are read and checked once at first.

    Args:
        source: A frame, a dict of columns, or files.
        encoder: An adapted encoder.
        tasks: The tasks whose labels are read.
        training: As in `encode_rows`. Defaults to `False`.

    Raises:
        DataError: If the data do not fit the features or the tasks, or a task has no label at all.

    Example:

    ```python
    rows = RowsInFiles("train-*.parquet", encoder, tasks, training=True)
    model.fit(rows.batches(512, shuffle=True), epochs=10)
    ```
    """

    def __init__(
        self,
        source: Source,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        training: bool = False,
    ) -> None:
        # Checked as a whole first: an error in the last file should not cost the epoch before it.
        self._rows = read_through(source, encoder, tasks, training=training)
        self.digest = self._rows.digest
        self._source, self._encoder, self._tasks = source, encoder, tasks

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        with_example_ids: bool = False,
    ) -> tf.data.Dataset:
        """See `EncodedRows.batches`.

        Raises:
            ValueError: If the numbers of the rows are asked for.
        """
        dataset = make_dataset(
            self._source,
            self._encoder,
            self._tasks,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            stream=True,
            with_example_ids=with_example_ids,
        )
        count = -(-self._rows.number // batch_size)
        return dataset.apply(tf.data.experimental.assert_cardinality(count))
