"""Raw data in chunks, from memory or from CSV, Parquet and TFRecord files."""

import contextlib
import gzip
import io
import os
import pathlib
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from tqdm.auto import tqdm

from mptrec_tf.data.columns import is_list, require_columns
from mptrec_tf.errors import DataError
from mptrec_tf.spec import Feature, MultiValuedFeature, Task

Path: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = pd.DataFrame | pa.Table | Mapping[str, Any] | Path | Sequence[Path]
"""Raw data: a frame, a table, a dict of columns, or one or several files or glob patterns."""

CHUNK_ROWS = 65_536
"""Rows read at a time."""

BLOCK_BYTES = 8 << 20
"""Bytes of a CSV file that are parsed at a time; no row may take many more."""

SHOWN_TEXT = 100
"""Characters of a line or bytes of a cell that an error shows."""

EXAMPLES_AT_ONCE = 16_384
"""Rows of a TFRecord file read at a time: parsing holds them in memory several times."""

RECORD_FRAME = 16
"""Bytes around each record of a TFRecord file: its length and two checksums."""

EXAMPLES_FOR_TYPES = 1000
"""Examples of a chunk in which each column should have a value once, to be parsed fast."""

LAST = "\x1e"
"""Each cell of the row that is read below the last one of a CSV file."""

FORMATS = ".csv, .tsv, .csv.gz, .tsv.gz, .parquet, .tfrecord, .tfrecord.gz"


class Chunk(NamedTuple):
    """Some rows of raw data.

    Attributes:
        table: The rows.
        where: What to call their source in an error.

    Example:

    >>> chunk = next(read_chunks({"age": [31, 45]}))
    >>> chunk.table["age"].to_pylist(), chunk.where
    ([31, 45], 'the data')
    """

    table: pa.Table
    where: str


def read_chunks(
    source: Source,
    features: Iterable[Feature] = (),
    tasks: Iterable[Task] = (),
    *,
    shard: tuple[int, int] = (0, 1),
    progress: str | None = None,
    left_out: Callable[[str], None] | None = None,
) -> Iterator[Chunk]:
    """Reads raw data chunk by chunk, in the order of the files and rows.

    Memory holds one chunk at a time, however large the data. Only the columns that the features and
    tasks need are read; where neither is given, all are.

    Args:
        source: What to read. CSV files have a header line.
        features: The features whose columns are read.
        tasks: The tasks whose label, mask and weight columns are read.
        shard: `(index, count)`: read every `count`-th chunk, beginning with the `index`-th.
        progress: Label of a progress bar. Defaults to `None`, no bar.
        left_out: Told why, of each row of a CSV file that has too many or too few cells, or one
            that is not UTF-8; the row is left out. Defaults to `None`: that is an error. One that
            has both is an error in any case.

    Yields:
        Chunks of at most `CHUNK_ROWS` rows, not empty.

    Raises:
        DataError: If a file is missing, empty, broken or of an unknown format, lacks a column, or
            if there is no row at all.

    Example:

    >>> next(read_chunks({"age": [31, 45]}, [NumericFeature("age")])).table.num_rows
    2
    """
    features, tasks = tuple(features), tuple(tasks)
    columns = needed_columns(features, tasks)
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard must be (index, count), index below count. Received: {shard}")
    rows = 0
    with tqdm(desc=progress, unit=" rows", unit_scale=True, disable=progress is None) as bar:
        chunks = _all_chunks(source, columns, features, left_out)
        for number, chunk in enumerate(chunks):
            rows += chunk.table.num_rows
            if number % count == index:
                bar.update(chunk.table.num_rows)
                yield chunk
    if rows == 0:
        raise DataError(f"{describe(source)}: there are no rows")
    if number < index:
        raise DataError(f"{describe(source)}: {number + 1} chunks, too few for {count} shards")


def needed_columns(features: Iterable[Feature], tasks: Iterable[Task]) -> list[str]:
    """The columns that the features and tasks read, each once."""
    names = [feature.name for feature in features]
    for task in tasks:
        names.extend(task.columns)
    return list(dict.fromkeys(names))


def describe(source: Source) -> str:
    """What to call a source in an error."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    if isinstance(source, pd.DataFrame | pa.Table | Mapping):
        return "the data"
    return ", ".join(map(str, source))


def expand_paths(source: Path | Sequence[Path]) -> list[pathlib.Path]:
    """The files that paths and glob patterns name, patterns in sorted order.

    A name that begins with a dot is matched only by a pattern that also does, as in a shell.

    Raises:
        DataError: If a path or pattern names no file on this machine, or a directory.
    """
    files: list[pathlib.Path] = []
    for entry in [source] if isinstance(source, str | os.PathLike) else source:
        if "://" in str(entry):
            raise DataError(f"{entry}: addresses are not read, only files on this machine")
        path = pathlib.Path(entry)
        if path.is_dir():
            raise DataError(f"{path}: is a directory; give its files, such as {path}/*.parquet")
        found = [path] if path.is_file() else []
        if not found and any(mark in str(path) for mark in "*?["):
            directory = next(parent for parent in path.parents if parent.is_dir())
            matched = directory.glob(str(path.relative_to(directory)))
            found = sorted(f for f in matched if f.is_file() and not is_hidden(f, path))
        if not found:
            raise DataError(f"{path}: no such file")
        files.extend(found)
    return files


def is_hidden(path: Path, pattern: Path) -> bool:
    """Whether a path has names that begin with a dot where the glob pattern that matched has none.

    Args:
        path: The path.
        pattern: The pattern.
    """
    return _dotted(path) > _dotted(pattern)


def _dotted(path: Path) -> int:
    return sum(name.startswith(".") for name in pathlib.PurePath(path).parts)


def _all_chunks(
    source: Source,
    columns: list[str],
    features: tuple[Feature, ...],
    left_out: Callable[[str], None] | None,
) -> Iterator[Chunk]:
    if isinstance(source, pd.DataFrame):
        source = {str(name): source[name] for name in source.columns}
    if isinstance(source, Mapping):
        require_columns(source, columns, "the data")
        source = _table_of_columns({name: source[name] for name in columns or source})
    if isinstance(source, pa.Table):
        require_columns(source.column_names, columns, "the data")
        yield from _split(source.select(columns) if columns else source, "the data")
        return
    for path in expand_paths(source):
        match "".join(path.suffixes[-2 if _is_compressed(path) else -1 :]).lower():
            case ".csv" | ".csv.gz":
                yield from _read_csv(path, ",", columns, left_out)
            case ".tsv" | ".tsv.gz":
                yield from _read_csv(path, "\t", columns, left_out)
            case ".parquet":
                yield from _read_parquet(path, columns)
            case ".tfrecord" | ".tfrecord.gz":
                yield from _read_tfrecord(path, columns, features)
            case _:
                raise DataError(f"{path}: unknown format; the known ones are {FORMATS}")


def _is_compressed(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".gz"


def _table_of_columns(columns: Mapping[str, Any]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and values.ndim > 1:
            values = list(values)
        try:
            try:
                arrays[name] = pa.array(values, from_pandas=True)
            except OverflowError:  # Arrow takes Python's numbers for int64
                arrays[name] = pa.array(values, pa.uint64(), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"the data: column {name!r} mixes types: {error}") from error
        except OverflowError as error:
            raise DataError(
                f"the data: column {name!r} has whole numbers that neither int64 nor uint64 holds; "
                "give them as texts"
            ) from error
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the data: the columns differ in length: {lengths}")
    return pa.table(arrays)


def _split(table: pa.Table, where: str) -> Iterator[Chunk]:
    for start in range(0, table.num_rows, CHUNK_ROWS):
        yield Chunk(table.slice(start, CHUNK_ROWS), where)


def _read_csv(
    path: pathlib.Path,
    delimiter: str,
    columns: list[str],
    left_out: Callable[[str], None] | None,
) -> Iterator[Chunk]:
    where = str(path)
    invalid: list[str] = []

    def on_invalid(row: pa.csv.InvalidRow) -> str:
        invalid.append(_reason(row))
        return "skip"

    try:
        with _opened(path) as file:
            header = _csv_header(file.readline(), delimiter, where)
            require_columns(header, columns, where)
            handler = None if left_out is None else on_invalid
            for batch in _csv_batches(
                file, header, delimiter, columns, where, handler, check_utf8=left_out is None
            ):
                if left_out is not None:
                    bad = _not_utf8(batch)
                    _tell([*invalid, *bad.values()], left_out)
                    invalid.clear()
                    if bad:
                        good = np.isin(np.arange(batch.num_rows), list(bad), invert=True)
                        batch = batch.filter(pa.array(good))
                yield from _split(pa.Table.from_batches([batch]), where)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the compressed file is truncated or broken: {error}") from error
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        row = _first_bad_row(path, delimiter, columns) if left_out is None else None
        raise DataError(f"{path}: {row or error}") from error
    if left_out is not None:
        _tell(invalid, left_out)


def _opened(path: pathlib.Path) -> io.BufferedIOBase:
    return gzip.open(path) if _is_compressed(path) else path.open("rb")


class _OneRowMore(io.RawIOBase):
    """A file with a row below its last one, which a quote that is left open takes into its cell."""

    def __init__(self, file: io.BufferedIOBase, row: bytes) -> None:
        self._file, self._row, self._end = file, row, b""
        self._rest: io.BytesIO | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._end = data[-1:] or self._end
        if self._rest is None and len(data) != size:
            self._rest = io.BytesIO((b"" if self._end in b"\r\n" else b"\n") + self._row)
        return data if self._rest is None else data + self._rest.read(size - len(data))


def _csv_batches(
    file: io.BufferedIOBase,
    header: list[str],
    delimiter: str,
    columns: list[str],
    where: str,
    on_invalid: Callable[[pa.csv.InvalidRow], str] | None,
    *,
    check_utf8: bool,
    ahead: bool = True,
) -> Iterator[pa.RecordBatch]:
    """The rows below the header. Without reading ahead, an invalid row knows its number.

    Raises:
        DataError: If a quote is not closed; Arrow would take what follows as one cell.
    """
    # Text for all: a column is converted where it is used, with an error naming the cell.
    options = pa.csv.ConvertOptions(
        include_columns=columns or None,
        column_types={name: pa.string() for name in columns or header},
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        check_utf8=check_utf8,
    )
    rows = 0

    def counted(row: pa.csv.InvalidRow) -> str:
        nonlocal rows
        rows += 1
        return "error" if on_invalid is None else on_invalid(row)

    batches = pa.csv.open_csv(
        _OneRowMore(file, delimiter.join([LAST] * len(header)).encode() + b"\n"),
        read_options=pa.csv.ReadOptions(
            column_names=header, block_size=BLOCK_BYTES, use_threads=ahead
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter,
            newlines_in_values=True,
            # An empty line is an empty cell where there is only one column.
            ignore_empty_lines=len(header) > 1,
            invalid_row_handler=counted,
        ),
        convert_options=options,
    )
    held = None
    try:
        for batch in batches:
            rows += batch.num_rows
            if batch.num_rows:
                if held is not None:
                    yield held
                held = batch
    except pa.ArrowInvalid as error:
        if "straddles" in str(error):
            raise DataError(
                f"{where}: row {rows + 1} after the header has a quote that is not closed, or "
                f"takes over {BLOCK_BYTES >> 20} MiB"
            ) from error
        raise
    if held is None or not held.column(0)[-1].equals(pa.scalar(LAST)):
        raise DataError(f"{where}: row {rows} after the header has a quote that is not closed")
    yield held.slice(0, held.num_rows - 1)


def _reason(row: pa.csv.InvalidRow) -> str:
    text = row.text if len(row.text) <= SHOWN_TEXT else f"{row.text[:SHOWN_TEXT]}..."
    return f"expected {row.expected_columns} cells, got {row.actual_columns}: {text!r}"


def _first_bad_row(path: pathlib.Path, delimiter: str, columns: list[str]) -> str | None:
    """Number and fault of the first row that cannot be parsed; reads slower, to find them."""
    invalid: list[str] = []

    def on_invalid(row: pa.csv.InvalidRow) -> str:
        invalid.append(f"row {row.number} after the header: {_reason(row)}")
        return "error"

    rows = 0
    with _opened(path) as file, contextlib.suppress(pa.ArrowInvalid, UnicodeDecodeError):
        header = _csv_header(file.readline(), delimiter, str(path))
        for batch in _csv_batches(
            file, header, delimiter, columns, str(path), on_invalid, check_utf8=False, ahead=False
        ):
            bad = _not_utf8(batch)
            if bad:
                return f"row {rows + min(bad) + 1} after the header: {bad[min(bad)]}"
            rows += batch.num_rows
    return invalid[0] if invalid else None


def _not_utf8(batch: pa.RecordBatch) -> dict[int, str]:
    """What is wrong with the rows that have a cell that is not UTF-8."""
    wrong: dict[int, str] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            for row, cell in enumerate(column.view(pa.binary()).to_pylist()):
                try:
                    (cell or b"").decode()
                except UnicodeDecodeError:
                    shown = f"column {name!r} has {cell[:SHOWN_TEXT]!r}, which is not UTF-8"
                    wrong.setdefault(row, shown)
    return wrong


def _tell(reasons: Iterable[str], left_out: Callable[[str], None]) -> None:
    for reason in reasons:
        left_out(reason)


def _csv_header(line: bytes, delimiter: str, where: str) -> list[str]:
    if not line.strip():
        raise DataError(f"{where}: the file is empty")
    table = pa.csv.read_csv(
        pa.BufferReader(line if line.endswith(b"\n") else line + b"\n"),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
    )
    names = [name.strip().removeprefix("\ufeff") for name in table.column_names]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{where}: the header gives the column {repeated[0]!r} twice")
    return names


def _read_parquet(path: pathlib.Path, columns: list[str]) -> Iterator[Chunk]:
    where = str(path)
    try:
        with pa.parquet.ParquetFile(path) as file:
            require_columns(file.schema_arrow.names, columns, where)
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns or None):
                yield Chunk(pa.Table.from_batches([batch]), where)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error


def _read_tfrecord(
    path: pathlib.Path, columns: list[str], features: tuple[Feature, ...]
) -> Iterator[Chunk]:
    where = str(path)
    separators = {f.name: f.separator for f in features if isinstance(f, MultiValuedFeature)}
    rows, listed = min(CHUNK_ROWS, EXAMPLES_AT_ONCE), dict[str, bool]()
    for number, batch in enumerate(_batches_of_records(path, rows)):
        table = _parsed_at_once(batch, columns, separators)
        if table is None:
            table = _table_of_examples(batch, columns, separators, where, listed)
            for name, kind in zip(table.column_names, table.schema.types, strict=True):
                listed[name] = listed.get(name, False) or pa.types.is_list(kind)
        if number == 0:
            empty = [name for name in columns if table[name].null_count == table.num_rows]
            _require_in_records(path, empty)
        yield Chunk(table, where)


def _batches_of_records(path: pathlib.Path, rows: int) -> Iterator[np.ndarray]:
    """The records of a TFRecord file, some at a time; an error where the file is not whole."""
    import tensorflow as tf

    records = tf.data.TFRecordDataset(str(path), "GZIP" if _is_compressed(path) else "")
    read = 0
    try:
        for batch in records.batch(rows).as_numpy_iterator():
            yield batch
            read += sum(RECORD_FRAME + len(record) for record in batch)
        size = _uncompressed_size(path, read)
        if size == 0:
            raise DataError(f"{path}: the file is empty")
        if read < size:  # TensorFlow takes a cut within a record's header for the end of the file.
            raise EOFError(f"the last {size - read} bytes are no record")
    except (tf.errors.DataLossError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = str(error).rsplit("}} ", 1)[-1].split(" [Op:")[0]
        raise DataError(f"{path}: the TFRecord file is truncated or broken: {reason}") from error


def _require_in_records(path: pathlib.Path, columns: Collection[str]) -> None:
    """Refuses a file if none of its records has a column; reads up to where each has been seen."""
    if not columns:
        return
    seen: set[str] = set()
    for batch in _batches_of_records(path, EXAMPLES_FOR_TYPES):
        for serialized in batch:
            seen.update(_cells_of(serialized, str(path)))
            if seen.issuperset(columns):
                return
    require_columns(sorted(seen), columns, str(path))


def _cells_of(serialized: bytes, where: str) -> Mapping[str, Any]:
    """The `tf.train.Feature`s of a record by name."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features: Mapping[str, Any] = tf.train.Example.FromString(serialized).features.feature
    except DecodeError as error:
        raise DataError(f"{where}: a record is not a tf.Example: {error}") from error
    return features


def _uncompressed_size(path: pathlib.Path, likely: int) -> int:
    """The size of a file's content; a compressed one is read if its end does not tell `likely`."""
    size = path.stat().st_size
    if not _is_compressed(path):
        return size
    with path.open("rb") as file:
        file.seek(max(size - 4, 0))
        if file.read() == (likely % 2**32).to_bytes(4, "little"):
            return likely
    with gzip.open(path) as file:
        return file.seek(0, os.SEEK_END)


def _parsed_at_once(
    batch: np.ndarray, columns: list[str], separators: Mapping[str, str]
) -> pa.Table | None:
    """What `_table_of_examples` gives, many times faster; `None` where that has to look closer.

    The types are those of the first examples. It has to look closer where later ones differ, where
    a text beside lists has to be split, and where something is wrong and an error has to tell what.
    A multi-valued column of a text in each row stays one of texts, which `as_lists` splits.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    types = {"bytes_list": tf.string, "float_list": tf.float32, "int64_list": tf.int64}
    kinds: dict[str, str] = {}
    try:
        for serialized in batch[:EXAMPLES_FOR_TYPES]:
            example = tf.train.Example.FromString(serialized).features.feature
            found = {name: example[name].WhichOneof("kind") for name in columns if name in example}
            kinds |= {name: kind for name, kind in found.items() if kind}
            if len(kinds) == len(columns):
                break
    except DecodeError:
        return None
    if not columns or len(kinds) < len(columns):
        return None
    features = {name: tf.io.RaggedFeature(types[kind]) for name, kind in kinds.items()}
    try:
        parsed = tf.io.parse_example(batch, features)
    except tf.errors.InvalidArgumentError:
        return None
    arrays = {name: _column_at_once(parsed[name], separators.get(name)) for name in columns}
    return None if any(array is None for array in arrays.values()) else pa.table(arrays)


def _column_at_once(ragged: Any, separator: str | None) -> pa.Array | None:
    """A column of `_parsed_at_once`, with the separator of a multi-valued one."""
    values, offsets = ragged.flat_values.numpy(), ragged.row_splits.numpy()
    lengths = np.diff(offsets)
    cells = pa.array(values)
    if separator is not None and (lengths.max() > 1 or not pa.types.is_binary(cells.type)):
        lone = cells.take(pa.array(offsets[:-1][lengths == 1]))
        if pa.types.is_binary(cells.type) and pc.any(pc.match_substring(lone, separator)).as_py():
            return None
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), cells)
    if lengths.max() > 1:
        return None
    present = lengths > 0
    return cells.take(pa.array(np.where(present, offsets[:-1], 0), mask=~present))


def _table_of_examples(
    batch: np.ndarray,
    columns: list[str],
    separators: Mapping[str, str],
    where: str,
    listed: Mapping[str, bool] | None = None,
) -> pa.Table:
    """Parses serialized `tf.Example`s; an absent feature is null.

    Several values in a row are an error if the columns are given and the feature is not
    multi-valued. Where no columns are given, they make the column one of lists, and the columns of
    earlier rows of the file, and whether they are lists, are `listed`.
    """
    listed = listed or {}
    rows: dict[str, list[Any]] = {name: [] for name in columns or listed}
    kinds: dict[str, set[str]] = {}
    for number, serialized in enumerate(batch):
        example = _cells_of(serialized, where)
        if not columns:
            for name in example:
                if name not in rows:
                    rows[name] = [None] * number
        for name, cells in rows.items():
            if name not in example:
                cells.append(None)
                continue
            kind = example[name].WhichOneof("kind")
            values = list(getattr(example[name], kind).value) if kind else []
            if values:
                kinds.setdefault(name, set()).add(kind)
            if name in separators:
                cells.append(_split_text(values, separators[name]))
            elif len(values) > 1 and not columns:
                cells.append(values)
            elif len(values) > 1:
                raise DataError(
                    f"{where}: column {name!r} has {len(values)} values in one row, expected one"
                )
            else:
                cells.append(values[0] if values else None)
    arrays = {}
    for name, cells in rows.items() if columns else sorted(rows.items()):
        if listed.get(name) or any(isinstance(cell, list) for cell in cells):
            cells = [[c] if c is not None and not isinstance(c, list) else c for c in cells]
        try:
            array = pa.array(_alike(cells))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{where}: column {name!r} mixes types: {error}") from error
        if kinds.get(name) == {"float_list"}:
            array = array.cast(pa.list_(pa.float32()) if is_list(array.type) else pa.float32())
        arrays[name] = array
    return pa.table(arrays)


def _alike(cells: list[Any]) -> list[Any]:
    """Whole numbers beside texts as texts: of several files, `convert` writes float64 as text."""
    if not {bytes, int} <= {type(cell) for cell in cells}:
        return cells
    return [str(cell).encode() if isinstance(cell, int) else cell for cell in cells]


def _split_text(values: list[Any], separator: str) -> list[Any]:
    """Splits a lone text at the separator, as in the text column that it was converted from."""
    if len(values) == 1 and isinstance(values[0], bytes):
        return values[0].split(separator.encode())
    return values
