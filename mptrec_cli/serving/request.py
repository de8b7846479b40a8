"""`mptrec serving request`: predictions of a running server."""

import argparse
import itertools
import json
from collections.abc import Iterator
from typing import Any

from mptrec_cli.arguments import add_command, positive
from mptrec_cli.output import UsageError, note
from mptrec_cli.startup import start_tensorflow

REQUEST = """\
Sends raw rows to a running server, and prints a line of JSON for each row with the prediction of
each task: the probability of a binary task, the number of a regression task, the probabilities of
the classes of a multiclass task in the order of its classes.

The rows need the columns that the model takes; others are not sent.

example:
  mptrec serving request --server http://localhost:8501 --model census --input rows.csv --rows 5
  mptrec serving request --server grpc://localhost:8500 --model census --label canary \\
      --input rows.parquet --tasks income"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec serving request`."""
    parser = add_command(
        commands, "request", request, summary="ask a running server", description=REQUEST
    )
    parser.add_argument(
        "--server",
        required=True,
        metavar="URL",
        help="grpc://HOST:PORT or http://HOST:PORT, with TLS grpcs:// or https://",
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="name of the model")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--version", type=int, metavar="N", help="version that is asked (default: the latest)"
    )
    which.add_argument("--label", help="label of the version that is asked, such as canary")
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="FILE",
        help="raw rows: files or glob patterns (.csv, .tsv, .parquet, .tfrecord; all but .parquet "
        "also .gz)",
    )
    parser.add_argument(
        "--rows", type=positive, metavar="N", help="send the first N rows only (default: all)"
    )
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="tasks (default: all tasks of the model)"
    )
    parser.add_argument(
        "--separator",
        default="|",
        metavar="TEXT",
        help="what separates the values of a multi-valued column of text (default: %(default)s)",
    )


def request(args: argparse.Namespace) -> None:
    """Prints the predictions."""
    start_tensorflow()
    from mptrec_client import Client, ClientError

    which = {"version": args.version, "label": args.label}
    try:
        with Client(args.server, args.model, separators=args.separator, **which) as client:
            note(f"version {client.metadata().version} of {args.model!r}", args.quiet)
            for rows in _read(args.input, args.rows):
                _print_lines(client.predict(rows, args.tasks))
    except ClientError as error:
        raise UsageError(str(error)) from error


def _read(files: list[str], limit: int | None) -> Iterator[list[dict[str, Any]]]:
    """The first rows, in parts."""
    from mptrec_tf.data import read_chunks

    left = itertools.islice(
        (row for chunk in read_chunks(files) for row in chunk.table.to_pylist()), limit
    )
    while part := list(itertools.islice(left, 1024)):
        yield part


def _print_lines(predictions: Any) -> None:
    # By way of text, so that a float32 has as few digits as tell it apart.
    columns = [array.astype(str).astype(float).tolist() for array in predictions.values()]
    for values in zip(*columns, strict=True):
        print(json.dumps(dict(zip(predictions, values, strict=True))))
