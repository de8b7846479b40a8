"""Byte-Rec against a plain reading of the raw file."""

import collections
import pathlib

import pandas as pd
import pyarrow.parquet
import pytest

from mptrec_tf import DataError
from mptrec_tf.config import Config
from mptrec_tf.data import byte_rec, synthetic
from mptrec_tf.data.byte_rec import parse_block
from mptrec_tf.data.preparation import lines
from mptrec_tf.data.preparation.lines import BadLines, read_blocks, split_file
from mptrec_tf.spec.parsing import dump

ROOT = pathlib.Path(__file__).resolve().parents[3]
FILE = "final_track2_train.txt"
ROW = "0\t109\t3867\t633\t-1\t0\t0\t1\t5\t678\t53086557\t10"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    directory = tmp_path_factory.mktemp("raw")
    synthetic.generate_byte_rec(directory, 5000, seed=2, progress=False)
    return directory


def test_rows_are_those_of_the_file_split_80_10_10(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "RANGE_BYTES", 50_000)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 9_000)
    summary = byte_rec.prepare(raw, tmp_path, min_count=2, progress=False)
    (path,) = raw.glob("*.txt")
    expected = pd.read_csv(path, sep="\t", header=None, names=byte_rec.COLUMNS)
    parts = {
        part: pd.concat(map(pd.read_parquet, sorted((tmp_path / part).iterdir())))
        for part in ("train", "validation", "test")
    }
    assert {name: len(rows) for name, rows in parts.items()} == summary["rows"]
    together = pd.concat(parts.values()).sort_values("time")
    pd.testing.assert_frame_equal(
        together.reset_index(drop=True).astype("int64"), expected.astype("int64")
    )
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert abs(len(parts[name]) / 5000 - share) < 0.015
        for label in ("finish", "like"):
            assert summary["positives"][name][label] == parts[name][label].sum()
    assert len(list((tmp_path / "train").iterdir())) > 3  # so there were several ranges
    for name in byte_rec.FEATURES:
        counts = collections.Counter(parts["train"][name])
        assert summary["vocabularies"][name]["ids"] == len(counts)
        assert summary["vocabularies"][name]["kept"] == sum(c > 2 for c in counts.values())
    table = pyarrow.parquet.read_table(tmp_path / "vocabularies/item_id.parquet").to_pydict()
    counts = collections.Counter(parts["train"]["item_id"].astype(str))
    assert list(zip(table["id"], table["count"], strict=True)) == sorted(
        counts.items(), key=lambda item: (-item[1], item[0])
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (ROW + "\t1", "13 columns, expected 12"),
        (ROW.rsplit("\t", 1)[0], "11 columns, expected 12"),
        (ROW.replace("3867", "38x"), "column 'item_id' is '38x', expected a whole number"),
        (ROW.replace("678", ""), "column 'device' is '', expected a whole number"),
        (ROW.replace("678", "0x10"), "column 'device' is '0x10', expected a whole number"),
        (ROW.replace("678", " 678"), "column 'device' is ' 678', expected a whole number"),
        (ROW.replace("678", str(2**63)), f"column 'device' is '{2**63}', expected a whole number"),
        (ROW.replace("678", "6.5"), "column 'device' is '6.5', expected a whole number"),
        (ROW.replace("\t0\t0\t1\t", "\t0\t3\t1\t"), "column 'finish' is '3', expected 0 or 1"),
        (ROW.replace("\t0\t0\t1\t", "\t0\t0\t-1\t"), "column 'like' is '-1', expected 0 or 1"),
        (ROW[:-2] + "-2", "column 'duration_time' is '-2', expected 0 or more"),
        ("", "the line is empty"),
        ("\udcff" + ROW, "the line is not UTF-8"),
    ],
)
def test_a_bad_line_is_named_and_can_be_skipped(tmp_path, line, message, without_beam):
    rows = [ROW] * 60
    rows[4] = line
    text = "\n".join(rows)  # and no line break at the end
    (tmp_path / FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=f"{FILE}, line 5: {message}"):
        byte_rec.prepare(tmp_path, tmp_path / "out", progress=False)
    summary = byte_rec.prepare(tmp_path, tmp_path / "out", max_bad_lines=1, progress=False)
    assert sum(summary["rows"].values()) == 59
    assert summary["bad"] == 1
    assert not summary["synthetic"]


def test_a_line_is_read_alike_beside_a_bad_one(tmp_path):
    rows = [ROW.replace("678", text) for text in ("007", "1" * 19, str(2**63 - 1), "-5")]
    for given in (rows, [*rows, ROW.replace("678", "x")]):
        path = tmp_path / FILE
        path.write_text("\n".join(given))
        (block,) = read_blocks(split_file(path)[0])
        table, _ = parse_block(block, BadLines(str(path), 1))
        assert table["device"].to_pylist() == [7, int("1" * 19), 2**63 - 1, -5]


def test_more_bad_lines_than_allowed(tmp_path, without_beam):
    (tmp_path / FILE).write_text("\n".join([ROW, "1", "2", ROW, "3"]))
    with pytest.raises(DataError, match=r"3 bad lines, allowed are 2:(.*\n)+.*line 5: 1 columns"):
        byte_rec.prepare(tmp_path, tmp_path / "out", max_bad_lines=2, progress=False)


def test_bad_lines_of_several_ranges_count_together(tmp_path, monkeypatch, without_beam):
    monkeypatch.setattr(lines, "RANGE_BYTES", 100)
    (tmp_path / FILE).write_text("\n".join([ROW, "1", ROW, ROW, ROW, ROW, "3", ROW]))
    with pytest.raises(DataError, match="2 bad lines, allowed are 1"):
        byte_rec.prepare(tmp_path, tmp_path / "out", max_bad_lines=1, progress=False)


def test_an_empty_file(tmp_path):
    (tmp_path / FILE).write_text("")
    with pytest.raises(DataError, match=f"{FILE}: the file is empty"):
        byte_rec.prepare(tmp_path, tmp_path / "out", progress=False)


def test_the_shipped_configuration_is_the_written_one(tmp_path, monkeypatch, without_beam):
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_text("\n".join([ROW] * 60))
    byte_rec.prepare(tmp_path, "data/byte-rec", progress=False)
    written = Config.from_yaml("data/byte-rec/config.yaml")
    assert dump(written) == dump(Config.from_yaml(ROOT / "configs/byte_rec.yaml"))
