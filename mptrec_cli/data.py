"""`mptrec data`: known data sets, and conversion between file formats."""

import argparse
import pathlib
from typing import Any

from mptrec_cli.arguments import add_command
from mptrec_cli.output import print_table, require_writable
from mptrec_cli.startup import start_tensorflow

FORMATS = (".parquet", ".tfrecord", ".tfrecord.gz")

GET = """\
Downloads a known data set, checks it, splits it, and prints the Parquet files with their rows.

The files are kept under $MPTREC_DATA, else under the user's cache (~/.cache/mptrec_tf), and are
not downloaded again while they are there.

example:
  mptrec data get census-income
  mptrec data get census-income --source census+income+kdd.zip"""

CONVERT = """\
Writes raw data as one Parquet or TFRecord file, row by row in the order of the sources, in bounded
memory. The file appears under its name when it is complete.

example:
  mptrec data convert january.csv.gz february.csv.gz rows.parquet
  mptrec data convert 'logs/*.tsv' rows.tfrecord.gz"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec data get` and `mptrec data convert`."""
    summary = "get a known data set, convert files"
    group = commands.add_parser("data", help=summary, description=summary, allow_abbrev=False)
    subcommands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = add_command(
        subcommands, "get", get, summary="download a known data set", description=GET
    )
    parser.add_argument("name", choices=["census-income"], help="census-income")
    parser.add_argument(
        "--source",
        type=pathlib.Path,
        metavar="FILE_OR_DIR",
        help="archive or directory that you have, with the published files (default: download)",
    )

    parser = add_command(
        subcommands, "convert", convert, summary="convert files", description=CONVERT
    )
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="files or glob patterns (.csv, .tsv, .parquet, .tfrecord; all but .parquet also .gz)",
    )
    parser.add_argument(
        "destination", type=_destination, metavar="DESTINATION", help=f"one of {', '.join(FORMATS)}"
    )


def get(args: argparse.Namespace) -> None:
    """Prints the files of a data set."""
    start_tensorflow()
    import pyarrow.parquet

    from mptrec_tf.data import census_income

    paths = census_income.get(args.source, progress=not args.quiet)
    rows = [
        [part, pyarrow.parquet.read_metadata(path).num_rows, path]
        for part, path in paths._asdict().items()
    ]
    print_table(["part", "rows", "file"], rows)


def convert(args: argparse.Namespace) -> None:
    """Converts files and prints how many rows were written."""
    require_writable(args.destination.parent)
    start_tensorflow()
    from mptrec_tf import data

    rows = data.convert(args.source, args.destination, progress=not args.quiet)
    print_table(["rows", "file"], [[rows, args.destination]])


def _destination(text: str) -> pathlib.Path:
    if not text.endswith(FORMATS):
        raise argparse.ArgumentTypeError(f"{text}: should end in one of {', '.join(FORMATS)}")
    return pathlib.Path(text)
