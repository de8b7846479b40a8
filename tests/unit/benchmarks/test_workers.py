"""Workers that take turns, with real processes."""

import sys

import pytest

from harness.workers import Process, WorkerError, spread, take_turns, throughput_ratio

ECHO = """
from harness.protocol import Worker
worker = Worker()
print("noise that is no answer")
worker.ready({"form": "SECONDS"})
for turn, _ in enumerate(worker.requests()):
    worker.done(SECONDS + (1.0, 0.0, 0.5)[turn], 10)
"""
BROKEN = """
from harness.protocol import Worker
worker = Worker()
worker.ready({})
next(worker.requests())
raise ValueError("out of luck")
"""


def start(name: str, code: str) -> Process:
    process = Process(name, [sys.executable, "-c", code])
    process.wait_until_ready()
    return process


def test_turns_ratios_pair_by_pair_and_the_fastest_repetition():
    contenders = {
        "slow": [sys.executable, "-c", ECHO.replace("SECONDS", "2.0")],
        "fast": [sys.executable, "-c", ECHO.replace("SECONDS", "0.5")],
    }
    said: list[str] = []
    turns, chosen = take_turns(contenders, 3, said.append)
    assert chosen == {"slow": {"form": "2.0"}, "fast": {"form": "0.5"}}
    assert turns["slow"] == [{"seconds": 2.0, "examples": 10}] * 3
    assert throughput_ratio(turns["fast"], turns["slow"]) == {"median": 4.0, "min": 4.0, "max": 4.0}
    assert [line.split(": ")[0].strip() for line in said[:3]] == [
        "1/3 slow",
        "1/3 fast",
        "2/3 slow",
    ]


def test_ratios_are_of_the_same_turn():
    ours = [{"seconds": s, "examples": 1} for s in (1.0, 2.0, 4.0)]
    theirs = [{"seconds": s, "examples": 1} for s in (3.0, 8.0, 8.0)]
    assert throughput_ratio(ours, theirs) == {"median": 3.0, "min": 2.0, "max": 4.0}


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_a_crash_is_reported_with_its_stderr():
    process = start("peer", BROKEN)
    with pytest.raises(WorkerError, match=r"(?s)peer ended with code 1.*out of luck"):
        process.repeat()
    process.close()


def test_a_crash_at_the_start_is_reported():
    process = Process("peer", [sys.executable, "-c", "import missing_package"])
    with pytest.raises(WorkerError, match="missing_package"):
        process.wait_until_ready()
    process.close()
