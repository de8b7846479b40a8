"""The state of a training: where it is kept, and that none stays."""

import os
import pathlib
import subprocess
import sys

from pipelines.components.trainer import remove_state

REMOTE = """\
from pipelines.components.trainer import StageRun
state = StageRun(None, None, 0, "gs://bucket/state").state_of("train", ["identity"])
state.mkdir()
print(state)
"""


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
