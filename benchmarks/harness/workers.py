"""Starts workers and has them take turns, so that each repetition meets the same machine."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent
LINES_OF_ERROR = 15
EPOCHS = 3
"""Measured in a turn; the fastest counts, since neighbours on a machine only ever slow it."""


class WorkerError(RuntimeError):
    """A worker ended too early; the message has the end of what it wrote to stderr."""


class Process:
    """The other end of `harness.protocol.Worker`.

    Args:
        name: What it is called in messages.
        command: The command that starts it.

    Attributes:
        chosen: What the worker said when it was warm; empty before `wait_until_ready`.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.chosen: dict = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        paths = [str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def wait_until_ready(self) -> None:
        """Waits for the end of the warm-up.

        Raises:
            WorkerError: If the worker ends before.
        """
        self.chosen = self._read()["ready"]

    def repeat(self) -> dict:
        """One repetition: its `seconds` and `examples`.

        Raises:
            WorkerError: If the worker ends before it is done.
        """
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        return self._read()

    def close(self) -> None:
        """Ends the worker."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        return json.loads(line)

    def _fail(self) -> None:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().splitlines()[-LINES_OF_ERROR:]
        said = "\n  ".join(lines) or "nothing"
        raise WorkerError(f"{self.name} ended with code {code}; the end of its stderr:\n  {said}")


def take_turns(
    contenders: Mapping[str, Sequence[str]], repetitions: int, say: Callable[[str], None]
) -> tuple[dict[str, list[dict]], dict[str, dict]]:
    """Every contender has a turn, then every contender the next one.

    A turn is a process of its own, which warms up and then does `EPOCHS` repetitions, of which the
    fastest counts. From one that waits while others work, a system may take memory away that is
    slow to come back.

    Args:
        contenders: Commands by name.
        repetitions: How many turns.
        say: Gets a line for each turn.

    Returns:
        By name, the fastest that `Process.repeat` gave in each turn; by name, what the worker said
        when it was warm, in the last turn.

    Raises:
        WorkerError: If a worker ends before it is done.
    """
    results: dict[str, list[dict]] = {name: [] for name in contenders}
    chosen: dict[str, dict] = {}
    for turn in range(repetitions):
        for name, command in contenders.items():
            process = Process(name, command)
            try:
                process.wait_until_ready()
                chosen[name] = process.chosen
                result = min(
                    (process.repeat() for _ in range(EPOCHS)), key=lambda done: done["seconds"]
                )
            finally:
                process.close()
            results[name].append(result)
            rate = result["examples"] / result["seconds"]
            say(f"  {turn + 1}/{repetitions} {name}: {rate:,.0f} examples/s")
    return results, chosen


def run_once(name: str, command: Sequence[str]) -> str:
    """Runs a command to its end and gives what it printed.

    Raises:
        WorkerError: If it fails.
    """
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    done = subprocess.run(  # noqa: S603
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode != 0:
        said = "\n  ".join(done.stderr.splitlines()[-LINES_OF_ERROR:]) or "nothing"
        raise WorkerError(
            f"{name} ended with code {done.returncode}; the end of its stderr:\n  {said}"
        )
    return done.stdout


def throughput_ratio(ours: Sequence[dict], theirs: Sequence[dict]) -> dict[str, float]:
    """Our examples per second over theirs, pair by pair.

    Args:
        ours: Repetitions, as `take_turns` gives them.
        theirs: As many of the other one, of the same turns.

    Returns:
        `median`, `min` and `max` over the pairs.

    Example:

    >>> fast, slow = {"examples": 10, "seconds": 1.0}, {"examples": 10, "seconds": 3.0}
    >>> throughput_ratio([fast], [slow])["median"]
    3.0
    """
    return spread([_rate(a) / _rate(b) for a, b in zip(ours, theirs, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """`median`, `min` and `max` of some numbers."""
    return {
        "median": float(np.median(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


def _rate(repetition: dict) -> float:
    return repetition["examples"] / repetition["seconds"]


def progress_printer() -> Callable[[str], None]:
    """Prints lines with the seconds since it was made."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {text}", file=sys.stderr, flush=True)

    return say
