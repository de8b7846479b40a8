"""`mptrec bench` as a user runs it, through a kill."""

import json
import signal
import subprocess
import sys
import time

import pytest
import small_experiments

COMMAND = [sys.executable, "-m", "mptrec_cli", "bench"]
SEEDS = 6


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A directory with rows, their configuration and an experiment."""
    directory = tmp_path_factory.mktemp("bench")
    base = small_experiments.write_base(directory)
    slow = {**small_experiments.TREES, "settings": {"n_estimators": 40, "min_data_in_leaf": 5}}
    small_experiments.write_experiment(
        directory / "e.yaml", base, variants=[slow], seeds=list(range(SEEDS))
    )
    return directory


def bench(work, *arguments):
    return subprocess.run([*COMMAND, *arguments], cwd=work, capture_output=True, text=True)


@pytest.fixture(scope="module")
def killed(work):
    """The results that a killed run left, by digest, with the time at which each was written."""
    process = subprocess.Popen(
        [*COMMAND, "run", "e.yaml", "--output", "runs"], cwd=work, stderr=subprocess.PIPE
    )
    results = work / "runs/tiny.jsonl"
    while process.poll() is None and not results.is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    lines = [json.loads(text) for text in results.read_text().splitlines()]
    files = {line["digest"]: work / "runs/trained" / line["digest"] for line in lines}
    return {digest: (file / "result.json").stat().st_mtime_ns for digest, file in files.items()}


@pytest.fixture(scope="module")
def resumed(work, killed):
    done = bench(work, "run", "e.yaml", "--output", "runs")
    assert done.returncode == 0, done.stderr
    return done


def test_a_killed_run_goes_on(work, killed, resumed):
    assert 0 < len(killed) < SEEDS
    assert f"{SEEDS} runs, " in resumed.stderr
    lines = [json.loads(text) for text in (work / "runs/tiny.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == list(range(SEEDS))
    for digest, written in killed.items():
        assert (work / "runs/trained" / digest / "result.json").stat().st_mtime_ns == written
    assert resumed.stdout == "runs/tiny.jsonl\n"


def test_report(work, resumed):
    files = ["--html", "runs/r.html", "--markdown", "runs/r.md"]
    done = bench(work, "report", "e.yaml", "--results", "runs", *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "runs/r.html\nruns/r.md\n"
    assert "| trees (reference) |" in (work / "runs/r.md").read_text()
    assert "<svg" in (work / "runs/r.html").read_text()
