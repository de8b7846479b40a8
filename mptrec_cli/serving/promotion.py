"""`mptrec serving promote` and `mptrec serving rollback`: labels of a running server."""

import argparse
import functools
import math
import pathlib
from typing import Any

from mptrec_cli.arguments import add_command, existing_file
from mptrec_cli.output import note, print_table
from mptrec_cli.startup import start_tensorflow

PROMOTE = """\
Serves a version beside the others, waits until all given servers have loaded it, and moves a label
to it. The servers read the file again by themselves (--model_config_file_poll_wait_seconds).

If a version is not loaded in time, the file goes on serving it, and the label stays where it is:
run the command again, or retire the version.

example:
  mptrec serving promote models.config --model census --version 2 --server localhost:8500"""

ROLLBACK = """\
Moves a label back to a version that is still served.

example:
  mptrec serving rollback models.config --model census --server localhost:8500"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec serving promote` and `mptrec serving rollback`."""
    parser = add_command(
        commands,
        "promote",
        promote,
        summary="serve a version and move a label to it",
        description=PROMOTE,
    )
    _add_file_and_model(parser)
    parser.add_argument("--version", type=int, required=True, metavar="N", help="the version")
    add_label_arguments(parser, servers_required=True)

    parser = add_command(
        commands, "rollback", rollback, summary="move a label back", description=ROLLBACK
    )
    _add_file_and_model(parser)
    parser.add_argument(
        "--version",
        type=int,
        metavar="N",
        help="the version (default: the highest served below that for which the label stands)",
    )
    add_label_arguments(parser)


def add_label_arguments(parser: argparse.ArgumentParser, servers_required: bool = False) -> None:
    """Adds `--label`, `--server` and `--timeout`.

    Args:
        parser: The parser.
        servers_required: Whether the command needs servers. Defaults to `False`.
    """
    parser.add_argument(
        "--label", default="stable", metavar="LABEL", help="the label (default: %(default)s)"
    )
    parser.add_argument(
        "--server",
        nargs="+",
        required=servers_required,
        metavar="HOST:PORT",
        help="gRPC addresses of all servers that read the file"
        + ("" if servers_required else " (default: none, they are not asked)"),
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for them (default: %(default)g)",
    )


def promote(args: argparse.Namespace) -> None:
    """Promotes a version and prints the file."""
    start_tensorflow()
    from mptrec_tf.serving.config.promotion import promote

    promote(args.file, args.model, args.version, asked_servers(args), args.label)
    print_models(args.file)


def rollback(args: argparse.Namespace) -> None:
    """Moves a label back and prints the file."""
    start_tensorflow()
    from mptrec_tf.serving.config.promotion import rollback

    rollback(args.file, args.model, args.version, asked_servers(args), args.label)
    print_models(args.file)


def asked_servers(args: argparse.Namespace) -> Any:
    """The `Servers` of `--server`; `None`, and a note, if there are none."""
    from mptrec_tf.serving.config.status import Servers

    if args.server is None:
        text = "no --server was given: whether the version is available has not been checked"
        note(text, args.quiet)
        return None
    return Servers(args.server, args.timeout, functools.partial(note, quiet=args.quiet))


def print_models(path: pathlib.Path) -> None:
    """Prints a row for each model of a file."""
    from mptrec_tf.serving.config.files import read_models

    models = read_models(path)
    rows = [
        [
            name,
            models.base_path(name),
            " ".join(map(str, models.versions(name))) or "not listed",
            " ".join(f"{label}={version}" for label, version in models.labels(name).items()) or "-",
        ]
        for name in models.names
    ]
    print_table(["model", "base path", "versions", "labels"], rows)


def _add_file_and_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=existing_file, metavar="FILE", help="model config file")
    parser.add_argument("--model", required=True, metavar="NAME", help="name of the model")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: should be a number of seconds")
    return seconds
