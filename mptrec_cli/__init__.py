"""The command `mptrec`.

A package of its own, because importing `mptrec_tf` imports TensorFlow: help, version and errors in
the arguments are to answer at once.
"""

import sys
from collections.abc import Sequence

from mptrec_cli.output import UsageError, warnings_in_a_line
from mptrec_cli.parser import build_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: What follows `mptrec`. Defaults to `None`: the arguments of this process.

    Returns:
        The exit code: 0 done, 2 for what the user can mend, 130 on Ctrl-C. Wrong arguments leave
        with code 2 by `SystemExit`; anything unexpected is raised.
    """
    args = build_parser().parse_args(arguments)
    try:
        with warnings_in_a_line():
            args.run(args)
    except KeyboardInterrupt:
        print("mptrec: interrupted", file=sys.stderr)
        return 130
    except ValueError as error:
        if not _is_for_the_user(error):
            raise
        print(f"mptrec: error: {error}", file=sys.stderr)
        return 2
    return 0


def _is_for_the_user(error: ValueError) -> bool:
    if isinstance(error, UsageError):
        return True
    from mptrec_tf.errors import MPTRecError

    return isinstance(error, MPTRecError)
