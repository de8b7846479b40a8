"""Cached representations in the place of a dataset's inputs."""

import difflib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from mptrec_tf.cache.files import identity_in
from mptrec_tf.cache.representing import BATCH, Representing
from mptrec_tf.cache.rows import cache_rows
from mptrec_tf.data.datasets import gathered_batches, rows_by_number, summarize
from mptrec_tf.errors import ModelError


def cached_dataset(
    model: Representing,
    dataset: tf.data.Dataset,
    cache: str | os.PathLike[str],
    part: str,
    *,
    shuffle: bool = False,
) -> tf.data.Dataset:
    """Batches of cached representations in the place of a dataset's, for `MPTRec.fit`.

    Rows that `make_dataset` holds in memory are taken in their own order, shuffled or not, so that
    files of them are found again. Another dataset is read twice, and never held in memory.

    Args:
        model: The model.
        dataset: Encoded batches `(x, y)` or `(x, y, weights)`.
        cache: `"memory"`, or a directory.
        part: Name of the rows, of their directory within that one.
        shuffle: Whether to shuffle all rows anew in each epoch: in the order of `dataset`, where
            `make_dataset` shuffles that. Defaults to `False`.

    Returns:
        Batches as large as the first one of `dataset`.

    Raises:
        ModelError: As `cache_rows`, or if `cache` is a word that settings know, or like "memory",
            or the dataset is none, is endless or empty, or holds representations already.

    Example:

    ```python
    model.add_task(new)
    train = make_dataset(rows, encoder, [new])
    model.fit(cached_dataset(model, train, "runs/cache", "train", shuffle=True), epochs=5)
    ```
    """
    if cache != "memory" and _is_word(str(cache).lower()):
        raise ModelError(
            f"cache must be 'memory' or a directory, such as './{cache}'. Received: {cache!r}"
        )
    endless = isinstance(dataset, tf.data.Dataset) and (
        int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY
    )
    if not isinstance(dataset, tf.data.Dataset) or endless:
        what = "one without an end" if endless else type(dataset).__name__
        raise ModelError(
            "cache= needs a tf.data.Dataset that ends, such as make_dataset gives. "
            f"Received: {what}"
        )
    if not isinstance(dataset.element_spec[0], dict):
        raise ModelError("cache= was given a dataset of cached representations")
    rows = _RowsOfDataset(dataset)
    if rows.batch_size is None:
        raise ModelError("cache= was given a dataset without rows")
    directory = None if cache == "memory" else pathlib.Path(cache, part)
    if directory is not None:
        stored = identity_in(directory).get("rows", rows.digest)
        if stored != rows.digest != _RowsOfDataset(dataset).digest:
            raise ModelError(
                f"{directory} holds the rows in another order, or other rows: the dataset is "
                "shuffled, and gives them in another order whenever they are read. Give fit the "
                "rows unshuffled, since it shuffles them itself, and delete this directory"
            )
    cached = cache_rows(model, rows, directory)
    if shuffle and rows.by_number is not None and rows.by_number.shuffled:
        return cached.in_order_of(rows.by_number)
    # Drawn as Keras draws where arrays are shuffled: another one in each call, the same after
    # `keras.utils.set_random_seed`.
    seed = int(keras.random.randint((), 0, 2**31 - 1)) if shuffle else 0
    return cached.batches(rows.batch_size, shuffle=shuffle, seed=seed)


def _is_word(text: str) -> bool:
    """Whether a cache of that name is rather a setting than a directory."""
    like_memory = difflib.get_close_matches(text, ["memory"], cutoff=0.8)
    return text in ("auto", "disk") or (text.isalpha() and bool(like_memory))


class _RowsOfDataset:
    """The rows of any dataset as `EncodedRows`, in one order where they can be had by number.

    Args:
        dataset: Batches of encoded rows.

    Attributes:
        by_number: What gives rows by number, `None` where the dataset has nothing such.
        digest: As `summarize` gives it.
        batch_size: Rows in the first batch of the dataset, `None` if it has none.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self.batch_size: int | None = None
        self._dataset, self.by_number = dataset, rows_by_number(dataset)
        if self.by_number is not None:
            # Reading a batch would move on to the order of the next epoch.
            self.batch_size = self.by_number.batch_size
            self._number, self.digest = summarize(self._cut(BATCH))
        else:
            self._number, self.digest = summarize(self._watched())

    def batches(self, batch_size: int, **_: Any) -> tf.data.Dataset:
        """The rows, not shuffled, with a known number of batches."""
        count = -(-self._number // batch_size)
        return self._cut(batch_size).apply(tf.data.experimental.assert_cardinality(count))

    def _cut(self, batch_size: int) -> tf.data.Dataset:
        if self.by_number is None:
            return self._dataset.rebatch(batch_size)
        number, gather = self.by_number.rows, self.by_number.gather
        return gathered_batches(number, gather, batch_size=batch_size, shuffle=False, seed=0)

    def _watched(self) -> Iterator[Any]:
        for batch in self._dataset:
            self.batch_size = self.batch_size or len(tf.nest.flatten(batch)[0])
            yield batch
