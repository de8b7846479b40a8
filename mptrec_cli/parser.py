"""The parser of all commands; it and what it imports import the standard library alone."""

import argparse
import importlib.metadata
from typing import Any

from mptrec_cli import (
    bench,
    data,
    evaluation,
    pipeline,
    prediction,
    serving,
    showing,
    training,
    tuning,
)

GROUPS = (data, training, tuning, evaluation, prediction, showing, serving, pipeline, bench)
"""Each adds its commands by `add_commands`, and imports what a command needs when it runs."""

EPILOG = """\
a run from data to predictions:
  mptrec data get census-income
  mptrec train --config configs/census_income.yaml --output runs/census
  mptrec add-task --config configs/census_income.yaml --model runs/census/stage1.keras \\
      --task education --output runs/census
  mptrec evaluate --config configs/census_income.yaml --model runs/census/model.keras
  mptrec predict --model runs/census/model.keras --input rows.parquet --output predictions.csv
  mptrec serving export --model runs/census/model.keras --base-path serving/census
  mptrec serving run serving/census

the same as pipelines of TFX, from raw rows to a checked version that is served:
  mptrec pipeline run --config configs/census_income.yaml --stage pretrain --output runs/census
  mptrec pipeline run --config configs/census_income.yaml --stage prompt_tune --task education \\
      --output runs/census

exit codes:
  0 done; 2 wrong arguments, configuration, data or model; 130 interrupted; 1 anything unexpected

`mptrec COMMAND --help` tells what a command reads and writes. Results go to stdout, progress and
notes to stderr."""


def build_parser() -> argparse.ArgumentParser:
    """The parser; the namespace that it gives has `run`, the function of the chosen command."""
    parser = argparse.ArgumentParser(
        prog="mptrec",
        description="Multi-task prompt tuning for recommendation: train several tasks together, "
        "then add tasks without changing the older ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show the version of mptrec_tf and exit"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add_commands(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"mptrec {importlib.metadata.version('mptrec-tf')}")
        parser.exit()
