"""A process that does one timed repetition of its work whenever it is told to.

JSON lines: the worker writes what it has chosen as soon as it is warm, then reads a line for each
repetition and answers with its seconds and examples. It ends when its input ends. Imports nothing
but the standard library, so that every environment can use it.
"""

import json
import os
import sys
from collections.abc import Iterator


class Worker:
    """The worker's end. Made first of all: whatever else is printed then goes to stderr."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def ready(self, chosen: dict) -> None:
        """Says that the warm-up is over.

        Args:
            chosen: Settings that the worker found out, versions, anything to be kept.
        """
        self._answer({"ready": chosen})

    def requests(self) -> Iterator[None]:
        """One item for each repetition that is asked for."""
        for _ in sys.stdin:
            yield None

    def done(self, seconds: float, examples: int) -> None:
        """Says that a repetition is over.

        Args:
            seconds: What it took.
            examples: How many examples it trained on.
        """
        self._answer({"seconds": seconds, "examples": examples})

    def _answer(self, message: dict) -> None:
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()
