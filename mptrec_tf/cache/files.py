"""Representations in files, each with the records of as many rows."""

import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from mptrec_tf.cache.records import record_dtype, reinterpret, stored_dtype, to_records
from mptrec_tf.cache.representing import BATCH, RepresentedRows
from mptrec_tf.errors import ModelError
from mptrec_tf.files import write_json, written_whole

BATCHES_OF_SHARD = 16
IDENTITY = "identity.json"


def in_files(
    rows: RepresentedRows, directory: pathlib.Path, identity: dict[str, Any], progress: bool
) -> Callable[[tf.Tensor], Any]:
    """Computes the representations that the directory has not yet, each file when it is whole.

    Args:
        rows: The rows.
        directory: Where the files are.
        identity: What the representations are of.
        progress: Whether to show a progress bar.

    Returns:
        Gives the rows of some numbers, int64 (B,).

    Raises:
        ModelError: If the directory holds representations of something else.
    """
    length = BATCH * BATCHES_OF_SHARD
    _claim(directory, identity | {"length": length, "dtype": rows.dtype})
    lengths = [min(length, rows.number - start) for start in range(0, rows.number, length)]
    specs, record = tf.nest.flatten(rows.structure), record_dtype(rows.structure)
    files = [directory / f"{index:05}.npy" for index in range(len(lengths))]
    shards: list[Any] = [_open(*part, record) for part in zip(files, lengths, strict=True)]
    missing = [index for index, shard in enumerate(shards) if shard is None]
    computed = _compute_shards(rows, record, missing, progress)
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
        stored = [stored_dtype(spec.dtype) for spec in specs]
        columns = tf.numpy_function(read, [index], stored, stateful=False)
        tensors = []
        for column, spec in zip(columns, specs, strict=True):
            column.set_shape(spec.shape)
            tensors.append(reinterpret(column, spec.dtype))
        return tf.nest.pack_sequence_as(rows.structure, tensors)

    return gather


def _compute_shards(
    rows: RepresentedRows, record: np.dtype, missing: list[int], progress: bool
) -> Iterator[np.ndarray]:
    """The records of the missing shards, one shard after another."""
    batches = iter(rows.encoded(progress))
    for index in range(missing[-1] + 1):
        part = list(itertools.islice(batches, BATCHES_OF_SHARD))
        if index in missing:
            yield np.concatenate([to_records(rows.represent(batch), record) for batch in part])


def identity_in(directory: pathlib.Path) -> dict[str, Any]:
    """What the representations in a directory are of, empty if there are none."""
    file = directory / IDENTITY
    return json.loads(file.read_text()) if file.is_file() else {}


def _claim(directory: pathlib.Path, identity: dict[str, Any]) -> None:
    """Makes the directory that of some representations, or refuses one that holds others."""
    directory.mkdir(parents=True, exist_ok=True)
    stored = identity_in(directory)
    if not stored and not any(directory.glob("*.npy")):
        write_json(directory / IDENTITY, identity)
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
