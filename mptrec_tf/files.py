"""Files that are complete at every moment."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any


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


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Writes a text as UTF-8; the file is complete at every moment."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(value: Any, path: str | os.PathLike[str], indent: int | None = None) -> None:
    """Writes plain data; the file is complete at every moment."""
    write_text(json.dumps(value, indent=indent), path)
