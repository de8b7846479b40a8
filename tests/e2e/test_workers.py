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
import pytest

from mptrec_tf import load_model

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "examples/multi_worker.py"
ROWS, EPOCHS = 2100, 2  # the last batch of an epoch has 52 rows


def start(output, workers, epochs=EPOCHS):
    """Starts the example's workers."""
    spec = importlib.util.spec_from_file_location("multi_worker", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    addresses = [f"127.0.0.1:{port}" for port in example.free_ports(workers)]
    command = [sys.executable, SCRIPT, "--output", output]
    command += ["--rows", str(ROWS), "--epochs", str(epochs)]
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
