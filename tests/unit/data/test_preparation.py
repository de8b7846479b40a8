"""Preparations that are cut off, and the byte ranges of files."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from mptrec_tf import DataError
from mptrec_tf.data import byte_rec, synthetic
from mptrec_tf.data.preparation import lines, parts
from mptrec_tf.data.preparation.jobs import Job, run_jobs


@pytest.mark.parametrize("text", ["a\nbb\n\nccc\n", "a\nbb\n\nccc", "one line of many bytes", "\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_each_line_belongs_to_one_range(tmp_path, monkeypatch, text, size, block):
    monkeypatch.setattr(lines, "RANGE_BYTES", size)
    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    path = tmp_path / "file"
    path.write_text(text)
    found, offsets = [], []
    for part in lines.split_file(path):
        for read in lines.read_blocks(part):
            for start, end in zip(read.starts, read.ends, strict=True):
                found.append(read.text[start:end].tobytes().decode())
            offsets.extend(read.offsets)
    expected = text.removesuffix("\n").split("\n")
    assert found == expected
    assert [lines.line_number(str(path), int(o)) for o in offsets] == [
        number + 1 for number in range(len(expected))
    ]


def test_texts_between():
    text = np.frombuffer(b"abcdefgh", np.uint8)
    found = lines.texts_between(text, np.array([1, 4, 4]), np.array([3, 4, 8]))
    assert found.to_pylist() == ["bc", "", "efgh"]


def test_draws_are_uniform_independent_and_change_with_the_seed():
    offsets = np.cumsum(np.random.default_rng(0).integers(40, 60, 100_000))
    one, other = parts.draw(offsets, 0), parts.draw(offsets, 1)
    for drawn in (one, other):
        shares, _ = np.histogram(drawn, bins=10, range=(0, 1))
        assert np.abs(shares / 10_000 - 1).max() < 0.05
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.02


def test_jobs_that_are_done_are_not_done_again(tmp_path, without_beam):
    done = []

    def do(argument):
        if argument == "bad" and "bad" not in done:
            done.append(argument)
            raise DataError("a wrong value")
        done.append(argument)
        return {"of": argument}

    todo = [Job("a", 1, "good"), Job("b", 1, "bad"), Job("c", 1, "later")]
    with pytest.raises(DataError, match=r"^a wrong value$"):
        run_jobs(todo, do, tmp_path)
    assert done == ["good", "bad"]
    assert run_jobs(todo, do, tmp_path) == [{"of": "good"}, {"of": "bad"}, {"of": "later"}]
    assert done == ["good", "bad", "bad", "later"]


KILLED = """\
import os, signal, sys
from mptrec_tf.data import byte_rec
from mptrec_tf.data.preparation import lines, parts
lines.RANGE_BYTES = 60_000
write, written = byte_rec.write_rows, []
def slow(table, directory, name, file_format):
    if len(written) == 7:
        path = directory / f".partial-{name}.parquet"
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(name)
    write(table, directory, name, file_format)
byte_rec.write_rows = slow
byte_rec.prepare(sys.argv[1], sys.argv[2], progress=False)
"""


def test_a_killed_preparation_goes_on_and_nothing_half_written_has_a_final_name(
    tmp_path, monkeypatch, without_beam
):
    raw, out = tmp_path / "raw", tmp_path / "out"
    synthetic.generate_byte_rec(raw, 6000, progress=False)
    done = subprocess.run([sys.executable, "-c", KILLED, raw, out], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == [".partial"]
    results = list((out / ".partial/converting").glob("0*.json"))
    assert len(results) == 2
    before = {path: path.stat().st_mtime_ns for path in results}

    monkeypatch.setattr(lines, "RANGE_BYTES", 60_000)
    noted = []
    write = byte_rec.write_rows
    monkeypatch.setattr(
        byte_rec, "write_rows", lambda *given: (noted.append(given[2]), write(*given))[1]
    )
    times = {}
    finish = byte_rec.Preparation.finish

    def note_times(self, *given):
        times.update({path: path.stat().st_mtime_ns for path in before if path.exists()})
        return finish(self, *given)

    monkeypatch.setattr(byte_rec.Preparation, "finish", note_times)
    summary = byte_rec.prepare(raw, out, progress=False)
    assert times == before
    assert not any(name.endswith(("-00000", "-00001")) for name in noted)
    assert sum(summary["rows"].values()) == 6000
    assert not list(out.rglob("*partial*"))
    assert sorted(path.name for path in out.iterdir()) == [
        "config.yaml", "summary.json", "test", "train", "validation", "vocabularies",
    ]  # fmt: skip

    uncut = byte_rec.prepare(raw, tmp_path / "uncut", progress=False)
    assert summary["rows"] == uncut["rows"]
    assert summary["vocabularies"] == uncut["vocabularies"]


def test_a_finished_preparation_is_not_done_again_and_never_overwritten(tmp_path, without_beam):
    raw, out = tmp_path / "raw", tmp_path / "out"
    synthetic.generate_byte_rec(raw, 500, progress=False)
    first = byte_rec.prepare(raw, out, progress=False)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert byte_rec.prepare(raw, out, progress=False) == json.loads(json.dumps(first))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps
    with pytest.raises(DataError, match=r"holds 'summary.json' of other files or settings"):
        byte_rec.prepare(raw, out, seed=1, progress=False)


def test_a_preparation_with_other_settings_starts_over(tmp_path, without_beam):
    raw, out = tmp_path / "raw", tmp_path / "out"
    synthetic.generate_byte_rec(raw, 500, progress=False)
    (out / ".partial/converting").mkdir(parents=True)
    (out / ".partial/plan.json").write_text("{}")
    (out / ".partial/converting/00000.json").write_text('{"rows": {"train": 9}}')
    assert sum(byte_rec.prepare(raw, out, progress=False)["rows"].values()) == 500


def test_progress_is_told_on_stderr(tmp_path, capsys):
    synthetic.generate_byte_rec(tmp_path / "raw", 500)
    byte_rec.prepare(tmp_path / "raw", tmp_path / "out")
    told = capsys.readouterr().err
    for label in ("synthetic_final_track2_train.txt", "converting", "vocabularies"):
        assert f"{label}: 100%" in told
