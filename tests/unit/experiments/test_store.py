"""Lines of results on disk."""

import json
import subprocess
import sys

import pytest
import small_experiments

from mptrec_tf.errors import ModelError
from mptrec_tf.experiments import Results


def test_lines_are_kept_in_order_and_whole(tmp_path):
    results = Results(tmp_path / "docs" / "a.jsonl")
    assert results.lines() == []
    lines = [
        small_experiments.line("f\u2028ür", 0, {"click": 0.5}),
        small_experiments.line("für", 1, {}, tuned={"values": [1.5, None]}),
    ]
    for line in lines:
        results.add(line)
    assert [json.loads(text) for text in results.path.read_text().split("\n")[:-1]] == lines
    assert Results(results.path).lines() == lines
    assert [path.name for path in results.path.parent.iterdir()] == ["a.jsonl"]


def test_processes_that_add_take_turns(tmp_path):
    program = (
        "import json, sys; from mptrec_tf.experiments.store import Results\n"
        "line = json.loads(sys.argv[1]) | {'variant': sys.argv[2]}\n"
        "for number in range(40): Results('a.jsonl').add(line | {'seed': number})"
    )
    command = [sys.executable, "-c", program, json.dumps(small_experiments.line("", 0, {}))]
    running = [subprocess.Popen([*command, name], cwd=tmp_path) for name in "pq"]
    assert [process.wait() for process in running] == [0, 0]
    lines = Results(tmp_path / "a.jsonl").lines()
    for name in "pq":
        assert [line["seed"] for line in lines if line["variant"] == name] == list(range(40))


def test_a_broken_line_is_named(tmp_path):
    whole = json.dumps(small_experiments.line("a", 0, {}))
    (tmp_path / "a.jsonl").write_text(f'{whole}\n{{"dig\n')
    with pytest.raises(ModelError, match=r"a\.jsonl: line 2 is no JSON"):
        Results(tmp_path / "a.jsonl").lines()


@pytest.mark.parametrize("key", ["digest", "seed", "rows"])
def test_a_line_that_lacks_a_key_is_named(tmp_path, key):
    lines = [small_experiments.line("a", seed, {}) for seed in range(2)]
    del lines[1][key]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(ModelError, match=rf"a\.jsonl: line 2 lacks the keys \['{key}'\]"):
        Results(tmp_path / "a.jsonl").lines()


def test_a_line_that_is_there_is_not_added_again(tmp_path):
    results = Results(tmp_path / "a.jsonl")
    first = small_experiments.line("a", 0, {"click": 0.5})
    others = [first | change for change in ({"seed": 1}, {"new_tasks": ["buy"]}, {"digest": "b"})]
    for line in [first, *others, first, first | {"seconds": 1.0}]:
        results.add(line)
    assert results.lines() == [first, *others]
