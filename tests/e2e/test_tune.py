"""`mptrec tune`: to a configuration that `train` takes, and through a kill."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml

import mptrec_cli

COMMAND = [sys.executable, "-m", "mptrec_cli"]
TRAINING = {"epochs": 2, "batch_size": 64, "jit_compile": False, "steps_per_execution": 1}
CONFIG = {
    "data": {"train": "train.csv", "validation": "validation.csv", "test": "not-there.csv"},
    "features": [{"kind": "numeric", "name": "age"}, {"kind": "categorical", "name": "city"}],
    "tasks": [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy"}],
    "stage1": {
        "tasks": ["click"],
        "model": {"expert_units": [8], "tower_units": [4]},
        "training": TRAINING,
    },
    "stage2": {"module": {"tower_units": [4], "input_projection": 4}, "training": TRAINING},
    "tuner": {
        "trials": 2,
        "stage1": {
            "learning_rate": {"kind": "float", "min": 1e-3, "max": 1e-1, "log": True},
            "expert_units": {"kind": "choice", "values": [[8], [16, 8]]},
        },
        "stage2": {"query_units": {"kind": "choice", "values": [2, 4]}},
    },
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A directory with rows and a configuration."""
    directory = tmp_path_factory.mktemp("tune")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"age": rng.integers(18, 80, 900), "city": rng.choice(["Oslo", "Rome"], 900)}
    )
    score = (rows["age"] - 48) / 12 + (rows["city"] == "Oslo")
    for task, sign in (("click", 1), ("buy", -1)):
        rows[task] = (rng.random(900) < 1 / (1 + np.exp(-sign * score))).astype(int)
    rows[:600].to_csv(directory / "train.csv", index=False)
    rows[600:].to_csv(directory / "validation.csv", index=False)
    (directory / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return directory


def run(work, *arguments):
    return subprocess.run([*COMMAND, *arguments], cwd=work, capture_output=True, text=True)


@pytest.fixture(scope="module")
def tuned(work):
    """What `mptrec tune` printed for stage 1."""
    done = run(work, "tune", "--config", "config.yaml", "--output", "tuned")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(work, tuned):
    """The results of `mptrec train` with the best configuration."""
    config = ["--config", "tuned/stage1-best.yaml"]
    done = run(work, "train", *config, "--output", "trained", "--quiet")
    assert done.returncode == 0, done.stderr
    return json.loads((work / "trained/stage1-results.json").read_text())


@pytest.fixture
def here(work, monkeypatch):
    monkeypatch.chdir(work)
    return work


def trials_of(work, name):
    return json.loads((work / name).read_text())


def best_of(report):
    (best,) = (trial for trial in report["trials"] if trial["number"] == report["best"])
    return best


def test_prints_every_trial_and_tells_how_far_it_is(work, tuned):
    report = trials_of(work, "tuned/stage1-trials.json")
    assert report["objective"] == {"metric": "val_mean_auc", "mode": "max"}
    assert [trial["number"] for trial in report["trials"]] == [1, 2]
    assert report["trials"][0]["values"] == {"learning_rate": 0.002, "expert_units": [8]}
    best = best_of(report)
    assert best["objective"] == max(trial["objective"] for trial in report["trials"])
    header, first, *_ = tuned.stdout.splitlines()
    assert header.split() == ["trial", "val_mean_auc", "seconds", "learning_rate", "expert_units"]
    assert first.split()[:2] == [str(best["number"]), f"{best['objective']:.5f}"]
    assert "trial 2 of 2: learning_rate" in tuned.stderr
    assert f"best so far {best['objective']:.5f}, trial {best['number']}" in tuned.stderr
    assert (work / "tuned/stage1-trials.png").read_bytes().startswith(b"\x89PNG")


def test_train_takes_the_best_configuration_and_reaches_what_the_trial_did(work, trained):
    best = best_of(trials_of(work, "tuned/stage1-trials.json"))
    values = [epoch["val_mean_auc"] for epoch in trained["epochs"]]
    assert max(values) == best["objective"]
    written = yaml.safe_load((work / "tuned/stage1-best.yaml").read_text())
    units = written["stage1"]["model"]["expert_units"]
    assert units == best["values"]["expert_units"]


@pytest.mark.long
def test_stage_2_is_tuned_on_top_of_a_model(here, trained, capsys):
    arguments = ["tune", "--config", "tuned/stage1-best.yaml", "--output", "tuned", "--quiet"]
    stage2 = ["--stage", "stage2", "--model", "trained/stage1.keras", "--task"]
    assert mptrec_cli.main([*arguments, *stage2, "buy"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines()[-1] == "configuration: tuned/buy-best.yaml"
    report = trials_of(here, "tuned/buy-trials.json")
    assert sorted(trial["values"]["query_units"] for trial in report["trials"]) == [2, 4]
    best = yaml.safe_load(pathlib.Path("tuned/buy-best.yaml").read_text())
    assert best["stage2"]["module"]["query_units"] == best_of(report)["values"]["query_units"]
    assert mptrec_cli.main([*arguments, *stage2, "click"]) == 2
    assert "already has a task 'click'" in capsys.readouterr().err


@pytest.mark.long
def test_a_killed_search_goes_on_and_repeats_no_finished_trial(work):
    config = {**CONFIG, "stage1": {**CONFIG["stage1"], "training": {**TRAINING, "epochs": 4}}}
    (work / "long.yaml").write_text(yaml.safe_dump(config))
    arguments = ["tune", "--config", "long.yaml", "--output", "killed"]
    first, second = (work / f"killed/tune-stage1/trial_{number}" for number in (0, 1))

    process = subprocess.Popen([*COMMAND, *arguments, "--quiet"], cwd=work)
    while not (second / "training/state.json").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    begun = json.loads((second / "training/state.json").read_text())["epochs"]
    finished = json.loads((first / "trial.json").read_text())
    assert finished["status"] == "COMPLETED"
    assert not (work / "killed/stage1-best.yaml").exists()

    done = run(work, *arguments)
    assert done.returncode == 0, done.stderr
    assert "killed/tune-stage1: going on after trial 1" in done.stderr
    assert "trial 1 of 2" not in done.stderr
    assert "trial 2 of 2" in done.stderr
    trials = trials_of(work, "killed/stage1-trials.json")["trials"]
    assert [trial["number"] for trial in trials] == [1, 2]
    assert trials[0]["objective"] == finished["score"]
    assert trials[0]["metrics"]["seconds"] > 0
    assert trials[1]["metrics"]["epochs"] == 4
    assert trials[1]["metrics"]["seconds"] > sum(epoch["seconds"] for epoch in begun)


def test_another_configuration_does_not_go_on(here, tuned, capsys):
    arguments = ["tune", "--config", "config.yaml", "--output", "tuned", "--quiet"]
    assert mptrec_cli.main([*arguments, "--seed", "1"]) == 2
    assert "holds the search of another configuration" in capsys.readouterr().err


def test_a_configuration_without_a_space_is_refused_first(here, capsys):
    bare = {**CONFIG, "data": {"train": "absent.csv", "validation": "absent.csv"}, "tuner": {}}
    pathlib.Path("bare.yaml").write_text(yaml.safe_dump(bare))
    assert mptrec_cli.main(["tune", "--config", "bare.yaml", "--output", "bare"]) == 2
    assert "tuner.stage1: the configuration declares nothing" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(here):
    code = (
        "import sys, mptrec_cli\n"
        "sys.modules['keras_tuner'] = None\n"
        "sys.exit(mptrec_cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "tune", "--config", "config.yaml", "--output", "none"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install 'mptrec-tf[tuner]'")
