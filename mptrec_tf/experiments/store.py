"""Results on disk: a line for each finished cell of an experiment, complete at every moment."""

import json
import os
import pathlib
from typing import Any

from mptrec_tf.errors import ModelError
from mptrec_tf.files import taking_turns, write_text

Line = dict[str, Any]

REQUIRED = {
    "variant",
    "new_tasks",
    "seed",
    "digest",
    "model",
    "training",
    "tuned",
    "trials",
    "tasks",
    "test",
    "old_tasks_identical",
    "parameters",
    "trained_parameters",
    "flops",
    "seconds",
    "gates",
    "representations",
    "rows",
    "versions",
}
"""What every line has, because runs and reports read it."""


class Results:
    """The results of one experiment, a file of JSON lines.

    A line is added by writing the file anew beside the old one and renaming it, so a process that
    is killed at any moment leaves whole lines.

    Args:
        path: The file; it need not be there yet.

    Example:

    ```python
    [line["test"]["income"]["auc"] for line in Results("docs/results/stage1.jsonl").lines()]
    ```
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)

    def lines(self) -> list[Line]:
        """All lines.

        Raises:
            ModelError: If a line is broken or lacks a key; the message names it.
        """
        if not self.path.is_file():
            return []
        lines = []
        # Not at other ends of lines, such as U+2028, which a name may have.
        texts = self.path.read_text(encoding="utf-8").split("\n")
        for number, text in enumerate(texts[: None if texts[-1] else -1], 1):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise ModelError(f"{self.path}: line {number} is no JSON: {error}") from error
            missing = sorted(REQUIRED.difference(line if isinstance(line, dict) else ()))
            if missing:
                raise ModelError(f"{self.path}: line {number} lacks the keys {missing}")
            lines.append(line)
        return lines

    def add(self, line: Line) -> None:
        """Adds a line that is not there yet; processes that add in one directory take turns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with taking_turns(self.path.parent):
            lines = self.lines()
            if key_of(line) in map(key_of, lines):
                return
            lines.append(line)
            texts = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines)
            write_text(self.path, "".join(f"{text}\n" for text in texts))


def key_of(line: Line) -> tuple[str, tuple[str, ...], int, str]:
    """What tells a line apart from others of its experiment.

    Args:
        line: The line.
    """
    return line["variant"], tuple(line["new_tasks"]), line["seed"], line["digest"]
