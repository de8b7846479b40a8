"""`mptrec serving`: from a trained model to a served version."""

from typing import Any

from mptrec_cli.serving import config, export, promotion, request, run

GROUPS: tuple[Any, ...] = (export, config, promotion, run, request)
"""Each adds its commands by `add_commands`, and imports what a command needs when it runs."""


def add_commands(commands: Any) -> None:
    """Adds `mptrec serving` with its own commands."""
    summary = "export, check, configure and serve models"
    group = commands.add_parser("serving", help=summary, description=summary, allow_abbrev=False)
    subcommands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for part in GROUPS:
        part.add_commands(subcommands)
