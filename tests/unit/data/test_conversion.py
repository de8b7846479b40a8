import datetime
import gzip
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mptrec_tf import CategoricalFeature, DataError, MultiValuedFeature, NumericFeature
from mptrec_tf.data import convert, read_chunks, readers
from mptrec_tf.data.columns import as_floats, as_lists, as_strings

ROWS = {
    "age": [31.5, None, 7.0],
    "city": ["Oslo", None, "São\nPaulo"],
    "count": [1, 2, None],
    "tags": [["a", "b"], [], ["c"]],
}
FEATURES = [NumericFeature("age"), CategoricalFeature("city"), CategoricalFeature("count")]
FEATURES += [MultiValuedFeature("tags")]


def assert_holds_rows(path):
    age, city, count, tags = [], [], [], []
    for table, _ in read_chunks(path, FEATURES):
        age.extend(as_floats(table["age"], "age", ""))
        city.extend(as_strings(table["city"], "city", "").to_pylist())
        count.extend(as_strings(table["count"], "count", "").to_pylist())
        tags.extend(as_lists(table["tags"], "tags", "|", "").to_pylist())
    np.testing.assert_array_equal(age, [31.5, np.nan, 7.0])
    assert city == ROWS["city"]
    assert count == ["1", "2", None]
    assert tags == ROWS["tags"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.tfrecord", "rows.tfrecord.gz"])
@pytest.mark.parametrize("chunk_rows", [1, 100])
def test_what_is_written_reads_back_the_same(tmp_path, monkeypatch, name, chunk_rows):
    monkeypatch.setattr(readers, "CHUNK_ROWS", chunk_rows)
    path = tmp_path / "new" / name
    source = pa.table(ROWS)  # with one type for each column, also where a chunk is empty
    assert convert(source, path, progress=False) == 3
    assert_holds_rows(path)
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_parquet_to_tfrecord_and_csv_to_parquet(tmp_path):
    convert(pa.table(ROWS), tmp_path / "a.parquet", progress=False)
    convert(tmp_path / "a.parquet", tmp_path / "b.tfrecord.gz", progress=False)
    assert_holds_rows(tmp_path / "b.tfrecord.gz")
    assert gzip.decompress((tmp_path / "b.tfrecord.gz").read_bytes())
    (tmp_path / "c.csv").write_text(
        'age,city,count,tags\n31.5,Oslo,1,a|b\n,,2,\n7,"São\nPaulo",,c\n'
    )
    convert(tmp_path / "c.csv", tmp_path / "c.parquet", progress=False)
    table = pa.parquet.read_table(tmp_path / "c.parquet")
    assert table.to_pydict() == {
        "age": ["31.5", None, "7"],
        "city": ROWS["city"],
        "count": ["1", "2", None],
        "tags": ["a|b", None, "c"],
    }


def test_tfrecord_to_parquet_has_its_columns_in_a_fixed_order(tmp_path):
    rows = {name: ROWS[name] for name in ("city", "age", "count")}
    convert(pa.table(rows), tmp_path / "a.tfrecord", progress=False)
    convert(tmp_path / "a.tfrecord", tmp_path / "a.parquet", progress=False)
    table = pa.parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["age", "city", "count"]
    assert as_strings(table["city"], "city", "").to_pylist() == ROWS["city"]


NUMBERS = {
    "id": pa.array([16777217.0, -3.0, None, 2.0**53], pa.float64()),
    "ids": pa.array([[16777217.0, 5.0], [], None, [7.0]], pa.list_(pa.float64())),
    "number": pa.array([0.1, -1e300, float("nan"), float("inf")], pa.float64()),
    "single": pa.array([0.1, -2.5, None, 3.0], pa.float32()),
}


def test_numbers_and_ids_from_a_tfrecord_are_those_of_parquet(tmp_path):
    features = [NumericFeature("number"), NumericFeature("single")]
    features += [CategoricalFeature("id"), MultiValuedFeature("ids")]
    read = []
    for name in ("rows.parquet", "rows.tfrecord"):
        convert(pa.table(NUMBERS), tmp_path / name, progress=False)
        (chunk,) = read_chunks(tmp_path / name, features)
        table = chunk.table
        numbers = [as_floats(table[name], name, "") for name in ("id", "number", "single")]
        ids = as_strings(table["id"], "id", "").to_pylist()
        lists = as_lists(table["ids"], "ids", "|", "").to_pylist()
        read.append((numbers, ids, lists))
    (numbers, *texts), (others, *other_texts) = read
    np.testing.assert_array_equal(numbers, others)
    assert texts == other_texts
    assert texts[0] == ["16777217", "-3", None, "9007199254740992"]
    assert others[1][0] == 0.1
    assert pa.types.is_floating(table["single"].type)  # no text where none is needed


def test_decimals_keep_every_digit_in_a_tfrecord(tmp_path):
    ids, lists = [16777217, None, 10**30 + 1], [[16777217], [], [3, 4]]
    rows = pa.table(
        {
            "id": pa.array(ids, pa.decimal128(38, 0)),
            "ids": pa.array(lists, pa.list_(pa.decimal128(38, 0))),
            "price": pa.array([Decimal("0.10"), Decimal("3.00"), None], pa.decimal128(9, 2)),
        }
    )
    convert(rows, tmp_path / "rows.tfrecord", progress=False)
    features = [CategoricalFeature("id"), MultiValuedFeature("ids"), NumericFeature("price")]
    (chunk,) = read_chunks(tmp_path / "rows.tfrecord", features)
    for table in (rows, chunk.table):
        assert as_strings(table["id"], "id", "").to_pylist() == ["16777217", None, str(10**30 + 1)]
        found = as_lists(table["ids"], "ids", "|", "").to_pylist()
        assert found == [["16777217"], [], ["3", "4"]]
        np.testing.assert_array_equal(as_floats(table["price"], "price", ""), [0.1, 3, np.nan])


def test_a_column_of_whole_numbers_in_one_file_and_of_others_in_the_next(tmp_path):
    pa.parquet.write_table(pa.table({"n": [1, 2]}), tmp_path / "a.parquet")
    pa.parquet.write_table(pa.table({"n": [0.1, None]}), tmp_path / "b.parquet")
    convert(tmp_path / "[ab].parquet", tmp_path / "c.tfrecord", progress=False)
    (chunk,) = read_chunks(tmp_path / "c.tfrecord", [NumericFeature("n")])
    np.testing.assert_array_equal(as_floats(chunk.table["n"], "n", ""), [1, 2, 0.1, np.nan])


def parquet_parts(directory, *tables):
    for number, table in enumerate(tables):
        pa.parquet.write_table(pa.table(table), directory / f"part-{number}.parquet")
    return directory / "part-*.parquet"


def test_a_column_that_is_empty_in_the_first_rows_has_the_type_of_later_ones(tmp_path):
    parts = parquet_parts(
        tmp_path,
        {"a": [None], "b": [None], "tags": [[]], "never": [None]},
        {"a": [1], "b": [None], "tags": [None], "never": [None]},
        {"a": [None], "b": ["x"], "tags": [["y"]], "never": [None]},
    )
    assert convert(parts, tmp_path / "whole.parquet", progress=False) == 3
    table = pa.parquet.read_table(tmp_path / "whole.parquet")
    assert table.to_pydict() == {
        "a": [None, 1, None],
        "b": [None, None, "x"],
        "tags": [[], None, ["y"]],
        "never": [None, None, None],
    }


def test_the_first_rows_of_a_tfrecord_may_be_empty_too(tmp_path, monkeypatch):
    rows = {"city": [None, None, "Oslo"], "age": [7, None, None]}
    convert(pa.table(rows), tmp_path / "a.tfrecord", progress=False)
    monkeypatch.setattr(readers, "CHUNK_ROWS", 1)
    convert(tmp_path / "a.tfrecord", tmp_path / "a.parquet", progress=False)
    table = pa.parquet.read_table(tmp_path / "a.parquet")
    assert table.to_pydict() == {"age": [7, None, None], "city": [None, None, b"Oslo"]}


def test_lists_of_a_tfrecord_become_lists_of_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 1)
    convert(pa.table(ROWS), tmp_path / "a.tfrecord", progress=False)
    convert(tmp_path / "a.tfrecord", tmp_path / "a.parquet", progress=False)
    assert_holds_rows(tmp_path / "a.parquet")


def test_lists_that_begin_after_single_values_were_written_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 1)
    convert({"tags": [["a"], ["b", "c"]]}, tmp_path / "a.tfrecord", progress=False)
    with pytest.raises(DataError, match=r"a\.tfrecord: not the columns of the rows before"):
        convert(tmp_path / "a.tfrecord", tmp_path / "a.parquet", progress=False)


def test_a_column_of_numbers_and_then_of_lists_is_refused(tmp_path):
    parts = parquet_parts(tmp_path, {"a": [1]}, {"a": [[1, 2]]})
    with pytest.raises(DataError, match=r"part-1\.parquet: not the columns of the rows before"):
        convert(parts, tmp_path / "whole.parquet", progress=False)


def broken_gzip(directory):
    """Some chunks can be read before the break."""
    path = directory / "source.csv.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"123456789\n" * 20_000 + b" " * (16 << 20))[:-9])
    return path


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (broken_gzip, "rows.parquet", "truncated or broken"),
        (broken_gzip, "rows.tfrecord", "truncated or broken"),
        (lambda _: {"a": [1]}, "rows.csv", "write to .parquet, .tfrecord or .tfrecord.gz"),
        (lambda _: {"a": []}, "rows.parquet", "there are no rows"),
        (
            lambda _: {"a": [datetime.date(2024, 1, 1)]},
            "rows.tfrecord",
            r"column 'a': a TFRecord cannot hold datetime.date\(2024, 1, 1\)",
        ),
        (
            lambda _: {"a": [["x", None]]},
            "rows.tfrecord.gz",
            r"column 'a': a TFRecord cannot hold \['x', None\]",
        ),
    ],
)
def test_after_a_failure_the_old_file_stands_and_nothing_else(tmp_path, source, name, message):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match=message):
        convert(source(tmp_path), out / name, progress=False)
    assert list(out.iterdir()) == []
    (out / name).write_bytes(b"old")
    with pytest.raises(DataError, match=message):
        convert(source(tmp_path), out / name, progress=False)
    assert [file.name for file in out.iterdir()] == [name]
    assert (out / name).read_bytes() == b"old"


def test_files_with_other_columns_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("x,z\n1,2\n")
    with pytest.raises(DataError, match=r"b\.csv: not the columns of the rows before"):
        convert([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "c.parquet", progress=False)
    assert not (tmp_path / "c.parquet").exists()
