"""What may stand in a server's files: names, paths, numbers."""

import re
from typing import Any

from mptrec_tf.errors import ServingError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ABSOLUTE = re.compile(r"/|[a-z][a-z0-9+.-]*://.")
LARGEST = 2**63 - 1


def check_name(kind: str, name: str) -> None:
    """Refuses a name that cannot be a part of a URL.

    Args:
        kind: What is named, for the error: `"model"` or `"label"`.
        name: The name.

    Raises:
        ServingError: If it cannot be.
    """
    if not NAME.fullmatch(name):
        raise ServingError(
            f"a {kind} is named with letters, digits, '.', '_' and '-'. Received: {name!r}"
        )


def check_base_path(name: str, base_path: str) -> None:
    """Refuses a directory of versions that a server would refuse.

    Args:
        name: Name of the model, for the error.
        base_path: The directory.

    Raises:
        ServingError: If it is neither an absolute path nor a URL.
    """
    if not ABSOLUTE.match(base_path):
        raise ServingError(
            f"the base path of {name!r} is resolved by the server, so it must be an absolute path "
            f"or a URL. Received: {base_path!r}"
        )


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Refuses what is not a whole number of 64 bits.

    Args:
        name: What the number is, for the error.
        value: The value.
        least: The smallest that is allowed. Defaults to 1.

    Raises:
        ServingError: If it is none, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise ServingError(f"{name} must be a whole number from {least}. Received: {value!r}")
