"""`mptrec predict`: predictions for a file of raw rows."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mptrec_cli.arguments import add_command, add_model
from mptrec_cli.output import print_table, require_file, require_not_read
from mptrec_cli.startup import start_tensorflow

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mptrec_tf.data import Chunk
    from mptrec_tf.models import GrowingModel

FORMATS = (".csv", ".csv.gz", ".parquet")

PREDICT = """\
Predicts raw rows, chunk by chunk in bounded memory. The rows need the model's feature columns, not
its labels; a category that the training data did not have is no error, a column of nothing else is
told.

The output has a row for each row of the input, in its order, with the columns of --id-columns, then
one column for each task: the probability of a binary task, the number of a regression task; for a
multiclass task a column TASK_CLASS with the probability of each class. The file appears under its
name when it is complete.

example:
  mptrec predict --model runs/census/model.keras --input rows.parquet --output predictions.csv.gz
  mptrec predict --model M.keras --input rows.csv --output p.csv --tasks click --id-columns user"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec predict`."""
    parser = add_command(
        commands, "predict", predict, summary="predict rows of a file", description=PREDICT
    )
    add_model(parser)
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="FILE",
        help="raw rows: files or glob patterns (.csv, .tsv, .parquet, .tfrecord; all but .parquet "
        "also .gz)",
    )
    parser.add_argument(
        "--output",
        type=_output,
        required=True,
        metavar="FILE",
        help=f"file that is written, one of {', '.join(FORMATS)}",
    )
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="tasks (default: all tasks of the model)"
    )
    parser.add_argument(
        "--id-columns",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns of the input that are copied to the output (default: none)",
    )


def predict(args: argparse.Namespace) -> None:
    """Writes the predictions and prints how many rows there are."""
    require_file(args.output)
    start_tensorflow()
    require_not_read(args.output, args.input)
    from mptrec_cli.models import predict_chunks
    from mptrec_tf.models import GrowingModel, load_model

    model = load_model(args.model, GrowingModel)
    tasks = args.tasks or [task.name for task in model.tasks]
    header = _header(model, tasks, args.id_columns)
    rows = 0
    with _writing(args.output, args.input, args.id_columns) as write:
        for chunk, predictions in predict_chunks(
            model,
            args.input,
            tasks,
            columns=args.id_columns,
            progress=None if args.quiet else f"writing {args.output.name}",
        ):
            write(_table(chunk, args.id_columns, predictions, header), chunk.where)
            rows += chunk.table.num_rows
    print_table(["rows", "file"], [[rows, args.output]])


def _header(model: GrowingModel, tasks: Sequence[str], id_columns: Sequence[str]) -> list[str]:
    """Names of the output's columns."""
    from mptrec_tf.errors import DataError

    names = list(id_columns)
    for task in map(model.task, tasks):
        names += [f"{task.name}_{label}" for label in task.classes] if task.classes else [task.name]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"the output would have the column {repeated[0]!r} twice")
    return names


def _table(
    chunk: Chunk,
    id_columns: Sequence[str],
    predictions: Mapping[str, np.ndarray],
    header: Sequence[str],
) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    numbers = np.column_stack(list(predictions.values()))
    columns = [*(chunk.table[name] for name in id_columns), *numbers.T]
    return pa.table(columns, names=list(header))


@contextlib.contextmanager
def _writing(path: pathlib.Path, source: Sequence[str], id_columns: Sequence[str]) -> Iterator[Any]:
    """Gives a function that appends a table to a file, which appears when all is written.

    The table has columns of the source, of the types that these have in its first rows with values;
    text of a TFRecord, which does not tell it from other bytes, is text.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    from mptrec_tf.data.conversion import known_types
    from mptrec_tf.errors import DataError
    from mptrec_tf.files import written_whole
    from mptrec_tf.spec import CategoricalFeature

    ids = [CategoricalFeature(name) for name in id_columns]
    with written_whole(path) as partial, contextlib.ExitStack() as stack:
        compression = "gzip" if path.suffix == ".gz" else None
        file = stack.enter_context(pa.output_stream(partial, compression=compression))
        new = pa.parquet.ParquetWriter if path.suffix == ".parquet" else pa.csv.CSVWriter
        writer = schema = None

        def write(table: pa.Table, where: str) -> None:
            nonlocal writer, schema
            try:
                if writer is None:
                    schema = _with_texts(known_types(table.schema, source, ids), table)
                    writer = stack.enter_context(new(file, schema))
                writer.write_table(table.cast(schema))
            except pa.ArrowException as error:
                raise DataError(f"{where}: the id columns cannot be written: {error}") from error

        yield write


def _with_texts(schema: pa.Schema, table: pa.Table) -> pa.Schema:
    """The types with texts in the place of bytes, if the bytes of the first rows are UTF-8."""
    import pyarrow as pa

    bytes_types = (pa.binary(), pa.large_binary())
    texts = pa.schema([f.with_type(pa.string()) if f.type in bytes_types else f for f in schema])
    try:
        table.cast(texts)
    except pa.ArrowInvalid:
        return schema
    return texts


def _output(text: str) -> pathlib.Path:
    if not text.endswith(FORMATS):
        raise argparse.ArgumentTypeError(f"{text}: should end in one of {', '.join(FORMATS)}")
    return pathlib.Path(text)
