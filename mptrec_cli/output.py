"""What commands print and write."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mptrec_tf.data.readers import Path

Metrics = Mapping[str, Mapping[str, float]]
"""By task, by name of the metric."""


class UsageError(ValueError):
    """Arguments that cannot work; printed without a traceback."""


def require_writable(directory: pathlib.Path) -> None:
    """Makes a directory and tries to write there, before any work is done that could be lost.

    Raises:
        UsageError: If it cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise UsageError(f"{directory}: cannot be written to: {error.strerror}") from error


def require_file(path: pathlib.Path) -> None:
    """Like `require_writable`, for a file that is to be written.

    Raises:
        UsageError: If it is a directory, or its directory cannot be made or written to.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; name a file")
    require_writable(path.parent)


def require_not_read(output: pathlib.Path, *sources: Path | Sequence[Path]) -> None:
    """Refuses to write in the place of a file that is read.

    Args:
        output: The file that is to be written.
        *sources: Files and glob patterns that are read.

    Raises:
        UsageError: If the output is one of them, by whatever name.
        DataError: If a path or pattern names no file.
    """
    from mptrec_tf.data.readers import expand_paths

    for file in itertools.chain.from_iterable(map(expand_paths, sources)):
        if output.exists() and output.samefile(file):
            raise UsageError(f"{output}: would overwrite the input {file}; write to another file")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file of results, NaN and infinity as null; it is complete at every moment."""
    from mptrec_tf.files import write_text

    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


@contextlib.contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Tells what a user is warned of as errors are told, not where in the library it was found."""
    usual = warnings.formatwarning

    def plain(message: Any, category: type[Warning], *args: Any, **kwargs: Any) -> str:
        if category is not UserWarning:
            return usual(message, category, *args, **kwargs)
        return f"mptrec: warning: {message}\n"

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def note(text: str, quiet: bool) -> None:
    """Tells something by the way."""
    if not quiet:
        print(text, file=sys.stderr)


def print_metrics(results: Metrics, of: str = "task") -> None:
    """Prints a row for each task, or what else there is, a column for each metric that any has."""
    names = list(dict.fromkeys(name for metrics in results.values() for name in metrics))
    rows = [[task, *(metrics.get(name) for name in names)] for task, metrics in results.items()]
    print_table([of, *names], rows)


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints columns as wide as they need: text on the left, numbers on the right."""
    lines = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [
        any(isinstance(row[place], int | float) for row in rows) for place in range(len(header))
    ]
    for line in lines:
        cells = [
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.5f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, pathlib.Path) else value
