"""`mptrec evaluate`: exact metrics of a model on labelled rows."""

import argparse
import pathlib
from typing import Any

from mptrec_cli.arguments import add_command, add_config, add_model
from mptrec_cli.output import print_metrics, require_writable, write_json
from mptrec_cli.startup import start_tensorflow

EVALUATE = """\
Prints exact metrics of a model on labelled rows: AUC and log loss of binary tasks, accuracy and
log loss of multiclass tasks, root mean squared and mean absolute error of regression tasks. Rows
without a label of a task count in none of its metrics.

The model must have been made from the features and tasks of the configuration.

example:
  mptrec evaluate --config configs/census_income.yaml --model runs/census/model.keras
  mptrec evaluate --config C.yaml --model M.keras --input may.csv --tasks click --json may.json"""


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
        "--json",
        type=pathlib.Path,
        metavar="FILE",
        help="file that the metrics are also written to (default: none)",
    )


def evaluate(args: argparse.Namespace) -> None:
    """Prints the metrics, and writes them where asked."""
    if args.json is not None:
        require_writable(args.json.parent)
    start_tensorflow()
    from mptrec_cli.models import load_model_of
    from mptrec_tf.config import Config
    from mptrec_tf.evaluation import evaluate

    config = Config.from_yaml(args.config)
    model = load_model_of(config, args.model)
    tasks = [model.task(name) for name in args.tasks] if args.tasks else None
    source = args.input
    if source is None:
        sources = config.data.sources()
        source = sources.validation if sources.test is None else sources.test
    results = evaluate(model, source, tasks)
    print_metrics(results)
    if args.json is not None:
        write_json(args.json, {"model": args.model, "input": source, "tasks": results})
