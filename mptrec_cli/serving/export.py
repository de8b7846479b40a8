"""`mptrec serving export` and `mptrec serving check`."""

import argparse
import json
import pathlib
from typing import Any

from mptrec_cli.arguments import add_command, add_model, existing_file
from mptrec_cli.output import UsageError, note
from mptrec_cli.startup import start_tensorflow

EXPORT = """\
Writes a model with its encoder as a version that TensorFlow Serving loads as it is, and prints its
directory. The version appears when it is complete and checked; the number is the next one unless
--version says otherwise.

example:
  mptrec serving export --model runs/census/stage1.keras --base-path serving/census
  mptrec serving export --model runs/census/model.keras --base-path serving/census \\
      --rows rows.parquet"""

CHECK = """\
Checks an exported version: what the APIs of TensorFlow Serving require of its signatures, its
answers in two processes that do not import mptrec_tf (one of them without any Python of
TensorFlow) against the Keras model's, broken requests, its warm-up requests.

Exits with 0 if all is well, else with 2.

example:
  mptrec serving check serving/census/2"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec serving export` and `mptrec serving check`."""
    parser = add_command(
        commands, "export", export, summary="write a version of a model", description=EXPORT
    )
    add_model(parser)
    parser.add_argument(
        "--base-path",
        type=pathlib.Path,
        required=True,
        metavar="DIR",
        help="directory of the model's versions; made if it is not there",
    )
    parser.add_argument(
        "--version", type=int, metavar="N", help="the version (default: the next one)"
    )
    parser.add_argument(
        "--name", help="name that the model is served under (default: last part of --base-path)"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="FILE",
        help="raw rows, of which the first 64 become warm-up requests and checks, and are kept "
        "with the export (default: rows made up from bins and vocabularies)",
    )
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=int,
        default=[1, 64],
        metavar="N",
        help="rows of the warm-up requests (default: 1 64)",
    )
    parser.add_argument(
        "--metrics",
        type=existing_file,
        metavar="FILE",
        help="JSON with metrics for the manifest, as `mptrec evaluate --json` writes it",
    )
    parser = add_command(
        commands, "check", check, summary="check an exported version", description=CHECK
    )
    parser.add_argument("path", type=pathlib.Path, metavar="PATH", help="directory of the version")


def export(args: argparse.Namespace) -> None:
    """Exports and prints the version's directory."""
    metrics = _metrics(args.metrics) if args.metrics is not None else None
    start_tensorflow()
    from mptrec_tf.models import GrowingModel, load_model
    from mptrec_tf.serving import Manifest, export
    from mptrec_tf.serving.exporting.versions import check_target

    check_target(args.base_path, args.version)
    directory = export(
        load_model(args.model, GrowingModel),
        args.base_path,
        args.version,
        name=args.name,
        rows=args.rows,
        warmup_batch_sizes=args.batch_sizes,
        metrics=metrics,
    )
    manifest = Manifest.read(directory)
    tasks = [*manifest.stage1_tasks, *manifest.added_tasks]
    parent = f", on version {manifest.parent_version}" if manifest.parent_version else ""
    note(f"version {manifest.version}{parent}: {', '.join(tasks)}", args.quiet)
    print(directory)


def check(args: argparse.Namespace) -> None:
    """Prints what was checked and what is wrong."""
    start_tensorflow()
    from mptrec_tf.errors import ServingError
    from mptrec_tf.serving import check

    findings = check(args.path)
    for what, problem in findings:
        print(f"{'ok' if problem is None else 'FAILED':6}  {what}")
        if problem is not None:
            print(f"        {problem}")
    failed = sum(finding.problem is not None for finding in findings)
    if failed:
        raise ServingError(f"{args.path}: {failed} of {len(findings)} checks failed")


def _metrics(file: pathlib.Path) -> dict[str, Any]:
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {error}") from error
    if not isinstance(metrics, dict):
        raise UsageError(f"{file}: expected an object with metrics, found {type(metrics).__name__}")
    tasks = metrics.get("tasks")
    return tasks if isinstance(tasks, dict) else metrics
