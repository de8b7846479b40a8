"""Lines of results on disk."""

import json
import subprocess
import sys

import pytest

from mptrec_tf.errors import ModelError
from mptrec_tf.experiments import Results


def test_lines_are_kept_in_order_and_whole(tmp_path):
    results = Results(tmp_path / "docs" / "a.jsonl")
    assert results.lines() == []
    lines = [{"digest": "1", "name": "für"}, {"digest": "2", "values": [1.5, None]}]
    for line in lines:
        results.add(line)
    assert [json.loads(text) for text in results.path.read_text().splitlines()] == lines
    assert Results(results.path).lines() == lines
    assert [path.name for path in results.path.parent.iterdir()] == ["a.jsonl"]


def test_processes_that_add_take_turns(tmp_path):
    program = (
        "import sys; from mptrec_tf.experiments.store import Results\n"
        "for number in range(40): Results('a.jsonl').add({'by': sys.argv[1], 'number': number})"
    )
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen([*command, name], cwd=tmp_path) for name in "pq"]
    assert [process.wait() for process in running] == [0, 0]
    lines = Results(tmp_path / "a.jsonl").lines()
    for name in "pq":
        assert [line["number"] for line in lines if line["by"] == name] == list(range(40))


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"digest":"1"}\n{"dig\n')
    with pytest.raises(ModelError, match=r"a\.jsonl: line 2 is no JSON"):
        Results(tmp_path / "a.jsonl").lines()
