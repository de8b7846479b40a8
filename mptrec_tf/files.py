"""Files that are complete at every moment, directories that one process at a time writes to."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import IO, Any

from mptrec_tf.errors import ModelError


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A file that appears under its name when the block is through, in the place of an older one.

    An error leaves nothing behind, a kill a hidden file that the next attempt overwrites.

    Args:
        path: The file, in a directory that is there.

    Yields:
        The path to write to, in the same directory and with the same ending, by which some writers
        choose a format.

    Example:

    ```python
    with written_whole("rows.parquet") as partial:
        pa.parquet.write_table(table, partial)
    ```
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8; the file is complete at every moment."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """Writes plain data; the file is complete at every moment."""
    write_text(path, json.dumps(value, indent=indent))


@contextlib.contextmanager
def only_one(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Lets one process at a time work in a directory; a process that is killed lets it go.

    On Windows nothing keeps two processes apart.

    Args:
        directory: The directory; it is made if it is not there.

    Raises:
        ModelError: If another process works there.

    Example:

    ```python
    with only_one("runs/census"):
        write_json("runs/census/results.json", results)
    ```
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        if os.name == "posix":
            _lock(file, directory)
        yield


@contextlib.contextmanager
def taking_turns(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Waits until no other process works in a directory; a process that is killed lets it go.

    On Windows nothing keeps two processes apart.

    Args:
        directory: The directory.

    Raises:
        OSError: If it is not there, or cannot be locked.
    """
    if os.name != "posix":
        yield
        return
    import fcntl  # which Windows lacks

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(file: IO[str], directory: pathlib.Path) -> None:
    import fcntl  # which Windows lacks

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ModelError(
            f"{directory}: another process works there; wait until it is through, or give another "
            "directory"
        ) from error
