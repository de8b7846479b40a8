"""Stage 2 on representations that were computed once, in memory or on disk.

What a new task's module reads of the older model is frozen, so it is the same in every epoch and
for every module that is tried.
"""

import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from mptrec_tf.data.datasets import (
    EXAMPLE_ID,
    RowsByNumber,
    gathered,
    gathered_batches,
    rows_by_number,
    summarize,
)
from mptrec_tf.data.encoded import EncodedRows
from mptrec_tf.errors import ModelError
from mptrec_tf.files import write_json, written_whole
from mptrec_tf.models import MPTRec

BATCH = 4096
BATCHES_OF_SHARD = 16
IDENTITY = "identity.json"
SHARE_OF_MEMORY = 0.25
SHARE_OF_DISK = 0.5
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells the limit of a container, with control groups of version 2 and 1."""


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
        in_memory: Whether `gather` reads no files and takes numbers of any shape. Defaults to
            `False`.
    """

    def __init__(
        self,
        number: int,
        gather: Callable[[tf.Tensor], Any],
        digest: str,
        backbone: str,
        *,
        in_memory: bool = False,
    ) -> None:
        self.digest = digest
        self.backbone = backbone
        self._number = number
        self._gather = gather
        self._in_memory = in_memory

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
            at_once=self._in_memory,
        )

    def in_order_of(self, rows: RowsByNumber) -> tf.data.Dataset:
        """Batches of the same rows as another dataset gives, in its order.

        Args:
            rows: The numbers of that dataset's rows.
        """
        return gathered(rows._replace(gather=self._gather), at_once=self._in_memory)

    def check(self, model: MPTRec) -> None:
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
    model: MPTRec,
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
    number, backbone = _number(rows), model.representation_fingerprint()
    dtype = keras.backend.standardize_dtype(dtype or model.backbone.compute_dtype)
    if directory is None:
        gather = _in_memory(model, rows, dtype, progress)
    else:
        directory = pathlib.Path(directory)
        length = BATCH * BATCHES_OF_SHARD
        identity = {"backbone": backbone, "rows": rows.digest, "length": length, "dtype": dtype}
        _claim(directory, identity)
        lengths = [min(length, number - start) for start in range(0, number, length)]
        gather = _in_files(model, rows, directory, lengths, dtype, progress)
    return CachedRows(number, gather, rows.digest, backbone, in_memory=directory is None)


def cached_dataset(
    model: MPTRec,
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
        ModelError: As `cache_rows`, or if the dataset is none, is endless or empty, or holds
            representations already.
    """
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
        stored = _identity_in(directory).get("rows", rows.digest)
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


def where_to_cache(
    model: MPTRec,
    parts: Iterable[EncodedRows],
    directory: str | os.PathLike[str],
    dtype: str | None = None,
) -> str | None:
    """Where the representations of all these rows have room.

    Args:
        model: The model that makes them.
        parts: The rows.
        directory: Where files would be.
        dtype: As in `cache_rows`. Defaults to `None`.

    Returns:
        `"memory"` if they take at most a quarter of it, else `"disk"` if they take at most half of
        what is free there, else `None`.
    """
    dtype = keras.backend.standardize_dtype(dtype or model.backbone.compute_dtype)
    needed = sum(
        _number(rows) * _record_dtype(_structure(model, rows, dtype)).itemsize for rows in parts
    )
    if needed <= SHARE_OF_MEMORY * _memory():
        return "memory"
    place = pathlib.Path(directory).absolute()
    existing = next(path for path in (place, *place.parents) if path.exists())
    return "disk" if needed <= SHARE_OF_DISK * shutil.disk_usage(existing).free else None


def _in_memory(
    model: MPTRec, rows: EncodedRows, dtype: str, progress: bool
) -> Callable[[tf.Tensor], Any]:
    represent, parts, columns = _representing(model, dtype), [], []
    for batch in _encoded(rows, progress):
        represented = tf.nest.flatten(represent(batch))
        with tf.device("CPU:0"):  # not in the memory of an accelerator
            parts.append([tf.identity(tensor) for tensor in represented])
    with tf.device("CPU:0"):
        while parts[0]:  # each column frees its parts before the next one
            columns.append(tf.concat([part.pop(0) for part in parts], axis=0))
    tensors = tf.nest.pack_sequence_as(_structure(model, rows, dtype), columns)
    return lambda index: tf.nest.map_structure(lambda t: tf.gather(t, index), tensors)


def _in_files(
    model: MPTRec,
    rows: EncodedRows,
    directory: pathlib.Path,
    lengths: list[int],
    dtype: str,
    progress: bool,
) -> Callable[[tf.Tensor], Any]:
    structure = _structure(model, rows, dtype)
    specs, record = tf.nest.flatten(structure), _record_dtype(structure)
    files = [directory / f"{index:05}.npy" for index in range(len(lengths))]
    shards: list[Any] = [_open(*part, record) for part in zip(files, lengths, strict=True)]
    missing = [index for index, shard in enumerate(shards) if shard is None]
    computed = _compute_shards(
        _representing(model, dtype), _encoded(rows, progress), record, missing
    )
    for index, records in zip(missing, computed, strict=False):
        shards[index] = _write(records, files[index])

    def read(index: np.ndarray) -> list[np.ndarray]:
        shard_of, place = np.divmod(index, lengths[0])
        found = [(shards[shard], shard_of == shard) for shard in np.unique(shard_of)]
        columns = []
        for name in record.names or ():
            column = np.empty((len(index), *record[name].shape), record[name].base)
            for shard, here in found:
                column[here] = shard[name][place[here]]
            columns.append(column)
        return columns

    def gather(index: tf.Tensor) -> Any:
        stored = [_stored(spec.dtype) for spec in specs]
        columns = tf.numpy_function(read, [index], stored, stateful=False)
        tensors = []
        for column, spec in zip(columns, specs, strict=True):
            column.set_shape(spec.shape)
            tensors.append(_reinterpret(column, spec.dtype))
        return tf.nest.pack_sequence_as(structure, tensors)

    return gather


def _compute_shards(
    represent: Callable[[Any], Any], batches: Iterable[Any], record: np.dtype, missing: list[int]
) -> Iterator[np.ndarray]:
    """The records of the missing shards, one shard after another."""
    batches = iter(batches)
    for index in range(missing[-1] + 1):
        part = list(itertools.islice(batches, BATCHES_OF_SHARD))
        if index in missing:
            yield np.concatenate([_records(represent(batch), record) for batch in part])


def _encoded(rows: EncodedRows, progress: bool) -> Iterable[Any]:
    return tqdm(rows.batches(BATCH), "representing", unit=" batches", disable=not progress)


def _representing(model: MPTRec, dtype: str) -> Callable[[Any], Any]:
    """Puts representations in the place of a batch's inputs, rounded as in a training step."""
    represent = tf.function(model.represent, jit_compile=model.jit_compile)

    def compute(batch: Any) -> Any:
        x, *labels = batch
        rows = len(next(iter(x.values())))
        # Filled up: for the last batch's shape XLA would compile once more.
        full = {
            name: tf.concat([part, tf.zeros((BATCH - rows, *part.shape[1:]), part.dtype)], axis=0)
            for name, part in x.items()
        }
        represented = tf.nest.map_structure(lambda part: part[:rows], represent(full))
        return (tf.nest.map_structure(lambda part: _rounded(part, dtype), represented), *labels)

    return compute


def _rounded(part: tf.Tensor, dtype: str) -> tf.Tensor:
    if not part.dtype.is_floating:
        return part
    rounded = tf.cast(part, dtype)
    if bool(tf.reduce_any(tf.math.is_inf(rounded) & tf.math.is_finite(part))):
        raise ModelError(
            f"a representation of {float(tf.reduce_max(tf.abs(part))):g} is too large for {dtype}; "
            "keep the representations in the model's own precision"
        )
    return rounded


def _structure(model: MPTRec, rows: EncodedRows, dtype: str) -> Any:
    """What a batch of the cached rows is, of `tf.TensorSpec`."""
    x, *labels = rows.batches(BATCH).element_spec
    represented = tf.function(model.represent).get_concrete_function(x).structured_outputs
    kept = tf.nest.map_structure(
        lambda s: tf.TensorSpec(s.shape, dtype if s.dtype.is_floating else s.dtype), represented
    )
    return (kept, *labels)


def _number(rows: EncodedRows) -> int:
    return int(rows.batches(1).cardinality())


def _record_dtype(structure: Any) -> np.dtype:
    """A row as one record, its tensors as fields in the order of `tf.nest.flatten`."""
    return np.dtype(
        [
            (str(index), _stored(spec.dtype).as_numpy_dtype, tuple(spec.shape[1:]))
            for index, spec in enumerate(tf.nest.flatten(structure))
        ]
    )


def _records(batch: Any, record: np.dtype) -> np.ndarray:
    tensors = tf.nest.flatten(batch)
    records = np.empty(len(tensors[0]), record)
    for name, tensor in zip(record.names or (), tensors, strict=True):
        records[name] = _reinterpret(tensor, _stored(tensor.dtype))
    return records


def _stored(dtype: tf.DType) -> tf.DType:
    """The type in memory and in files; NumPy's format has no bfloat16."""
    return tf.uint16 if dtype == tf.bfloat16 else dtype


def _reinterpret(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tensor if tensor.dtype == dtype else tf.bitcast(tensor, dtype)


def _claim(directory: pathlib.Path, identity: dict[str, Any]) -> None:
    """Makes the directory that of some representations, or refuses one that holds others."""
    directory.mkdir(parents=True, exist_ok=True)
    stored = _identity_in(directory)
    if not stored and not any(directory.glob("*.npy")):
        write_json(identity, directory / IDENTITY)
        return
    differences = {
        "backbone": "by another backbone",
        "rows": "of other rows",
        "dtype": f"in {stored.get('dtype', 'another precision')}",
        "length": "in files of another length",
    }
    found = [text for key, text in differences.items() if stored.get(key) != identity[key]]
    if found:
        raise ModelError(
            f"{directory} holds representations {' and '.join(found)}; give another directory, or "
            "delete this one"
        )


def _identity_in(directory: pathlib.Path) -> dict[str, Any]:
    """The identity of the representations in a directory, empty if there is none."""
    file = directory / IDENTITY
    return json.loads(file.read_text()) if file.is_file() else {}


def _open(file: pathlib.Path, length: int, record: np.dtype) -> np.ndarray | None:
    """A finished shard, or `None`."""
    try:
        records = np.load(file, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return records if (records.dtype, records.shape) == (record, (length,)) else None


def _write(records: np.ndarray, file: pathlib.Path) -> np.ndarray:
    """Writes a shard, and gives it as it is in the file."""
    with written_whole(file) as partial, partial.open("wb") as stream:
        np.save(stream, records)
    return np.load(file, mmap_mode="r")


def _memory() -> int:
    """Bytes of memory that the machine has, or the container."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(pathlib.Path, MEMORY_LIMITS):
        text = file.read_text().strip() if file.is_file() else ""
        sizes += [int(text)] if text.isdecimal() else []
    return min(sizes)
