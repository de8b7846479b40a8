"""`mptrec evaluate`: exact metrics of a model on labelled rows."""

import argparse
import importlib.util
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

from mptrec_cli.arguments import add_command, add_config, add_model
from mptrec_cli.output import (
    UsageError,
    print_metrics,
    require_file,
    require_not_read,
    write_json,
)
from mptrec_cli.startup import start_tensorflow

MOST = 50
"""Most slices of a choice of columns."""

EVALUATE = """\
Prints exact metrics of a model on labelled rows: AUC, log loss and expected calibration error of
binary tasks, accuracy and log loss of multiclass tasks, root mean squared and mean absolute error
of regression tasks. Rows without a label of a task count in none of its metrics.

The model must have been made from the features and tasks of the configuration.

example:
  mptrec evaluate --config configs/census_income.yaml --model runs/census/model.keras
  mptrec evaluate --config C.yaml --model M.keras --input may.csv --tasks click --json may.json
  mptrec evaluate --config C.yaml --model M.keras --group user --slices country country,device"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec evaluate`."""
    parser = add_command(
        commands, "evaluate", evaluate, summary="metrics of a model", description=EVALUATE
    )
    add_model(parser)
    add_config(parser)
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="FILE",
        help="labelled rows: files or glob patterns (default: the configuration's test rows, else "
        "its validation rows)",
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="tasks (default: those of the model whose label columns the rows have)",
    )
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        help="column, such as that of the user, within whose values the AUC of binary tasks is "
        "taken too: a mean weighted by rows, values of one class left out (default: none)",
    )
    parser.add_argument(
        "--slices",
        nargs="+",
        default=[],
        metavar="COLUMNS",
        help="columns, or several with commas between them, by whose values the metrics are "
        f"printed too, the {MOST} largest slices of each (default: none)",
    )
    parser.add_argument(
        "--reliability",
        type=pathlib.Path,
        metavar="FILE",
        help="HTML file with a reliability plot of each binary task (default: none)",
    )
    parser.add_argument(
        "--json",
        type=pathlib.Path,
        metavar="FILE",
        help="file that the metrics are also written to (default: none)",
    )


def evaluate(args: argparse.Namespace) -> None:
    """Prints the metrics, and writes them where asked."""
    for path in (args.json, args.reliability):
        if path is not None:
            require_file(path)
    if args.reliability is not None and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--reliability needs matplotlib: pip install 'mptrec-tf[report]'")
    if args.json is not None and args.json == args.reliability:
        raise UsageError(f"--json and --reliability are one file: {args.json}")
    start_tensorflow()
    from mptrec_cli.models import load_model_of
    from mptrec_tf.config import Config
    from mptrec_tf.evaluation import read_columns, score
    from mptrec_tf.models import GrowingModel

    config = Config.from_yaml(args.config)
    model = load_model_of(config, args.model, GrowingModel)
    tasks = [model.task(name) for name in args.tasks] if args.tasks else None
    source = args.input
    if source is None:
        sources = config.data.sources()
        source = sources.validation if sources.test is None else sources.test
    for path in (args.json, args.reliability):
        if path is not None:
            require_not_read(path, args.config, args.model, source)
    slices = [names.split(",") for names in args.slices]
    wanted = [*itertools.chain(*slices), *([args.group] if args.group else [])]
    columns = read_columns(source, wanted) if wanted else {}
    groups = columns[args.group] if args.group else None
    scored = score(model, source, tasks)
    results = {name: part.metrics(groups) for name, part in scored.items()}
    print_metrics(results)
    sliced = {
        name: _sliced(part, slices, columns, groups) for name, part in scored.items() if slices
    }
    for name, parts in sliced.items():
        print(f"\n{name}")
        print_metrics(parts, "slice")
    if args.json is not None:
        written = {"model": args.model, "input": source, "tasks": results}
        write_json(args.json, {**written, **({"slices": sliced} if slices else {})})
    if args.reliability is not None:
        from mptrec_tf.files import write_text

        write_text(args.reliability, _reliability_page(scored))


def _sliced(
    scored: Any, slices: list[list[str]], columns: Mapping[str, Any], groups: Any
) -> dict[str, dict[str, float]]:
    """The metrics of one task in each slice."""
    from mptrec_tf.evaluation import metrics_by_slice

    found: dict[str, dict[str, float]] = {}
    for names in slices:
        chosen = {name: columns[name] for name in names}
        found |= metrics_by_slice(scored, chosen, groups, MOST)
    return found


def _reliability_page(scored: Mapping[str, Any]) -> str:
    from mptrec_tf.evaluation import plots

    figures = [
        f"<figure>{plots.reliability(name, part.reliability())}</figure>"
        for name, part in scored.items()
        if part.task.kind == "binary"
    ]
    if not figures:
        raise UsageError(f"--reliability is of binary tasks, and {', '.join(scored)} are none")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Reliability</title>'
    return "\n".join([head, *figures, "</html>", ""])
