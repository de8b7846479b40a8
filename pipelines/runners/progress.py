"""What a person sees of a run: a line when a component begins, a line when it ends."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from pipelines.metadata import Execution

STDERR = 2
ROWS = "rows:"
"""Begin of the property with the number of rows, followed by the split."""


@contextlib.contextmanager
def logs_to(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Appends all that libraries log or write to stderr to a file, that of C++ code included.

    Args:
        path: The file.

    Yields:
        The stderr from before, for what a person is to see.
    """
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(path, "a", buffering=1, encoding="utf-8"))
        native = os.dup(STDERR)
        stack.callback(os.close, native)
        # Where sys.stderr is something else (a notebook, a test), it is the one a person sees.
        terminal = sys.stderr
        if _descriptor(sys.stderr) == STDERR:
            terminal = stack.enter_context(
                open(native, "w", buffering=1, encoding=sys.stderr.encoding, closefd=False)
            )
        os.dup2(log.fileno(), STDERR)
        stack.callback(os.dup2, native, STDERR)
        stack.enter_context(contextlib.redirect_stderr(log))
        stack.enter_context(_logging_to(log))
        yield terminal


@contextlib.contextmanager
def _logging_to(stream: TextIO) -> Iterator[None]:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, absl = logging.getLogger(), logging.getLogger("absl")
    before = (root.handlers, root.level, absl.level)
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    absl.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])
        absl.setLevel(before[2])


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, AttributeError):
        return None


class Progress:
    """Tells how far a run is.

    Args:
        stream: Where to; `None` for nowhere.
        total: Number of components.
    """

    def __init__(self, stream: TextIO | None, total: int):
        self._stream = stream
        self._total = total
        self._done = 0
        self._begun = 0.0

    def begin(self, component: str) -> None:
        """A component begins."""
        self._done += 1
        self._begun = time.monotonic()
        self._tell(component, "...")

    def end(self, component: str, execution: Execution | None) -> None:
        """A component has ended well; `None` where the pipeline left it out."""
        if execution is None:
            self._tell(component, "skipped")
        elif execution.state == "cached":
            self._tell(component, f"cached{_rows(execution)}")
        else:
            self._tell(component, f"{self._seconds()}{_rows(execution)}")

    def fail(self, component: str, reason: str) -> None:
        """A component has failed, or was interrupted."""
        self._tell(component, f"{self._seconds()}, {' '.join(reason.split())}")

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._begun:.1f} s"

    def _tell(self, component: str, what: str) -> None:
        if self._stream is not None:
            number = f"{self._done:{len(str(self._total))}}/{self._total}"
            print(f"[{number}] {component}: {what}", file=self._stream, flush=True)


def _rows(execution: Execution) -> str:
    """The rows of what was made, where its maker counted them split by split."""
    artifacts = [a for several in execution.outputs.values() for a in several]
    counts = [n for a in artifacts for name, n in a.properties.items() if name.startswith(ROWS)]
    return f", {sum(counts):,} rows" if counts else ""
