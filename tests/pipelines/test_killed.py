"""`mptrec pipeline run`, killed three times on its way, and the same command once more each time.

The kills are real. Where a run is too quick to be hit at the right moment, it waits there: in the
middle of an epoch, in the middle of the copy of a version.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest
import small_runs

import mptrec_cli
from mptrec_tf.config import Config
from mptrec_tf.serving import Manifest, check
from mptrec_tf.serving.exporting.versions import versions
from pipelines.metadata import Store, connection

EPOCHS = 5
FINISHED = 2
WAITING = "waiting to be killed"
BEFORE_TRANSFORM = ["Ingest", "StatisticsGen", "LearnedSchema", "DataValidator", "RequireValidData"]
COMPONENTS = [*BEFORE_TRANSFORM, "Transform", "Trainer", "Evaluator", "Pusher"]

# `mptrec`, but it waits in an epoch or in a copy; what it prints there is shown on stderr.
HOOKED = f"""\
import sys
import time
import tensorflow as tf
from mptrec_tf.training.checkpoint import ResumableEarlyStopping
import mptrec_cli

def wait():
    print({WAITING!r}, flush=True)
    time.sleep(3600)

def after_batch(self, batch, logs=None):
    if len(self.epochs) == {FINISHED} and batch == 2:
        wait()

copy, copied = tf.io.gfile.copy, []

def slow_copy(source, target, overwrite=False):
    copy(source, target, overwrite)
    if "/serving/" in target:
        copied.append(target)
        if len(copied) == 3:
            wait()

if sys.argv[1] == "epoch":
    ResumableEarlyStopping.on_train_batch_end = after_batch
else:
    tf.io.gfile.copy = slow_copy
sys.exit(mptrec_cli.main(sys.argv[2:]))
"""


class Attempt(NamedTuple):
    """One start of the command.

    Attributes:
        code: Its exit code.
        shown: What it showed on stderr, line by line.
        executions: States of its components by name.
        status: What `mptrec pipeline status` printed afterwards.
        state: State of its run.
        epochs: Epochs whose training state was kept afterwards; `None` if there was none.
        versions: Numbered directories afterwards.
        staged: Files beside them.
    """

    code: int
    shown: list[str]
    executions: dict[str, str]
    status: str
    state: str
    epochs: list[dict] | None
    versions: list[int]
    staged: list[str]


class Story(NamedTuple):
    """An output directory, and what was done there."""

    output: pathlib.Path
    attempts: list[Attempt]


def start(work, output, hook=None):
    command = ["-m", "mptrec_cli"] if hook is None else ["-c", HOOKED, hook]
    arguments = ["--config", "config.yaml", "--stage", "pretrain", "--output", output]
    return subprocess.Popen(
        [sys.executable, *command, "pipeline", "run", *arguments],
        cwd=work,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, to be killed as a whole
    )


def attempt(work, kill_at=None, hook=None, with_file="*"):
    """Runs the command, and kills it once it shows a line and has a file, or lets it end."""
    process = start(work, "output", hook)
    output = work / "output"
    shown = []
    for line in process.stderr:
        shown.append(line.rstrip())
        if kill_at is not None and kill_at in line:
            while not any(file.is_file() for file in output.glob(with_file)):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stderr.close()
    code = process.wait()
    run = Store(connection(Config.from_yaml(work / "config.yaml").pipeline, output)).runs()[-1]
    status = io.StringIO()
    with contextlib.redirect_stdout(status):
        assert mptrec_cli.main(["pipeline", "status", "--output", str(output)]) == 0
    states = list(output.glob("artifacts/state/train-*/state.json"))
    assert len(states) <= 1
    serving = output / "serving/synthetic"
    return Attempt(
        code,
        shown,
        {execution.component: execution.state for execution in run.executions},
        status.getvalue(),
        run.state,
        json.loads(states[0].read_text())["epochs"] if states else None,
        versions(serving),
        [path.name for path in serving.glob(".staging-*/**/*") if path.is_file()],
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("killed")
    small_runs.write_rows(directory)
    training = small_runs.TRAINING | {"epochs": EPOCHS}
    stage1 = small_runs.PLAIN["stage1"] | {"training": training}
    small_runs.write_config(directory / "config.yaml", directory, stage1=stage1)
    return directory


@pytest.fixture(scope="module")
def story(work):
    return Story(
        work / "output",
        [
            attempt(
                work, "] Transform: ...", with_file="artifacts/Transform/transform_graph/*/**/*"
            ),
            attempt(work, WAITING, "epoch"),
            attempt(work, WAITING, "copy"),
            attempt(work),
        ],
    )


@pytest.fixture(scope="module")
def undisturbed(work):
    process = start(work, "undisturbed")
    _, shown = process.communicate()
    assert process.returncode == 0, shown
    return work / "undisturbed"


def written_training(output):
    (file,) = output.glob("artifacts/Trainer/model/*/Format-Serving/assets.extra/training.json")
    return json.loads(file.read_text())


def training_of(output):
    training = written_training(output)
    for epoch in training["epochs"]:
        del epoch["seconds"]
    return training


def test_three_kills_and_the_end(story):
    assert [a.code for a in story.attempts] == [-signal.SIGKILL] * 3 + [0], story.attempts


def test_a_killed_run_is_called_interrupted(story):
    killed = ["Transform", "Trainer", "Pusher"]
    for number, (attempted, component) in enumerate(zip(story.attempts, killed, strict=False), 1):
        assert attempted.state == "interrupted"
        assert attempted.executions[component] == "interrupted"
        assert len(re.findall(r"synthetic-pretrain +interrupted", attempted.status)) == number
        assert re.search(rf"^{component} +interrupted +-$", attempted.status, re.MULTILINE)
    assert re.search(r"synthetic-pretrain +complete", story.attempts[-1].status)


@pytest.mark.parametrize("number", [1, 2, 3], ids=["Transform", "Trainer", "Pusher"])
def test_what_was_finished_before_the_kill_comes_from_the_cache(story, number):
    before, after = (story.attempts[n].executions for n in (number - 1, number))
    finished = [name for name, state in before.items() if state in ("complete", "cached")]
    assert finished == COMPONENTS[: (5, 6, 8)[number - 1]]
    assert {after[name] for name in finished} == {"cached"}
    assert after[COMPONENTS[len(finished)]] != "cached"


def test_training_goes_on_after_the_last_finished_epoch(story):
    _, killed, resumed, _ = story.attempts
    assert [epoch for epoch in killed.shown if epoch.startswith("Epoch")] == [
        f"Epoch {n}/{EPOCHS}" for n in range(1, FINISHED + 2)
    ]
    assert len(killed.epochs) == FINISHED
    assert [epoch for epoch in resumed.shown if epoch.startswith("Epoch")] == [
        f"Epoch {n}/{EPOCHS}" for n in range(FINISHED + 1, EPOCHS + 1)
    ]
    epochs = written_training(story.output)["epochs"]
    assert len(epochs) == EPOCHS
    assert epochs[:FINISHED] == killed.epochs  # their seconds too


def test_no_state_stays_of_a_training_that_is_done(story):
    assert [attempted.epochs is None for attempted in story.attempts] == [True, False, True, True]
    assert list(story.output.glob("artifacts/state/*")) == []


def test_the_model_is_that_of_an_undisturbed_run(story, undisturbed):
    one, other = (
        Manifest.read(output / "serving/synthetic/1") for output in (story.output, undisturbed)
    )
    assert one.fingerprint == other.fingerprint
    assert training_of(story.output) == training_of(undisturbed)


def test_a_version_is_there_whole_or_not_at_all(story):
    assert [attempted.versions for attempted in story.attempts] == [[], [], [], [1]]
    assert len(story.attempts[2].staged) == 3  # the kill did come amid the copy
    findings = check(story.output / "serving/synthetic/1")
    assert len(findings) > 1
    assert [finding for finding in findings if finding.problem] == []


def test_one_version_is_pushed_and_the_same_command_pushes_no_other(story, work, capfd):
    config = Config.from_yaml(work / "config.yaml")
    pushed = Store(connection(config.pipeline, story.output)).pushed_models()
    assert [model.version for model in pushed] == [1]
    arguments = ["--config", work / "config.yaml", "--stage", "pretrain", "--output", story.output]
    assert mptrec_cli.main(["pipeline", "run", *map(str, arguments)]) == 0
    out, _ = capfd.readouterr()
    assert set(re.findall(r"^\w+ +(complete|cached) ", out, re.MULTILINE)) == {"cached"}
    assert out.endswith(f"version 1: {story.output}/serving/synthetic/1\n")
    assert versions(story.output / "serving/synthetic") == [1]
