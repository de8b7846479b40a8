"""Ali-CCP against a plain join in Python, on synthetic files and on lines made by hand."""

import collections
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mptrec_tf import DataError, MultiValuedFeature
from mptrec_tf.config import Config
from mptrec_tf.data import ali_ccp, read_chunks, synthetic
from mptrec_tf.data.ali_ccp import joining
from mptrec_tf.data.preparation import lines
from mptrec_tf.spec.parsing import dump

ROOT = pathlib.Path(__file__).resolve().parents[3]
SINGLE = [
    "101", "121", "122", "124", "125", "126", "127", "128", "129", "205", "206", "207", "216",
    "508", "509", "702", "853", "301",
]  # fmt: skip
LISTED = ["109_14", "210"]


@pytest.fixture
def small_steps(monkeypatch):
    """Many ranges, blocks and partitions also of small files."""
    monkeypatch.setattr(lines, "RANGE_BYTES", 30_000)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 7_000)
    monkeypatch.setattr(joining, "PARTITION_BYTES", 100_000)
    monkeypatch.setattr(joining, "GROUP_ROWS", 50)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    directory = tmp_path_factory.mktemp("raw")
    synthetic.generate_ali_ccp(
        directory, 2000, test_rows=300, seed=3, history=2, rates={"click": 0.3}, progress=False
    )
    return directory


def fields_of(text):
    found = collections.defaultdict(list)
    for feature in text.split("\x01") if text else []:
        field, rest = feature.split("\x02")
        found[field].append(rest.split("\x03")[0])
    return found


def joined_by_hand(directory, name):
    """Every row of a pair of files: labels, fields with one id, fields with several."""
    common, rows = {}, []
    with next(directory.glob(f"*common_features_{name}.csv")).open(newline="\n") as file:
        for line in file:
            index, _, text = line.rstrip("\r\n").split(",")
            common[index] = fields_of(text)
    with next(directory.glob(f"*sample_skeleton_{name}.csv")).open(newline="\n") as file:
        for line in file:
            _, click, conversion, index, _, text = line.rstrip("\r\n").split(",")
            if (click, conversion) == ("0", "1"):
                continue
            found = {**common[index], **fields_of(text)}
            one = [found[field][-1] if field in found else None for field in SINGLE]
            several = [tuple(found.get(field, ())) for field in LISTED]
            rows.append((int(click), int(conversion), *one, *several))
    return rows


def prepared_rows(output, part):
    table = pa.concat_tables(
        pa.parquet.read_table(file) for file in sorted((output / part).glob("*.parquet"))
    )
    columns = [table[name].to_pylist() for name in ("click", "conversion")]
    columns += [table[f"field_{field}"].to_pylist() for field in SINGLE]
    columns += [[tuple(v or ()) for v in table[f"field_{f}"].to_pylist()] for f in LISTED]
    return list(zip(*columns, strict=True))


def test_rows_are_those_of_a_plain_join(raw, tmp_path, small_steps):
    summary = ali_ccp.prepare(raw, tmp_path / "out", multivalued=LISTED, progress=False)
    train, validation, test = (
        prepared_rows(tmp_path / "out", part) for part in ("train", "validation", "test")
    )
    expected = joined_by_hand(raw, "train")
    assert collections.Counter(train + validation) == collections.Counter(expected)
    assert collections.Counter(test) == collections.Counter(joined_by_hand(raw, "test"))
    assert 0.07 < len(validation) / len(expected) < 0.13
    assert summary["rows"] == {
        "train": len(train),
        "validation": len(validation),
        "test": len(test),
    }
    assert summary["positives"]["train"]["click"] == sum(row[0] for row in train)
    assert len(list((tmp_path / "out/train").iterdir())) > 2  # so there were several partitions

    ids = collections.Counter(row[2 + SINGLE.index("205")] for row in train)
    assert summary["vocabularies"]["field_205"] == {
        "ids": len(ids),
        "kept": sum(count > 10 for count in ids.values()),
        "values": len(train),
        "unknown": sum(count for count in ids.values() if count <= 10),
    }
    table = pa.parquet.read_table(tmp_path / "out/vocabularies/field_205.parquet").to_pydict()
    assert list(zip(table["id"], table["count"], strict=True)) == sorted(
        ids.items(), key=lambda item: (-item[1], item[0])
    )
    listed = collections.Counter(value for row in train for value in row[-1])
    assert summary["vocabularies"]["field_210"]["values"] == listed.total()


def test_the_split_does_not_depend_on_how_files_are_cut(raw, tmp_path, monkeypatch, without_beam):
    ali_ccp.prepare(raw, tmp_path / "whole", multivalued=LISTED, progress=False)
    monkeypatch.setattr(lines, "RANGE_BYTES", 100_000)
    monkeypatch.setattr(joining, "PARTITION_BYTES", 90_000)
    ali_ccp.prepare(raw, tmp_path / "cut", multivalued=LISTED, progress=False)
    one, other = (prepared_rows(tmp_path / name, "validation") for name in ("whole", "cut"))
    assert sorted(map(str, one)) == sorted(map(str, other))


def test_a_join_that_was_cut_off_goes_on(raw, tmp_path, monkeypatch, small_steps, without_beam):
    whole = ali_ccp.prepare(raw, tmp_path / "whole", multivalued=LISTED, progress=False)
    write, written = joining.write_rows, []

    def stops(*given):
        written.append(given[2])
        if len(written) == 30:
            raise OSError("no space left on device")
        write(*given)

    monkeypatch.setattr(joining, "write_rows", stops)
    with pytest.raises(OSError, match="no space"):
        ali_ccp.prepare(raw, tmp_path / "cut", multivalued=LISTED, progress=False)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [".partial"]
    before = set(written)
    monkeypatch.setattr(
        joining, "write_rows", lambda *given: (written.append(given[2]), write(*given))
    )
    summary = ali_ccp.prepare(raw, tmp_path / "cut", multivalued=LISTED, progress=False)
    again = [name for name in written[30:] if name in before]
    assert 0 < len(again) < len(before)  # the partition that was cut off, not those before
    assert summary == whole
    for part in ("train", "validation", "test"):
        one, other = (prepared_rows(tmp_path / name, part) for name in ("whole", "cut"))
        assert one == other


def test_tfrecord_holds_the_same_rows(raw, tmp_path, without_beam):
    for file_format in ("parquet", "tfrecord"):
        ali_ccp.prepare(
            raw, tmp_path / file_format, multivalued=LISTED, file_format=file_format, progress=False
        )
    features, tasks = ali_ccp.spec(multivalued=LISTED).features, ali_ccp.TASKS
    parquet, tfrecord = (
        pa.concat_tables(chunk.table for chunk in read_chunks(tmp_path / name, features, tasks))
        for name in ("parquet/test/*.parquet", "tfrecord/test/*.tfrecord.gz")
    )
    assert parquet.num_rows == tfrecord.num_rows == 300

    def plain(table, name):
        texts = []
        for value in table[name].to_pylist():
            values = value if isinstance(value, list) else [value]
            texts.append([v.decode() if isinstance(v, bytes) else str(v) for v in values])
        return texts

    for name in parquet.column_names:
        assert plain(parquet, name) == plain(tfrecord, name)


GOOD = {
    "common_features_train.csv": ["u1,2,101\x027\x031.0\x01121\x028\x031.0"],
    "common_features_test.csv": ["u1,1,101\x027\x031.0"],
    "sample_skeleton_train.csv": [
        f"{number},1,0,u1,2,205\x02{number}\x031.0\x01301\x022\x031.0" for number in range(60)
    ],
    "sample_skeleton_test.csv": ["1,0,0,u1,1,205\x023\x031.0"],
}
SAMPLES = "sample_skeleton_train.csv"


def write(directory, changes=None, end="\n"):
    for name, rows in {**GOOD, **(changes or {})}.items():
        (directory / name).write_bytes("".join(row + end for row in rows).encode("latin-1"))
    return directory


def with_line(line, name=SAMPLES):
    """The good lines with one in place of the second."""
    rows = list(GOOD[name])
    rows[1:2] = [line]
    return {name: rows}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,0,0,u1", r"sample_skeleton_train.csv, line 2: 4 columns, expected 6"),
        ("1,0,0,u1,1,205\x023\x031,0", "line 2: 7 columns, expected 6"),
        ("1,2,0,u1,1,205\x023\x031.0", r"line 2: click is '2', expected 0 or 1"),
        ("1,1,,u1,1,205\x023\x031.0", r"line 2: conversion is '', expected 0 or 1"),
        ("1,1,0,u9,1,205\x023\x031.0", "line 2: common_feature_index is 'u9', which is not in"),
        ("1,1,0,u1,2,205\x023\x031.0", "line 2: count is '2', but there are 1 features"),
        ("1,1,0,u1,x,205\x023\x031.0", "line 2: count is 'x', but there are 1 features"),
        ("1,1,0,u1,1,205\x033\x021.0", r"line 2: the features are not a list.*205\\x033"),
        ("1,1,0,u1,2,205\x023\x031.0\x01206", "line 2: the features are not a list"),
        ("1,1,0,u1,1,205\x02\x031.0", "line 2: the features are not a list"),
        ("1,1,0,u1,2,205\x023\x03\x01206\x021\x031.0", "line 2: the features are not a list"),
        ("1\x02,1,0,u1,1,205\x023\x031.0", "line 2: the features are not a list"),
        ("", "line 2: the line is empty"),
        ("1,1,0,u1,1,205\x02\xff\x031.0", "line 2: the line is not UTF-8"),
    ],
)
def test_a_bad_line_is_named_and_can_be_skipped(tmp_path, line, message, without_beam):
    raw = write(tmp_path, with_line(line))
    with pytest.raises(DataError, match=message):
        ali_ccp.prepare(raw, tmp_path / "out", progress=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".partial"]
    summary = ali_ccp.prepare(raw, tmp_path / "out", max_bad_lines=1, progress=False)
    assert summary["bad"] == 1
    assert "line 2" in summary["told"][0]
    assert summary["rows"]["train"] + summary["rows"]["validation"] == 59


def test_bad_lines_of_all_phases_count_together(tmp_path, without_beam):
    broken, unknown = "1,0,0,u1", "1,1,0,u9,1,205\x023\x031.0"  # found while reading, and joining
    raw = write(tmp_path, {SAMPLES: [broken, unknown, *GOOD[SAMPLES]]})
    message = "(?s)2 bad lines, allowed are 1:.*line 1: 4 columns.*line 2: common_feature_index"
    for _ in range(2):  # also where the work goes on
        with pytest.raises(DataError, match=message):
            ali_ccp.prepare(raw, tmp_path / "out", max_bad_lines=1, progress=False)
    summary = ali_ccp.prepare(raw, tmp_path / "out", max_bad_lines=2, progress=False)
    assert summary["bad"] == 2


def test_a_common_index_given_twice(tmp_path, without_beam):
    name = "common_features_train.csv"
    raw = write(tmp_path, {name: GOOD[name] * 2})
    with pytest.raises(DataError, match=f"{name}, line 2: common_feature_index 'u1' is given twi"):
        ali_ccp.prepare(raw, tmp_path / "out", progress=False)


def test_too_few_rows_for_the_parts(tmp_path, without_beam):
    raw = write(tmp_path, {SAMPLES: GOOD[SAMPLES][:2]})
    with pytest.raises(DataError, match="there are no rows for validation"):
        ali_ccp.prepare(raw, tmp_path / "out", progress=False)


def test_conversions_without_a_click_are_dropped_and_the_last_of_several_ids_counts(
    tmp_path, without_beam
):
    line = "1,0,1,u1,1,205\x023\x031.0"
    twice = "9,1,1,u1,3,205\x023\x031.0\x01205\x02four\x031.0\x01121\x02own\x031.0"
    thrice = "8,1,1,u1,3,205\x021\x031.0\x01205\x022\x031.0\x01205\x02five\x031.0"
    rows = [*GOOD[SAMPLES], line, twice, thrice]
    raw = write(tmp_path, {SAMPLES: rows}, end="\r\n")
    summary = ali_ccp.prepare(raw, tmp_path / "out", seed=1, progress=False)
    assert summary["dropped"] == 1
    assert summary["repeated"] == {"205": 2}  # lines, not ids
    assert not summary["synthetic"]
    files = [*(tmp_path / "out").glob("[tv]*/[tv]*.parquet")]
    found = [row for file in files for row in pa.parquet.read_table(file).to_pylist()]
    (last,) = [row for row in found if row["field_205"] == "four"]
    assert (last["click"], last["conversion"]) == (1, 1)
    assert (last["field_101"], last["field_121"], last["field_301"]) == ("7", "own", None)


def test_files_that_are_missing_or_twice(tmp_path):
    raw = write(tmp_path)
    (raw / "synthetic_sample_skeleton_test.csv").write_text("")
    with pytest.raises(DataError, match=r"expected one file 'sample_skeleton_test.csv'"):
        ali_ccp.prepare(raw, tmp_path / "out")
    (raw / "synthetic_sample_skeleton_test.csv").unlink()
    (raw / "sample_skeleton_test.csv").unlink()
    with pytest.raises(DataError, match="it holds neither"):
        ali_ccp.prepare(raw, tmp_path / "out")


def test_unknown_fields_and_formats(tmp_path):
    with pytest.raises(DataError, match=r"'150_15'.*expected some of .*'150_14'"):
        ali_ccp.prepare(tmp_path, tmp_path / "out", multivalued=["150_15"])
    with pytest.raises(DataError, match=r"file format 'csv': expected one of \['parquet'"):
        ali_ccp.prepare(write(tmp_path), tmp_path / "out", file_format="csv")


def test_the_shipped_configuration_is_the_written_one(tmp_path, monkeypatch, without_beam):
    monkeypatch.chdir(tmp_path)
    ali_ccp.prepare(write(tmp_path), "data/ali-ccp", progress=False)
    written = Config.from_yaml("data/ali-ccp/config.yaml")
    shipped = Config.from_yaml(ROOT / "configs/ali_ccp.yaml")
    assert dump(written) == dump(shipped)
    assert {feature.min_count for feature in shipped.features} == {11}


def test_multivalued_fields_are_features_of_the_written_configuration(raw, tmp_path, without_beam):
    ali_ccp.prepare(raw, tmp_path / "out", multivalued=["210"], min_count=3, progress=False)
    features = Config.from_yaml(tmp_path / "out/config.yaml").features
    assert features[-1] == MultiValuedFeature("field_210", min_count=4, max_length=50)
    text = (tmp_path / "out/config.yaml").read_text()
    assert text.startswith("# Synthetic rows")
    assert json.loads((tmp_path / "out/summary.json").read_text())["synthetic"]
    assert all(file.name.startswith("synthetic_") for file in (tmp_path / "out/train").iterdir())


def test_lines_are_parsed_as_by_hand_whatever_their_lengths():
    rng = np.random.default_rng(0)
    names, rows = ["101", "205", "12345678", "123456789", "2", "109_14"], []
    for number in range(200):
        chosen = rng.choice(names, rng.integers(0, 9))
        several = [f"{f}\x02{rng.integers(1e6)}\x03{rng.random():.3f}" for f in chosen]
        rows.append(f"i{number},{len(several)}," + "\x01".join(several))
    data = "\n".join(rows).encode()
    block = lines._block(data, 0)
    wanted = ["101", "205", "12345678", "2"]
    bad = lines.BadLines("none", 0)
    parsed = ali_ccp.joining.parse_block(block, ("index", "count"), wanted, ["109_14"], bad)
    for number, row in enumerate(rows):
        found = fields_of(row.split(",")[2])
        for field in wanted:
            expected = found[field][-1] if field in found else None
            assert parsed.fields[field][number].as_py() == expected
        assert parsed.fields["109_14"][number].as_py() == found.get("109_14", [])
        assert data[parsed.offsets[number] :].startswith(row.encode())
