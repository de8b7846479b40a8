"""What the parsers of several commands share."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mptrec_cli.output import UsageError, require_writable

if TYPE_CHECKING:
    from mptrec_tf.config import Config, Sources


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    *,
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    """Adds a command with the option `--quiet`.

    Args:
        commands: What `add_subparsers` gave.
        name: Name of the command.
        run: What it does with the parsed arguments.
        summary: One line for the list of commands.
        description: What it reads and writes, with an example; shown as it is.

    Returns:
        The parser of the command, to which its arguments are added.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars and notes on stderr")
    parser.set_defaults(run=run)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`."""
    parser.add_argument(
        "--config",
        type=existing_file,
        required=True,
        metavar="C.yaml",
        help="configuration of the run: data, features, tasks, both stages; relative paths in it "
        "start at the current directory",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`."""
    parser.add_argument(
        "--model",
        type=existing_file,
        required=True,
        metavar="M.keras",
        help="model file, as train, add-task or mptrec_tf.save_model wrote it",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds `--output`, a directory to write to."""
    parser.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="DIR",
        help="directory that everything is written to; made if it is not there",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Adds `--seed`."""
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="seed of weights, dropout and shuffle (default: %(default)s)",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """Adds what both stages take: `--output`, `--seed`, `--train`, `--validation`."""
    add_output(parser)
    add_seed(parser)
    for part in ("train", "validation"):
        parser.add_argument(
            f"--{part}",
            nargs="+",
            metavar="FILE",
            help=f"{part} rows instead of those that the configuration names "
            "(default: the configuration's); give --train and --validation together",
        )


def check_training(args: argparse.Namespace) -> None:
    """Checks what `add_training` added, before any work is done.

    Raises:
        UsageError: If only one of the two parts is given, or the output cannot be written to.
    """
    if (args.train is None) != (args.validation is None):
        raise UsageError("give --train and --validation together")
    require_writable(args.output)


def sources_of(config: Config, args: argparse.Namespace) -> Sources:
    """The rows that `--train` and `--validation` name, or else the configuration."""
    from mptrec_tf.config import Sources

    if args.train is not None:
        return Sources(args.train, args.validation, None)
    return config.data.sources()


def local_path(text: str) -> pathlib.Path:
    """A path to write to, which `pathlib` would make of a URI, too."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text}: expected a path on this machine")
    return pathlib.Path(text)


def existing_file(text: str) -> pathlib.Path:
    """A path to a file that is there."""
    path = pathlib.Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return path


def seed(text: str) -> int:
    """The type of an argument that is a seed, in the bounds of NumPy's."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be 0 to {2**32 - 1}, got {text!r}")
    return int(text)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {text}")
        return int(text)

    return number


positive = _at_least(1)
"""The type of an argument that is a whole number of 1 or more."""

not_negative = _at_least(0)
"""The type of an argument that is a whole number of 0 or more."""
