"""`mptrec show`: what a model file holds."""

import argparse
from typing import Any

from mptrec_cli.arguments import add_command, existing_file
from mptrec_cli.output import print_table
from mptrec_cli.startup import start_tensorflow

SHOW = """\
Prints the tasks of a model and whether they came in stage 1 or were added, its features, for
categorical ones with the number of their ids, the missing and the unknown one included, and the
number of its parameters.

example:
  mptrec show runs/census/model.keras"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec show`."""
    parser = add_command(commands, "show", show, summary="what a model holds", description=SHOW)
    parser.add_argument("model", type=existing_file, metavar="M.keras", help="any model file")


def show(args: argparse.Namespace) -> None:
    """Prints two tables and the number of parameters."""
    start_tensorflow()
    from mptrec_tf.models import GrowingModel, load_model
    from mptrec_tf.models.parameters import count_parameters

    model = load_model(args.model, GrowingModel)
    print_table(
        ["task", "kind", "stage"],
        [[task.name, task.kind, 1 if task in model.stage1_tasks else 2] for task in model.tasks],
    )
    print()
    encoder = model.encoder
    print_table(
        ["feature", "kind", "ids"],
        [
            [f.name, f.kind, None if f.kind == "numeric" else encoder.vocabulary_size(f.name)]
            for f in encoder.features
        ],
    )
    print(f"\n{type(model).__name__}: {count_parameters(model).total:,} parameters")
