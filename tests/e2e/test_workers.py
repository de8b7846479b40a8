"""Two processes train one model: as one process does, and on after one of them was killed."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import small_runs

from mptrec_tf import load_model

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "examples/multi_worker.py"
ROWS, EPOCHS = 2100, 2  # the last batch of an epoch has 52 rows


def start(output, workers, epochs=EPOCHS):
    """Starts the example's workers."""
    command = [sys.executable, SCRIPT, "--output", output]
    return start_all([*command, "--rows", str(ROWS), "--epochs", str(epochs)], workers)


def start_all(command, workers, **options):
    """Starts the same command as each of some workers; one of them needs no cluster."""
    spec = importlib.util.spec_from_file_location("multi_worker", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    addresses = [f"127.0.0.1:{port}" for port in example.free_ports(workers)]
    processes = []
    for index in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        place = {"TF_CONFIG": json.dumps(config)} if workers > 1 else {}
        processes.append(
            subprocess.Popen(
                [str(part) for part in command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **place},
                **options,
            )
        )
    return processes


def finish(processes):
    for process in processes:
        printed, _ = process.communicate(timeout=150)
        assert process.returncode == 0, printed


def result(output):
    return json.loads((output / "metrics.json").read_text()), load_model(output / "model.keras")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The directory of two undisturbed workers."""
    output = tmp_path_factory.mktemp("two")
    finish(start(output, 2))
    return output


def test_two_processes_train_as_one(two, tmp_path):
    finish(start(tmp_path, 1))
    (expected, one), (metrics, model) = result(tmp_path), result(two)

    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-4), name
    for weight, other in zip(model.weights, one.weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-4, err_msg=weight.path)


def test_a_killed_worker_costs_an_epoch_and_nothing_else(two, tmp_path):
    first, second = start(tmp_path, 2)
    state = tmp_path / "stage1" / "state.json"
    while not state.is_file():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    second.send_signal(signal.SIGKILL)
    printed, _ = first.communicate(timeout=120)  # it does not wait forever
    assert first.returncode != 0
    # `fit` names the loss, unless TensorFlow ends the process before the step fails.
    assert "another worker was lost" in printed or "/job:worker/task:1" in printed
    second.communicate()
    assert not (tmp_path / "metrics.json").exists()
    epochs = [entry["val_mean_auc"] for entry in json.loads(state.read_text())["epochs"]]
    assert len(epochs) in (1, 2)

    finish(start(tmp_path, 2))
    (expected, undisturbed), (metrics, model) = result(two), result(tmp_path)
    assert metrics == expected
    assert model.fingerprint() == undisturbed.fingerprint()
    resumed = json.loads(state.read_text())["epochs"]
    assert [entry["val_mean_auc"] for entry in resumed][: len(epochs)] == epochs


def test_the_command_line_trains_and_adds_a_task_with_all_workers(tmp_path):
    """Both stages as commands, where TF_CONFIG names two workers, and where there is none."""
    small_runs.write_rows(tmp_path)
    plain = small_runs.PLAIN
    model = {**plain["stage1"]["model"], "expert_dropout": 0.0, "tower_dropout": 0.0}
    module = {**plain["stage2"]["module"], "dropout": 0.0}
    small_runs.write_config(
        tmp_path / "c.yaml",
        tmp_path,
        stage1={**plain["stage1"], "model": model},
        stage2={**plain["stage2"], "module": module},
    )
    mptrec = [sys.executable, "-m", "mptrec_cli"]
    for workers in (1, 2):
        given = ["--config", "c.yaml", "--output", f"by-{workers}"]
        adding = ["add-task", *given, "--model", f"by-{workers}/stage1.keras", "--task", "buy"]
        for command in (["train", *given], adding):
            finish(start_all([*mptrec, *command], workers, cwd=tmp_path))

    alone, old, new = (
        load_model(tmp_path / file)
        for file in ("by-1/model.keras", "by-2/stage1.keras", "by-2/model.keras")
    )
    rows = pd.read_csv(tmp_path / "synthetic-test.csv")
    x = alone.encoder.encode(rows)
    expected, before, after = (m.predict(x, verbose=0) for m in (alone, old, new))
    assert set(after) == {"click", "like", "buy"}
    for task in before:
        np.testing.assert_array_equal(after[task], before[task])
    for task, values in expected.items():  # without a strategy, rows are shuffled in another order
        assert np.corrcoef(after[task], values)[0, 1] > 0.95, task
