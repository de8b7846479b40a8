"""The files of a prepared data set: rows in parts, and how often each id occurs."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from mptrec_tf.data.examples import lists_of_one, record_writer
from mptrec_tf.data.mixing import fractions, mixed_bits
from mptrec_tf.errors import DataError
from mptrec_tf.files import written_whole

FORMATS = {"parquet": ".parquet", "tfrecord": ".tfrecord.gz"}
PARTS = ("train", "validation", "test")
SYNTHETIC = "synthetic_"
"""What the names of files of synthetic rows begin with."""

COUNTS = pa.schema([("id", pa.string()), ("count", pa.int64())])
PENDING_ROWS = 1 << 20
"""Counts that are held before equal ids are put together."""


def draw(offsets: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each line, by where in its file it begins.

    It depends on nothing else, so that neither the number of workers nor a resumed run changes
    which rows are for validation.

    Args:
        offsets: Offsets of the lines, int64 (N,).
        seed: Seed of the draw.

    Returns:
        Float64 (N,).

    Example:

    >>> draw(np.array([0, 1, 2]), seed=0).round(2)
    array([0.88, 0.43, 0.03])
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        numbers = (offsets.astype(np.uint64) + np.uint64(1)) * step
        numbers ^= np.uint64(seed) * np.uint64(0xD1B54A32D192ED03)
    return fractions(mixed_bits(numbers))


def write_rows(table: pa.Table, directory: pathlib.Path, name: str, file_format: str) -> None:
    """Writes rows as one file, which appears under its name when it is complete.

    Args:
        table: The rows; without any, no file is written.
        directory: Where to, made if it is not there.
        name: Name of the file without its ending.
        file_format: `"parquet"` or `"tfrecord"`.
    """
    if table.num_rows == 0:
        return
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / (name + FORMATS[file_format])
    with written_whole(path) as partial:
        if file_format == "parquet":
            pa.parquet.write_table(table, partial, compression="zstd")
        else:
            _write_tfrecord(table, partial)


def _write_tfrecord(table: pa.Table, path: pathlib.Path) -> None:
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    encoder = RecordBatchToExamplesEncoder()
    with record_writer(path) as writer:
        for batch in table.to_batches(max_chunksize=8192):
            arrays = [_as_lists(column) for column in batch.columns]
            lists = pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
            for example in encoder.encode(lists):
                writer.write(example)


def _as_lists(column: pa.Array) -> pa.Array:
    """Lists of texts as bytes, or of int64; null stays null."""
    if pa.types.is_list(column.type):
        return column.cast(pa.list_(pa.binary()))
    kind = pa.binary() if pa.types.is_string(column.type) else pa.int64()
    return lists_of_one(column.cast(kind), column.is_valid().to_numpy(zero_copy_only=False))


def write_counts(table: pa.Table, columns: Sequence[str], path: pathlib.Path) -> None:
    """Writes how often each id occurs, a batch for each column.

    Args:
        table: Rows for training.
        columns: Columns of ids; those of lists count each value.
        path: The file, which appears when it is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        written_whole(path) as partial,
        pa.ipc.new_file(partial, COUNTS, options=options) as writer,
    ):
        for name in columns:
            column = table[name].combine_chunks()
            if pa.types.is_list(column.type):
                column = column.flatten()
            found = pc.value_counts(column.cast(pa.string()).drop_null())
            writer.write_batch(pa.RecordBatch.from_arrays(found.flatten(), schema=COUNTS))


def merge_counts(
    files: Iterable[pathlib.Path], number: int, min_count: int, path: pathlib.Path
) -> dict[str, int]:
    """Writes the vocabulary of one column, the most frequent ids first, as an encoder orders them.

    Memory holds the different ids of this column, not its rows.

    Args:
        files: What `write_counts` wrote.
        number: Number of the column in them.
        min_count: Ids seen so often or less become the unknown id.
        path: The Parquet file to write: id, count.

    Returns:
        `"ids"`, how many different ones there are; `"kept"`, how many are seen more often than
        `min_count`; `"values"` and `"unknown"`, how many values the rows have and how many of them
        become the unknown id.
    """
    pending: list[pa.Table] = []
    for file in files:
        with pa.memory_map(str(file)) as source:
            pending.append(pa.Table.from_batches([pa.ipc.open_file(source).get_batch(number)]))
            if sum(table.num_rows for table in pending) > PENDING_ROWS:
                pending = [_grouped(pending)]
    counts = _grouped(pending).sort_by([("count", "descending"), ("id", "ascending")])
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        pa.parquet.write_table(counts, partial, compression="zstd")
    numbers = counts["count"].to_numpy()
    rare = numbers <= min_count
    return {
        "ids": len(numbers),
        "kept": int((~rare).sum()),
        "values": int(numbers.sum()),
        "unknown": int(numbers[rare].sum()),
    }


def _grouped(tables: list[pa.Table]) -> pa.Table:
    whole = pa.concat_tables(tables).group_by("id", use_threads=False)
    return whole.aggregate([("count", "sum")]).rename_columns(["id", "count"])


def add_up(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds up numbers by key, at any depth, and joins lists.

    Example:

    >>> add_up([{"rows": {"train": 2}, "bad": 0}, {"rows": {"train": 3, "test": 1}, "bad": 1}])
    {'rows': {'train': 5, 'test': 1}, 'bad': 1}
    """
    total: dict[str, Any] = {}
    for result in results:
        for key, value in result.items():
            if isinstance(value, Mapping):
                total[key] = add_up([total.get(key, {}), value])
            else:
                total[key] = total[key] + value if key in total else value
    return total


def find_file(directory: pathlib.Path, name: str) -> pathlib.Path:
    """A published file within a directory, or a synthetic one in its place.

    Raises:
        DataError: If neither is there, or both are.
    """
    names = (name, SYNTHETIC + name)
    found = sorted(path for name in names for path in directory.rglob(name) if path.is_file())
    if len(found) != 1:
        held = "it holds " + (", ".join(map(str, found)) if found else "neither")
        raise DataError(f"{directory}: expected one file {names[0]!r} or {names[1]!r}; {held}")
    return found[0]
