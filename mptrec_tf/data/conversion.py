"""One-off conversion between file formats, in bounded memory."""

import decimal
import math
import pathlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from mptrec_tf.data.columns import decimal_text, is_list
from mptrec_tf.data.readers import Chunk, Path, Source, read_chunks
from mptrec_tf.errors import DataError
from mptrec_tf.files import written_whole
from mptrec_tf.spec import Feature


def convert(source: Source, destination: Path, *, progress: bool = True) -> int:
    """Writes raw data as one Parquet or TFRecord file.

    The file appears under its name when it is complete: a run that is cut off leaves nothing that
    looks finished. A TFRecord holds numbers of float64 and of decimal types as text, in which no
    digit is lost.

    Args:
        source: A frame, a dict of columns, or files (CSV, TSV, Parquet, TFRecord).
        destination: A name that ends in `.parquet`, `.tfrecord` or `.tfrecord.gz`.
        progress: Whether to show a progress bar. Defaults to `True`.

    Returns:
        The number of rows written.

    Raises:
        DataError: If the source cannot be read, its parts have other columns or types, or the
            destination's format is not one of these or cannot hold them.

    Example:

    ```python
    convert("rows.csv.gz", "rows.parquet")
    ```
    """
    path = pathlib.Path(destination)
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks = read_chunks(source, progress=f"writing {path.name}" if progress else None)
    with written_whole(path) as partial:
        if path.suffix == ".parquet":
            rows = _write_parquet(chunks, source, partial)
        elif path.name.endswith((".tfrecord", ".tfrecord.gz")):
            rows = _write_tfrecord(chunks, partial, "GZIP" if path.suffix == ".gz" else "")
        else:
            raise DataError(f"{path}: write to .parquet, .tfrecord or .tfrecord.gz")
    return rows


def _write_parquet(chunks: Iterable[Chunk], source: Source, path: pathlib.Path) -> int:
    writer, rows = None, 0
    try:
        for chunk in chunks:
            if writer is None:
                schema = known_types(chunk.table.schema, source)
                writer = pa.parquet.ParquetWriter(path, schema, compression="zstd")
            try:
                table = chunk.table.cast(writer.schema)
            except (pa.ArrowException, ValueError) as error:
                raise DataError(
                    f"{chunk.where}: not the columns of the rows before: {error}"
                ) from error
            writer.write_table(table)
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def known_types(schema: pa.Schema, source: Source, features: Iterable[Feature] = ()) -> pa.Schema:
    """The types of the first rows, or of later ones for the columns that are empty in the first.

    For these the source is read once more, up to where the last of them has a value: to hold the
    rows until then would take the memory of all where a column is always empty.

    Args:
        schema: The types of the first rows.
        source: Where they are from.
        features: The features whose columns are read once more. Defaults to none: all are.
    """
    unknown = [field.name for field in schema if _is_unknown(field.type)]
    if not unknown:
        return schema
    for table, _ in read_chunks(source, features):
        for name in [name for name in unknown if name in table.column_names]:
            if not _is_unknown(table.schema.field(name).type):
                schema = schema.set(schema.get_field_index(name), table.schema.field(name))
                unknown.remove(name)
        if not unknown:
            break
    return schema


def _is_unknown(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or (is_list(kind) and pa.types.is_null(kind.value_type))


def _write_tfrecord(chunks: Iterable[Chunk], path: pathlib.Path, compression: str) -> int:
    import tensorflow as tf

    rows = 0
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for chunk in chunks:
            columns = {name: _cells(chunk.table[name]) for name in chunk.table.column_names}
            for row in range(chunk.table.num_rows):
                cells = {name: _feature(name, values[row]) for name, values in columns.items()}
                example = tf.train.Example(features=tf.train.Features(feature=cells))
                writer.write(example.SerializeToString())
            rows += chunk.table.num_rows
    return rows


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """The cells of a column; of float64 as text, since a TFRecord holds numbers as float32."""
    cells = column.to_pylist()
    if pa.types.is_float64(column.type):
        return [_text(cell) for cell in cells]
    if is_list(column.type) and pa.types.is_float64(column.type.value_type):
        return [cell if cell is None else [_text(number) for number in cell] for cell in cells]
    return cells


def _text(number: float | None) -> str | None:
    """NaN is an empty cell: as text it would be a category."""
    return None if number is None or math.isnan(number) else decimal_text(number)


def _exact(number: decimal.Decimal) -> str:
    """The text of an id of any length, or of another number."""
    whole = number == number.to_integral_value()
    return str(int(number)) if whole else decimal_text(float(number))


def _feature(name: str, value: Any) -> Any:
    """A cell as a `tf.train.Feature`; an empty cell as one without values."""
    import tensorflow as tf

    values = value if isinstance(value, list) else [] if value is None else [value]
    values = [_exact(v) if isinstance(v, decimal.Decimal) else v for v in values]
    values = [v.encode() if isinstance(v, str) else v for v in values]
    if all(isinstance(v, bytes) for v in values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    try:
        if all(isinstance(v, int) for v in values):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name!r}: a TFRecord cannot hold {value!r}") from error
