"""Rows whose representations were computed once."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from mptrec_tf.cache.files import in_files
from mptrec_tf.cache.memory import in_memory
from mptrec_tf.cache.representing import RepresentedRows, Representing
from mptrec_tf.data.datasets import EXAMPLE_ID, RowsByNumber, gathered, gathered_batches
from mptrec_tf.data.encoded import EncodedRows
from mptrec_tf.errors import ModelError


class CachedRows:
    """Rows whose inputs are what a model's backbone makes of them; `cache_rows` gives them.

    They serve as `EncodedRows` for `fit` (of an added task), `evaluate` and `predict` of the model
    that made them, and of any with the same backbone: they are stale once stage 1 goes on. Runs of
    a stage check that; in a notebook, `check` does.

    Args:
        number: How many rows.
        gather: Gives the rows of some numbers, int64 (B,): a representation, labels, weights.
        digest: The digest of the encoded rows.
        backbone: The `representation_fingerprint` of the model.

    Example:

    ```python
    rows = cache_rows(model, RowsInFiles("train.parquet", encoder, [new]), "runs/cache")
    rows.check(model)
    model.fit(rows.batches(512, shuffle=True), epochs=10)
    ```
    """

    def __init__(
        self,
        number: int,
        gather: Callable[[tf.Tensor], Any],
        digest: str,
        backbone: str,
    ) -> None:
        self.digest = digest
        self.backbone = backbone
        self._number = number
        self._gather = gather

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        with_example_ids: bool = False,
    ) -> tf.data.Dataset:
        """See `EncodedRows.batches`; the same rows in the same order as `RowsInMemory` gives.

        Raises:
            ValueError: If the numbers of the rows are asked for.
        """
        if with_example_ids:
            raise ValueError(f"cached representations have no {EXAMPLE_ID!r}, which is for stage 1")
        return gathered_batches(
            self._number,
            self._gather,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
        )

    def in_order_of(self, rows: RowsByNumber) -> tf.data.Dataset:
        """Batches of the same rows as another dataset gives, in its order.

        Args:
            rows: The numbers of that dataset's rows.
        """
        return gathered(rows._replace(gather=self._gather))

    def check(self, model: Representing) -> None:
        """Refuses a model with another backbone.

        Raises:
            ModelError: If it has another.
        """
        if model.representation_fingerprint() != self.backbone:
            raise ModelError(
                "the cached representations were made by another backbone than the model's; "
                "compute them with this model"
            )


def cache_rows(
    model: Representing,
    rows: EncodedRows,
    directory: str | os.PathLike[str] | None = None,
    *,
    dtype: str | None = None,
    progress: bool = False,
) -> CachedRows:
    """Computes once what all tasks of a model share of each row.

    In files, each 65,536 rows are one that appears when it is complete, so a computation that was
    cut off goes on after the last one. The files are mapped into memory, not read into it, and can
    be deleted when no training needs them.

    Args:
        model: The model, before or after the new task was added.
        rows: The rows, with the labels of the new task.
        directory: Where the files are. Defaults to `None`: all is held in memory.
        dtype: Precision in which they are kept; `"float16"` halves the memory and rounds to three
            to four digits. Defaults to `None`, that of the model.
        progress: Whether to show a progress bar. Defaults to `False`.

    Returns:
        The rows, for the model and any other with the same backbone.

    Raises:
        ModelError: If the directory holds representations by another backbone, or of other rows, or
            a number is too large for `dtype`.

    Example:

    ```python
    model.add_task(new)
    arrays = encode_rows("train.parquet", encoder, [new], training=True)
    rows = cache_rows(model, RowsInMemory(arrays))
    model.fit(rows.batches(512, shuffle=True), epochs=10)
    ```
    """
    represented = RepresentedRows(model, rows, dtype)
    backbone = model.representation_fingerprint()
    if directory is None:
        gather = in_memory(represented, progress)
    else:
        identity = {"backbone": backbone, "rows": rows.digest}
        gather = in_files(represented, pathlib.Path(directory), identity, progress)
    return CachedRows(represented.number, gather, rows.digest, backbone)
