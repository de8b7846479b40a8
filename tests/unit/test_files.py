import json
import subprocess
import sys

import pytest

from mptrec_tf.errors import ModelError
from mptrec_tf.files import only_one, write_json, write_text, written_whole


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    file = tmp_path / "rows.tar.gz"
    file.write_text("old")
    with written_whole(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
        assert (partial.parent, partial.suffixes) == (tmp_path, [".tar", ".gz"])
        assert partial.name.startswith(".")  # which patterns like *.gz of a shell pass over
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "rows.txt"
    file.write_text("old")
    with pytest.raises(error), written_whole(file) as partial:
        partial.write_text("half")
        raise error
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_before_anything_is_written_is_the_one_that_is_raised(tmp_path):
    with pytest.raises(ValueError, match="early"), written_whole(tmp_path / "rows.txt"):
        raise ValueError("early")


def test_texts_and_plain_data_come_back(tmp_path):
    write_text(tmp_path / "text", "é\n")
    assert (tmp_path / "text").read_bytes() == "é\n".encode()
    write_json(str(tmp_path / "plain.json"), {"a": [1, "é"]})
    assert json.loads((tmp_path / "plain.json").read_text()) == {"a": [1, "é"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.json", "text"]


def test_one_process_at_a_time(tmp_path):
    with (
        only_one(tmp_path / "runs"),
        pytest.raises(ModelError, match="runs: another process works there"),
        only_one(tmp_path / "runs"),
    ):
        pass
    with only_one(tmp_path / "runs"):
        pass


def test_a_killed_process_leaves_a_directory_to_others(tmp_path):
    program = (
        "import time; from mptrec_tf.files import only_one\n"
        "with only_one('.'): print('in', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ModelError, match="another process"), only_one(tmp_path):
            pass
        other.kill()
        other.wait()
        with only_one(tmp_path):
            pass
