"""What a training depends on; its state: where it is kept, and that none stays."""

import os
import pathlib
import subprocess
import sys

import pytest
import small_runs

from pipelines.components.trainer import StageRun, remove_state

REMOTE = """\
from pipelines.components.trainer import StageRun
state = StageRun(None, None, 0, "gs://bucket/state").state_of("train", ["identity"])
state.mkdir()
print(state)
"""


RATE = {"learning_rate": {"kind": "float", "min": 1e-3, "max": 1e-1}}


@pytest.mark.parametrize(
    ("task", "own", "other"), [(None, "stage1", "stage2"), ("buy", "stage2", "stage1")]
)
def test_a_stage_depends_on_its_own_search_alone(task, own, other, tmp_path):
    def told(tuner, tune=True):
        config = small_runs.config(tmp_path, tuner=tuner, pipeline={"tune": tune})
        return StageRun(config, task, 0, "state").to_dict()

    alone = told({own: RATE})
    assert told({own: RATE, other: RATE}) == alone
    assert told({own: RATE, "trials": 3}) != alone
    assert told({own: {}}) != alone
    assert told({own: RATE}, tune=False) == told({}, tune=False)


def test_a_removal_that_was_cut_off_is_finished_by_the_next(tmp_path):
    state, half_removed = tmp_path / "train-0123", tmp_path / "train-0123.removed"
    for directory in (state, half_removed):
        directory.mkdir()
        (directory / "state.json").touch()
    remove_state(state)
    assert list(tmp_path.iterdir()) == []


def test_the_state_beside_a_remote_root_goes_with_the_process():
    path = os.pathsep.join(filter(None, sys.path))
    made = subprocess.run(
        [sys.executable, "-c", REMOTE],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    state = pathlib.Path(made.stdout.split()[-1])
    assert state.name.startswith("train-")
    assert not state.parent.exists()
