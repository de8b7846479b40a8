"""Runs on this machine: what a person sees, what stops a run, one at a time, after a kill."""

import json
import os
import re
import signal
import sys

import pytest
import tiny_pipelines as tiny
from tfx.utils import dependency_utils

from mptrec_tf.errors import DataError, ModelError, MPTRecError, PipelineError
from mptrec_tf.pipeline_config import PipelineConfig
from pipelines.metadata import Store, connection
from pipelines.nodes import beam_arguments
from pipelines.runners.local import run
from pipelines.runners.lock import holder, one_run


def store(directory):
    return Store(connection(PipelineConfig(), directory))


def after_ingest(directory, make, **arguments):
    ingest = tiny.Ingest(rows=3, span=1)
    return tiny.pipeline(
        directory, [ingest, make(examples=ingest.outputs["examples"], **arguments)]
    )


def test_components_run_in_order_and_are_shown(tmp_path, capfd):
    result = run(tiny.pretrain(tmp_path), log_file=tmp_path / "logs" / "run.log")
    names = ["Ingest", "Transform", "Trainer", "Evaluator", "Pusher"]
    assert list(result.executions) == names
    captured = capfd.readouterr()
    assert captured.out == ""
    assert re.sub(r"\d+\.\d s", "SECONDS", captured.err).splitlines() == [
        "[1/5] Ingest: ...",
        "[1/5] Ingest: SECONDS, 3 rows",
        "[2/5] Transform: ...",
        "[2/5] Transform: SECONDS",
        "[3/5] Trainer: ...",
        "Epoch 1/1",
        "[3/5] Trainer: SECONDS",
        "[4/5] Evaluator: ...",
        "[4/5] Evaluator: SECONDS",
        "[5/5] Pusher: ...",
        "[5/5] Pusher: SECONDS",
    ]
    [ran] = store(tmp_path).runs()
    assert (ran.run_id, ran.state) == (result.run_id, "complete")
    assert [(e.component, e.state) for e in ran.executions] == [(n, "complete") for n in names]
    assert 0 < ran.seconds <= result.seconds


def test_what_has_not_changed_comes_from_the_cache(tmp_path, capfd):
    run(tiny.pretrain(tmp_path), log_file=tmp_path / "run.log", progress=False)
    assert capfd.readouterr() == ("", "")
    result = run(tiny.pretrain(tmp_path, version=2), log_file=tmp_path / "run.log")
    states = {name: execution.state for name, execution in result.executions.items()}
    assert states.pop("Pusher") == "complete"
    assert set(states.values()) == {"cached"}
    assert "[1/5] Ingest: cached, 3 rows\n" in capfd.readouterr().err


def test_logs_go_to_the_file_and_epochs_to_the_terminal(tmp_path, capfd):
    run(after_ingest(tmp_path, tiny.Noisy), log_file=tmp_path / "run.log")
    shown = capfd.readouterr().err.splitlines()
    assert [line for line in shown if not line.startswith("[")] == ["Epoch 1/1"]
    log = (tmp_path / "run.log").read_text()
    for line in ("a note of TFX", "a note of Beam", "a bar of tqdm", "a line of C++"):
        assert line in log


def test_stderr_and_logging_are_as_before_after_a_run(tmp_path, capfd):
    with pytest.raises(PipelineError):
        run(after_ingest(tmp_path, tiny.Failing, kind="other"), log_file=tmp_path / "run.log")
    capfd.readouterr()
    os.write(2, b"native\n")
    print("python", file=sys.stderr)
    assert capfd.readouterr().err == "native\npython\n"


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("ours", DataError, "Failing: rows.csv: column 'age':\n  'x' is no number"),
        ("hidden", ModelError, "Failing: the model has no task 'buy'"),
        ("other", PipelineError, "Failing: KeyError: 'absent'; see {log}"),
    ],
)
def test_a_failure_names_component_and_reason(kind, error, message, tmp_path, capfd):
    log = tmp_path / "run.log"
    with pytest.raises(MPTRecError) as raised:
        run(after_ingest(tmp_path, tiny.Failing, kind=kind), log_file=log)
    assert type(raised.value) is error
    assert str(raised.value) == message.format(log=log)
    last = capfd.readouterr().err.splitlines()[-1]
    reason = " ".join(message.format(log=log).removeprefix("Failing: ").split())
    assert re.fullmatch(rf"\[2/2\] Failing: \d+\.\d s, failed: {re.escape(reason)}", last)
    assert "Traceback (most recent call last)" in log.read_text()
    [ran] = store(tmp_path).runs()
    assert ran.state == "failed"


@pytest.mark.parametrize(
    "beam_args",
    [
        ["--runner=FnApiRunner"],
        ["--runner=FnApiRunner", "--direct_running_mode=multi_processing"],
    ],
    ids=["in this process", "in workers"],
)
def test_a_failure_in_beam_is_told_without_beam(beam_args, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    ingest = tiny.Ingest(rows=3, span=1)
    failing = tiny.FailingInBeam(examples=ingest.outputs["examples"])
    with pytest.raises(DataError) as raised:
        run(
            tiny.pipeline(tmp_path, [ingest, failing], beam_args=beam_args),
            log_file=tmp_path / "run.log",
        )
    assert str(raised.value) == "FailingInBeam: rows.csv: column 'age': 'x' is no number"


def test_tfx_is_not_packed_for_workers_that_there_are_none_of(tmp_path, monkeypatch):
    def packed():
        raise AssertionError("TFX was packed")

    monkeypatch.setattr(dependency_utils, "build_ephemeral_package", packed)
    ingest = tiny.Ingest(rows=3, span=1)
    failing = tiny.FailingInBeam(examples=ingest.outputs["examples"])
    with pytest.raises(DataError):  # so it came as far as its rows
        run(tiny.pipeline(tmp_path, [ingest, failing]), log_file=tmp_path / "run.log")


def test_workers_elsewhere_are_given_what_is_configured():
    flink = ("--runner=FlinkRunner", "--flink_master=host:8081", "--sdk_container_image=IMAGE")
    assert beam_arguments(flink) == list(flink)


def test_inputs_that_are_not_found_stop_the_run(tmp_path):
    lost = tiny.tfx.dsl.Resolver(
        strategy_class=tiny.tfx.dsl.experimental.LatestArtifactStrategy,
        examples=tiny.tfx.dsl.Channel(type=tiny.Examples),
    )
    noisy = tiny.Noisy(examples=lost.outputs["examples"])
    with pytest.raises(PipelineError, match=r"^Resolver: .*InputResolutionError: .*; see "):
        run(tiny.pipeline(tmp_path, [lost, noisy]), log_file=tmp_path / "run.log")


def test_a_second_run_is_refused_while_the_first_one_runs(tmp_path, capfd):
    process, marker = tiny.waiting_run(tmp_path)
    try:
        before = holder(tmp_path)
        assert (before.pid, before.stage) == (process.pid, "tiny-pretrain")
        [ran] = store(tmp_path).runs(before)
        assert [e.state for e in ran.executions] == ["complete", "running"]
        assert ran.executions[1].seconds is None
        with pytest.raises(PipelineError) as raised:
            run(tiny.pretrain(tmp_path), log_file=tmp_path / "other.log")
        assert str(raised.value) == (
            f"{tmp_path}: another run is at work: tiny-pretrain, process {process.pid}, "
            f"since {before.since:%Y-%m-%d %H:%M:%S}; one run at a time"
        )
        assert capfd.readouterr().err == ""
    finally:
        marker.unlink()
        assert process.wait() == 0
    assert holder(tmp_path) is None
    [ran] = store(tmp_path).runs()
    assert ran.state == "complete"


def test_a_killed_run_leaves_nothing_in_the_way(tmp_path):
    process, marker = tiny.waiting_run(tmp_path)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert holder(tmp_path) is None
    [killed] = store(tmp_path).runs()
    assert [e.state for e in killed.executions] == ["complete", "interrupted"]

    marker.unlink()
    result = run(
        after_ingest(tmp_path, tiny.Waiting, signal=str(marker)), log_file=tmp_path / "run.log"
    )
    states = {name: execution.state for name, execution in result.executions.items()}
    assert states == {"Ingest": "cached", "Waiting": "complete"}
    assert [ran.state for ran in store(tmp_path).runs()] == ["interrupted", "complete"]


def test_an_older_killed_run_is_not_taken_for_the_one_at_work(tmp_path):
    process, _ = tiny.waiting_run(tmp_path)
    process.kill()
    process.wait()
    with one_run(tmp_path, "tiny-pretrain"):
        [killed] = store(tmp_path).runs(holder(tmp_path))
    assert killed.state == "interrupted"


def test_an_interrupt_is_shown_and_passes(tmp_path, capfd):
    process, _ = tiny.waiting_run(tmp_path)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=120)
    assert process.returncode != 0
    assert re.search(r"^\[2/2\] Waiting: \d+\.\d s, interrupted$", shown, re.MULTILINE)
    [ran] = store(tmp_path).runs()
    assert ran.state == "interrupted"


def test_the_lock_is_told_in_a_file(tmp_path):
    with one_run(tmp_path / "new", "a-pretrain"):
        values = json.loads((tmp_path / "new" / "metadata.lock").read_text())
        assert (values["pid"], values["stage"]) == (os.getpid(), "a-pretrain")
    with one_run(tmp_path / "new", "b"):  # shorter than what was there
        assert holder(tmp_path / "new").stage == "b"
    assert holder(tmp_path / "new") is None
    assert holder(tmp_path / "absent") is None
