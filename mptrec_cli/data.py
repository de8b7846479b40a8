"""`mptrec data`: known data sets, synthetic ones, and conversion between file formats."""

import argparse
import pathlib
import shlex
from typing import Any

from mptrec_cli.arguments import add_command, add_output, not_negative, seed
from mptrec_cli.output import (
    UsageError,
    note,
    print_table,
    require_file,
    require_not_read,
    require_writable,
)
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

PREPARED = ("ali-ccp", "byte-rec")

PREPARE = """\
Turns the raw files of a data set that needs a registration into rows for training, validation and
test, by Apache Beam in bounded memory. docs/datasets.md tells where the files are to be had.

Written to DIR, each under its name when it is complete:
  train, validation, test  the rows, in parts
  vocabularies             how often each id occurs in the training rows, by column
  config.yaml              a configuration for `mptrec train`, with the published settings
  summary.json             rows, positives, vocabularies, what was left out

A preparation that was cut off goes on with what is left when the same command is given again.

example:
  mptrec data prepare ali-ccp --source downloads/ali-ccp --output data/ali-ccp
  mptrec data prepare byte-rec --source downloads/track2 --output data/byte-rec
  mptrec data prepare ali-ccp --source /nfs/raw --output /nfs/ali-ccp \\
      --beam='--runner=FlinkRunner --flink_master=host:8081 --environment_type=EXTERNAL
              --environment_config=localhost:50000'"""

GENERATE = """\
Writes synthetic files in the raw format of a data set, at any size, for trials and measurements.
The labels follow from the ids in a known way; synthetic_truth.json, beside the rows, has the
arguments and the best AUC that a model can reach. Figures on them say nothing about the published
data.

example:
  mptrec data generate ali-ccp --rows 100000 --output synthetic/ali-ccp
  mptrec data prepare ali-ccp --source synthetic/ali-ccp --output synthetic/rows
  mptrec train --config synthetic/rows/config.yaml --output runs/synthetic"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec data get`, `prepare`, `generate` and `convert`."""
    summary = "get or prepare a known data set, generate one, convert files"
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

    _add_prepare(subcommands)
    _add_generate(subcommands)

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


def _add_prepare(subcommands: Any) -> None:
    parser = add_command(
        subcommands, "prepare", prepare, summary="prepare a known data set", description=PREPARE
    )
    parser.add_argument("name", choices=PREPARED, help=" or ".join(PREPARED))
    parser.add_argument(
        "--source",
        type=pathlib.Path,
        required=True,
        metavar="DIR",
        help="directory with the raw files, unpacked; they may be in directories within",
    )
    add_output(parser)
    parser.add_argument(
        "--min-count",
        type=not_negative,
        metavar="N",
        help="ids seen N times or fewer become the unknown id (default: 10 for ali-ccp, else 0)",
    )
    parser.add_argument(
        "--multivalued",
        nargs="+",
        metavar="FIELD",
        help="fields with several ids that are kept too, ali-ccp only: 109_14, 110_14, 127_14, "
        "150_14, 210 (default: none)",
    )
    parser.add_argument(
        "--format",
        choices=("parquet", "tfrecord"),
        default="parquet",
        help="format of the rows (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of the split (default: %(default)s)"
    )
    parser.add_argument(
        "--max-bad-lines",
        type=not_negative,
        default=0,
        metavar="N",
        help="malformed lines that may be skipped (default: %(default)s)",
    )
    parser.add_argument(
        "--beam",
        type=shlex.split,
        metavar="ARGUMENTS",
        help="arguments of Apache Beam in quotes, as --beam='...' (default: one process here)",
    )


def _add_generate(subcommands: Any) -> None:
    parser = add_command(
        subcommands,
        "generate",
        generate,
        summary="write synthetic files in a raw format",
        description=GENERATE,
    )
    parser.add_argument("name", choices=PREPARED, help=" or ".join(PREPARED))
    add_output(parser)
    parser.add_argument("--rows", type=int, required=True, metavar="N", help="number of rows")
    for name, kind, text in (
        ("test-rows", int, "rows of the test file, ali-ccp only (default: a tenth of --rows)"),
        ("seed", seed, "seed of everything (default: 0)"),
        ("users", int, "different users (default: grows with the rows)"),
        ("items", int, "different items (default: grows with the rows)"),
        ("zipf", float, "exponent of the frequencies of users and items (default: 1.1)"),
        ("correlation", float, "of the logits of two tasks, 0 to 1 (default: 0.5)"),
        ("signal", float, "standard deviation of a logit (default: 1.0)"),
        ("history", float, "mean length of a user's lists, ali-ccp only (default: 5)"),
    ):
        parser.add_argument(f"--{name}", type=kind, metavar="N", help=text)
    parser.add_argument(
        "--rate",
        action="append",
        type=_rate,
        metavar="TASK=SHARE",
        help="share of positive rows of a task (of conversion: among the clicks); may be repeated",
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


def prepare(args: argparse.Namespace) -> None:
    """Prepares a data set and prints its rows and vocabularies."""
    options = {
        "min_count": args.min_count,
        "multivalued": args.multivalued,
        "beam": args.beam,
    }
    if args.name != "ali-ccp" and args.multivalued:
        raise UsageError(f"--multivalued is for ali-ccp, not for {args.name}")
    require_writable(args.output)
    start_tensorflow()
    from mptrec_tf.data import ali_ccp, byte_rec

    module = ali_ccp if args.name == "ali-ccp" else byte_rec
    summary = module.prepare(
        args.source,
        args.output,
        file_format=args.format,
        seed=args.seed,
        max_bad_lines=args.max_bad_lines,
        progress=not args.quiet,
        **{name: value for name, value in options.items() if value is not None},
    )
    labels = list(summary["positives"]["train"])
    print_table(
        ["part", "rows", *labels],
        [
            [part, rows, *(summary["positives"][part][label] for label in labels)]
            for part, rows in summary["rows"].items()
        ],
    )
    print()
    print_table(
        ["column", "ids", "kept", "values", "unknown"],
        [[name, *counts.values()] for name, counts in summary["vocabularies"].items()],
    )
    if summary["synthetic"]:
        print("\nsynthetic rows: good for a trial, not for figures")
    for told in summary["told"]:
        note(f"left out: {told}", args.quiet)
    print(f"\nconfiguration: {args.output / 'config.yaml'}")


def generate(args: argparse.Namespace) -> None:
    """Writes synthetic files and prints them."""
    names = ["seed", "users", "items", "zipf", "correlation", "signal", "history", "test_rows"]
    options = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    for name in ("history", "test_rows"):
        if args.name != "ali-ccp" and name in options:
            raise UsageError(f"--{name.replace('_', '-')} is for ali-ccp, not for {args.name}")
    require_writable(args.output)
    start_tensorflow()
    from mptrec_tf.data import synthetic

    functions = {
        "ali-ccp": synthetic.generate_ali_ccp,
        "byte-rec": synthetic.generate_byte_rec,
    }
    paths = functions[args.name](
        args.output, args.rows, rates=dict(args.rate or []), progress=not args.quiet, **options
    )
    print_table(["synthetic file", "bytes"], [[path, path.stat().st_size] for path in paths])


def convert(args: argparse.Namespace) -> None:
    """Converts files and prints how many rows were written."""
    require_file(args.destination)
    start_tensorflow()
    require_not_read(args.destination, args.source)
    from mptrec_tf import data

    rows = data.convert(args.source, args.destination, progress=not args.quiet)
    print_table(["rows", "file"], [[rows, args.destination]])


def _destination(text: str) -> pathlib.Path:
    if not text.endswith(FORMATS):
        raise argparse.ArgumentTypeError(f"{text}: should end in one of {', '.join(FORMATS)}")
    return pathlib.Path(text)


def _rate(text: str) -> tuple[str, float]:
    task, found, share = text.partition("=")
    try:
        return task, float(share if found else "")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: should be like click=0.04") from error
