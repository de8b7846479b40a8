import gzip
import os
import pathlib

import hypothesis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from mptrec_tf import CategoricalFeature, DataError, MultiValuedFeature, NumericFeature, Task
from mptrec_tf.data import readers
from mptrec_tf.data.columns import as_floats, as_lists, as_strings
from mptrec_tf.data.readers import needed_columns, read_chunks

FEATURES = [NumericFeature("age"), CategoricalFeature("city"), MultiValuedFeature("tags")]
TASKS = [Task("click", label="clicked", mask="seen")]
ROWS = {
    "age": [31.5, -2.0, None, 7.0],
    "city": ["Oslo", "São\nPaulo", None, 'a,"b"\t'],
    "tags": ["x|y", None, "z", "ü"],
    "clicked": [1, 0, None, 1],
    "seen": [1, 1, 0, 1],
    "unread": ["p", "q", "r", "s"],
}


def write_csv(path):
    separator = "\t" if ".tsv" in path.name else ","
    pd.DataFrame(ROWS).to_csv(path, index=False, sep=separator)


def write_parquet(path):
    pa.parquet.write_table(pa.table(ROWS | {"tags": [["x", "y"], None, ["z"], ["ü"]]}), path)


def write_tfrecord(path):
    def feature(value):
        if value is None:
            return tf.train.Feature()
        if isinstance(value, str):
            values = [part.encode() for part in value.split("|")]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for row in zip(*ROWS.values(), strict=True):
            cells = {name: feature(value) for name, value in zip(ROWS, row, strict=True)}
            example = tf.train.Example(features=tf.train.Features(feature=cells))
            writer.write(example.SerializeToString())


WRITERS = {
    "rows.csv": write_csv,
    "rows.csv.gz": write_csv,
    "rows.tsv": write_csv,
    "rows.v2.tsv.gz": write_csv,
    "rows.parquet": write_parquet,
    "rows.tfrecord": write_tfrecord,
    "rows.tfrecord.gz": write_tfrecord,
}


def read(source, *arguments, **options):
    return pa.concat_tables([c.table for c in read_chunks(source, *arguments, **options)])


def assert_holds_rows(table):
    assert set(table.column_names) == set(ROWS) - {"unread"}
    for name in ("age", "clicked", "seen"):
        expected = np.array(ROWS[name], np.float64)
        np.testing.assert_array_equal(as_floats(table[name], name, ""), expected)
    assert as_strings(table["city"], "city", "").to_pylist() == ROWS["city"]
    tags = as_lists(table["tags"], "tags", "|", "").to_pylist()
    assert [row or [] for row in tags] == [["x", "y"], [], ["z"], ["ü"]]


def test_features_may_come_from_a_generator(tmp_path):
    write_tfrecord(tmp_path / "rows.tfrecord")
    tables = [
        read(tmp_path / "rows.tfrecord", features, iter(TASKS))
        for features in (FEATURES, iter(FEATURES))
    ]
    assert tables[1].equals(tables[0])


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert_holds_rows(read(tmp_path / name, FEATURES, TASKS))


@pytest.mark.parametrize("name", WRITERS)
def test_an_ending_may_be_in_capitals(tmp_path, name):
    WRITERS[name](tmp_path / name)
    (tmp_path / name).rename(tmp_path / name.upper())
    assert_holds_rows(read(tmp_path / name.upper(), FEATURES, TASKS))


def test_a_directory_is_refused_with_a_pattern_to_give(tmp_path):
    (tmp_path / "rows.parquet").mkdir()
    write_parquet(tmp_path / "rows.parquet" / "part-0.parquet")
    with pytest.raises(DataError, match=r"is a directory; give its files, such as \S+$") as caught:
        read(tmp_path / "rows.parquet")
    assert_holds_rows(read(str(caught.value).rsplit(maxsplit=1)[-1], FEATURES, TASKS))


@pytest.mark.parametrize("address", ["s3://bucket/rows.parquet", "https://host/rows.csv"])
def test_an_address_is_refused(address):
    with pytest.raises(DataError, match=f"^{address}: addresses are not read"):
        read([address])


@pytest.mark.parametrize("source", [ROWS, pd.DataFrame(ROWS), pa.table(ROWS)], ids=type)
def test_memory_gives_the_same_rows_as_files(source):
    assert_holds_rows(read(source, FEATURES, TASKS))


@pytest.mark.parametrize("name", WRITERS)
def test_without_features_and_tasks_all_columns_are_read(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert set(read(tmp_path / name).column_names) == set(ROWS)


def test_files_are_read_in_the_order_given_and_patterns_in_sorted_order(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.csv").write_text(f"x\n{name}\n")
    (tmp_path / "d.csv").mkdir()
    files = [tmp_path / "c.csv", str(tmp_path / "[ab].csv")]
    assert read(files)["x"].to_pylist() == ["c", "a", "b"]
    assert read(str(tmp_path / "*.csv"))["x"].to_pylist() == ["a", "b", "c"]


def test_a_pattern_may_be_in_a_directory(tmp_path, monkeypatch):
    for name in ("day-2", "day-1", "other"):
        (tmp_path / "[raw]" / name).mkdir(parents=True)
        (tmp_path / "[raw]" / name / "rows.csv").write_text(f"x\n{name}\n")
    assert read(tmp_path / "[raw]" / "day-*" / "r*.csv")["x"].to_pylist() == ["day-1", "day-2"]
    monkeypatch.chdir(tmp_path / "[raw]")
    assert read("*/rows.csv")["x"].to_pylist() == ["day-1", "day-2", "other"]
    with pytest.raises(DataError, match=r"^none-\*/rows\.csv: no such file$"):
        read("none-*/rows.csv")


def test_a_pattern_matches_no_hidden_file_unless_it_begins_with_a_dot(tmp_path, monkeypatch):
    directory = tmp_path / ".data"
    for name in ("a.csv", ".partial-a.csv", "sub/b.csv", ".sub/c.csv"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("a\n1\n")
    monkeypatch.chdir(directory)

    def names(pattern):
        return [os.path.relpath(path) for path in readers.expand_paths(pattern)]

    for prefix in ("", f"{directory}/"):
        assert names(f"{prefix}*.csv") == ["a.csv"]
        assert names(f"{prefix}*/*.csv") == ["sub/b.csv"]
        assert names(f"{prefix}**/*.csv") == ["a.csv", "sub/b.csv"]
        assert names(f"{prefix}.part*.csv") == [".partial-a.csv"]
        assert names(f"{prefix}.sub/*.csv") == [".sub/c.csv"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    (tmp_path / "rows[1].csv").write_text("x\n1\n")
    assert read(tmp_path / "rows[1].csv")["x"].to_pylist() == ["1"]


@pytest.mark.parametrize("name", WRITERS)
def test_chunks_are_bounded_and_shards_cover_each_chunk_once(tmp_path, monkeypatch, name):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 1)
    WRITERS[name](tmp_path / name)
    seen = []
    for index in range(3):
        chunks = list(read_chunks(tmp_path / name, FEATURES, shard=(index, 3)))
        assert [chunk.table.num_rows for chunk in chunks] == [1] * len(chunks)
        seen.append([as_strings(c.table["city"], "city", "")[0].as_py() for c in chunks])
    assert seen == [[ROWS["city"][0], ROWS["city"][3]], [ROWS["city"][1]], [ROWS["city"][2]]]


def test_a_shard_without_a_chunk_is_refused():
    with pytest.raises(DataError, match="the data: 1 chunks, too few for 2 shards"):
        list(read_chunks(ROWS, shard=(1, 2)))


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_does_not_exist_is_refused(shard):
    with pytest.raises(ValueError, match=r"Received: \(") as caught:
        list(read_chunks(ROWS, shard=shard))
    assert str(shard) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\r\n1,x\r\n", {"a": ["1"], "b": ["x"]}),
        ("\ufeffa,b\n1,x\n", {"a": ["1"], "b": ["x"]}),
        ('"a", b \n1,"x\ny ""z"""', {"a": ["1"], "b": ['x\ny "z"']}),
        ("a,b\n007,NA\n,\n", {"a": ["007", None], "b": ["NA", None]}),
        ('a,b\n"",1e3\n', {"a": [""], "b": ["1e3"]}),
        ("a,b\n1,x\n\n2,y\n\n", {"a": ["1", "2"], "b": ["x", "y"]}),
        ("a\n1\n\n2\n\n", {"a": ["1", None, "2", None]}),
        ("a\r\n\r\n2", {"a": [None, "2"]}),
    ],
)
def test_csv_is_read_as_the_text_it_holds(tmp_path, text, expected):
    (tmp_path / "rows.csv").write_bytes(text.encode())
    assert read(tmp_path / "rows.csv").to_pydict() == expected


CUT = gzip.compress(
    "".join(["a,b\n", *(f"{i},{i * 7919 % 104729}\n" for i in range(50_000))]).encode(), mtime=0
)
BAD_AT_THE_END = b"a,b\n" + b"1234,1234\n" * 2_000_001 + b"1,2,3\n"
BROKEN = bytearray(CUT)
BROKEN[len(CUT) // 2] ^= 0xFF


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv.gz", CUT[: len(CUT) // 2], "truncated or broken"),
        ("rows.csv.gz", CUT[:5], "truncated or broken"),
        ("rows.csv.gz", CUT[:-2], "truncated or broken"),
        ("rows.csv.gz", bytes(BROKEN), "truncated or broken"),
        ("rows.csv.gz", b"a,b\n1,2\n", "truncated or broken: Not a gzipped file"),
        ("rows.csv.gz", gzip.compress(b"", mtime=0), "the file is empty"),
        ("rows.csv", b"", "the file is empty"),
        ("rows.csv", b"a,b\n", "there are no rows"),
        ("rows.csv", b"a,b", "there are no rows"),
        ("rows.csv", b"a,b,a\n1,2,3\n", "the header gives the column 'a' twice"),
        ("rows.csv", b"a,b\n1,2\n3\n", "row 2 after the header: expected 2 cells, got 1: '3'$"),
        ("rows.csv", b"a,b\n1,2\n\n'\n',\xe9,4\n", "row 2 after the header: expected 2 cells"),
        ("rows.csv", BAD_AT_THE_END, "row 2000002 after the header: .* got 3: '1,2,3'$"),
        ("rows.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), "can't decode byte"),
        (
            "rows.csv.gz",
            gzip.compress(b"a,b\n1,2\n3\n", mtime=0),
            "row 2 after the header: expected 2 cells",
        ),
        (
            "rows.csv",
            b"a,b\n1,2\n1,\xe9\n",
            r"row 2 after the header: column 'b' has b'\\xe9', which is not UTF-8$",
        ),
        ("rows.csv", b"a,\xe9\n1,2\n", "can't decode byte 0xe9"),
        ("rows.csv", b"aa,c\n1,2\n", r"no column 'a' \(did you mean 'aa'\?\), 'b'"),
        ("rows.parquet", b"PAR1 but no more", "not a readable Parquet file"),
        ("rows.parquet", b"", "not a readable Parquet file"),
        ("rows.tfrecord", b"", "the file is empty"),
        ("rows.tfrecord", b"a,b\n1,2\n", "truncated or broken"),
        ("rows.tfrecord.gz", b"a,b\n1,2\n", "truncated or broken: .*incorrect header check"),
        ("rows.xlsx", b"x", "unknown format; the known ones are .csv"),
        ("rows.gz", b"x", "unknown format"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name, [NumericFeature("a"), NumericFeature("b")])
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.csv.gz"])
def test_a_quote_that_is_not_closed_takes_no_rows_in_silence(tmp_path, name, end):
    path = tmp_path / name

    def read_text(text, *columns, **options):
        text = text.replace(",", "\t") if ".tsv" in name else text
        path.write_bytes(gzip.compress(text.encode()) if ".gz" in name else text.encode())
        return read(path, [CategoricalFeature(column) for column in columns], **options).to_pydict()

    closed = read_text(f'a,b\n1,"x""\n"\n2,"""y"\n3,"5"{end}')
    assert closed == {"a": ["1", "2", "3"], "b": ['x"\n', '"y', "5"]}
    for last in ("2,3", "2,"):
        for columns in ([], ["a"], ["b"]):
            with pytest.raises(DataError, match="row 2 after the header has a quote that is not"):
                read_text(f'a,b\n1,x\n2,"x\n{last}{end}', *columns)
    for text in ('a,b\n1,x\n1\n2,"x\n2,3', 'a,b\n1,x\n1\n"2,x\n2,3'):
        with pytest.raises(DataError, match="row 3 after the header has a quote that is not"):
            read_text(text + end, left_out=lambda reason: None)
    with pytest.raises(DataError, match="row 2 after the header has a quote that is not closed"):
        read_text(f'a\n1\n"2\n3{end}')


def test_rows_that_cannot_be_parsed_can_be_left_out(tmp_path):
    path, reasons = tmp_path / "rows.csv", []
    path.write_bytes(b"a,b\n1,2\n3\n" + b"5,6\n" * 100_000 + b"7,\xe9\n9," + b"x" * 200 + b",9\n")
    features = [NumericFeature("a"), NumericFeature("b")]
    chunks = read_chunks(path, features, left_out=reasons.append)
    table = pa.concat_tables(chunk.table for chunk in chunks)
    assert table.to_pydict() == {"a": ["1", *["5"] * 100_000], "b": ["2", *["6"] * 100_000]}
    assert sorted(reasons) == [
        "column 'b' has b'\\xe9', which is not UTF-8",
        "expected 2 cells, got 1: '3'",
        f"expected 2 cells, got 3: '9,{'x' * 98}...'",
    ]


def test_columns_that_are_not_read_may_be_of_another_encoding(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"a,b\n1,\xe9\n")
    assert read(tmp_path / "rows.csv", [NumericFeature("a")]).to_pydict() == {"a": ["1"]}


def test_parquet_without_its_end_or_with_a_broken_page_is_refused(tmp_path):
    whole, broken = tmp_path / "rows.parquet", tmp_path / "broken.parquet"
    pa.parquet.write_table(pa.table({"a": [1, 2]}), whole)
    flipped = bytearray(whole.read_bytes())
    flipped[6] ^= 0xFF
    for content in (whole.read_bytes()[:-20], bytes(flipped)):
        broken.write_bytes(content)
        with pytest.raises(DataError, match=r"broken\.parquet: not a readable Parquet file"):
            read(broken)


@pytest.mark.parametrize("name", ["rows.tfrecord", "rows.tfrecord.gz"])
def test_no_cut_of_a_tfrecord_file_loses_rows_in_silence(tmp_path, name):
    write_tfrecord(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    with (
        gzip.open(tmp_path / name) if name.endswith(".gz") else (tmp_path / name).open("rb") as file
    ):
        records, complete = file.read(), set()
    if not name.endswith(".gz"):  # a cut between two records leaves a file that is whole
        end = 0
        while end < len(records):
            end += 16 + int.from_bytes(records[end : end + 8], "little")
            complete.add(end)
    cuts = set(range(1, len(content), 9)) | set(range(len(content) - 9, len(content)))
    for cut in cuts - complete:
        (tmp_path / f"cut.{name}").write_bytes(content[:cut])
        with pytest.raises(DataError, match="truncated or broken"):
            read(tmp_path / f"cut.{name}", FEATURES)


def test_a_compressed_tfrecord_that_is_whole_is_decompressed_once(tmp_path, monkeypatch):
    path = tmp_path / "rows.tfrecord.gz"
    write_tfrecord(path)
    content, rows = path.read_bytes(), read(path)
    monkeypatch.setattr(gzip, "open", None)
    assert read(path).equals(rows)
    monkeypatch.undo()
    path.write_bytes(content * 2)  # whose end tells the size of its second half
    assert read(path).equals(pa.concat_tables([rows, rows]))


def test_a_tfrecord_that_holds_something_else_is_refused(tmp_path):
    path = tmp_path / "rows.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"hello")
    with pytest.raises(DataError, match=r"rows\.tfrecord: a record is not a tf\.Example"):
        read(path)
    write_tfrecord(path)
    with pytest.raises(DataError, match="column 'tags' has 2 values in one row, expected one"):
        read(path, [CategoricalFeature("tags")])
    with pytest.raises(DataError, match=r"no column 'town', 'aged' \(did you mean 'age'\?\)"):
        read(path, [CategoricalFeature("town"), NumericFeature("aged")])


def write_examples(path, *rows):
    """Writes rows whose cells are lists of bytes, whole numbers or other numbers."""

    def feature(values):
        match values:
            case [bytes(), *_]:
                return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
            case [float(), *_]:
                return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            cells = {name: feature(values) for name, values in row.items()}
            example = tf.train.Example(features=tf.train.Features(feature=cells))
            writer.write(example.SerializeToString())


def test_a_tfrecord_column_may_be_absent_from_some_rows(tmp_path):
    path = tmp_path / "rows.tfrecord"
    write_examples(path, {}, {"b": [1]}, {"a": [2], "b": [3]})
    expected = {"a": [None, None, 2], "b": [None, 1, 3]}
    assert read(path).to_pydict() == expected
    assert read(path, [NumericFeature("a"), NumericFeature("b")]).to_pydict() == expected


@pytest.mark.parametrize(
    "rows",
    [
        [{"b": [1]}, {"a": [2], "b": [2]}, {"b": [3]}],
        [{"b": [1]}, {"b": [2]}, {"a": [2], "b": [3]}],
        [{"a": [2], "b": [1]}, {"b": [2]}, {"b": [3]}],
    ],
)
def test_a_tfrecord_column_may_be_absent_from_all_rows_that_are_read_at_once(
    tmp_path, monkeypatch, rows
):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 1)
    path = tmp_path / "rows.tfrecord"
    write_examples(path, *rows)
    chunks = list(read_chunks(path, [NumericFeature("a"), NumericFeature("b")]))
    found = [as_floats(chunk.table["a"], "a", "") for chunk in chunks]
    np.testing.assert_array_equal(
        np.concatenate(found), [2 if "a" in row else np.nan for row in rows]
    )
    with pytest.raises(DataError, match=r"no column 'c'; the columns are \['a', 'b'\]"):
        read(path, [NumericFeature("c")])


def test_a_column_that_the_first_rows_lack_is_looked_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 1)
    path = tmp_path / "rows.tfrecord"
    write_examples(path, {"b": [1]}, {"b": [2]}, {"b": [3]}, {"a": [2], "b": [4]})
    looked, look = [], readers._require_in_records

    def count(path, columns):
        looked.extend(columns)
        look(path, columns)

    monkeypatch.setattr(readers, "_require_in_records", count)
    read_columns = [NumericFeature("a"), NumericFeature("b")]
    assert len(list(read_chunks(path, read_columns))) == 4
    assert looked == ["a"]


def test_several_values_of_a_tfrecord_are_lists_where_no_columns_are_asked_for(
    tmp_path, monkeypatch
):
    path = tmp_path / "rows.tfrecord"
    write_examples(
        path,
        {"a": [1, 2], "t": [b"x"]},
        {"a": [3], "t": [b"y", b"z"]},
        {"t": []},
        {"a": [4], "t": [b"|"]},
    )
    expected = {"a": [[1, 2], [3], None, [4]], "t": [[b"x"], [b"y", b"z"], None, [b"|"]]}
    assert read(path).to_pydict() == expected
    monkeypatch.setattr(readers, "CHUNK_ROWS", 2)
    first, second = (chunk.table for chunk in read_chunks(path))
    assert pa.concat_tables([first, second]).to_pydict() == expected  # also without a long row


def test_a_tfrecord_column_that_later_rows_lack_stays_where_no_columns_are_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 1)
    path = tmp_path / "rows.tfrecord"
    write_examples(path, {"a": [1, 2], "b": [1]}, {"b": [2]}, {"a": [3]})
    found = [chunk.table.to_pydict() for chunk in read_chunks(path)]
    assert found == [
        {"a": [[1, 2]], "b": [1]},
        {"a": [None], "b": [2]},
        {"a": [[3]], "b": [None]},
    ]


def test_several_values_of_different_types_in_a_tfrecord_are_refused(tmp_path):
    path = tmp_path / "rows.tfrecord"
    write_examples(path, {"a": [1, 2]}, {"a": [b"x"]})
    with pytest.raises(DataError, match=r"rows\.tfrecord: column 'a' mixes types"):
        read(path)


KINDS = {
    "n": lambda values: tf.train.Feature(float_list=tf.train.FloatList(value=values)),
    "t": lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)),
    "i": lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values)),
}


def serialized(rows):
    """Examples as a TFRecord holds them, with the columns of `KINDS`."""
    for row in rows:
        cells = {name: KINDS[name](values) for name, values in row.items()}
        yield tf.train.Example(features=tf.train.Features(feature=cells)).SerializeToString()


def test_examples_parsed_at_once_are_as_those_parsed_one_by_one():
    rows = [
        {"n": [1.5], "t": [b"a"], "i": [7]},
        {"n": [], "t": [b""]},
        {"t": ["ü".encode()], "i": [-1]},
        {},
        {"n": [float("inf")], "i": [2**40]},
    ]
    for part in (rows, rows[::-1]):
        batch = np.array(list(serialized(part)), object)
        columns = ["t", "n", "i"]
        at_once = readers._parsed_at_once(batch, columns, {})
        assert at_once.equals(readers._table_of_examples(batch, columns, {}, ""))
        assert at_once.column_names == columns
    assert readers._parsed_at_once(batch, ["t", "never"], {}) is None
    several = np.array([*batch, *serialized([{"n": [1.0, 2.0]}])], object)
    assert readers._parsed_at_once(several, columns, {}) is None
    other = tf.train.Example(features=tf.train.Features(feature={"n": KINDS["i"]([1])}))
    mixed = np.array([*batch, other.SerializeToString()], object)
    assert readers._parsed_at_once(mixed, columns, {}) is None


CELLS = {
    "n": st.integers(-3, 2**24).map(float),
    "t": st.sampled_from([b"", b"a", b"b", b"a--b", b"--", "ü--é".encode()]),
    "i": st.integers(-(2**63), 2**63 - 1),
}


@st.composite
def rows_of_lists(draw):
    longest = {name: draw(st.sampled_from([1, 3])) for name in CELLS}
    lists = {name: st.lists(cells, max_size=longest[name]) for name, cells in CELLS.items()}
    return draw(st.lists(st.fixed_dictionaries({}, optional=lists), min_size=1, max_size=6))


@hypothesis.given(rows_of_lists())
def test_lists_parsed_at_once_are_as_those_parsed_one_by_one(rows):
    batch = np.array(list(serialized(rows)), object)
    for name in CELLS:
        at_once = readers._parsed_at_once(batch, [name], {name: "--"})
        cells = [row[name] for row in rows if name in row]
        to_split = name == "t" and any(len(c) == 1 and b"--" in c[0] for c in cells)
        if not cells or (to_split and any(len(c) > 1 for c in cells)):
            assert at_once is None
            continue
        one_by_one = readers._table_of_examples(batch, [name], {name: "--"}, "")
        found, expected = (
            [row or [] for row in as_lists(table[name], name, "--", "").to_pylist()]
            for table in (at_once, one_by_one)
        )
        assert found == expected


@pytest.mark.parametrize("tags", [[[b"x|y"], [b"z"], []], [[b"x", b"y|z"], [b"z"], []]])
def test_multi_valued_columns_are_parsed_at_once(tags):
    batch = np.array(list(serialized({"t": cells, "i": [1]} for cells in tags)), object)
    assert readers._parsed_at_once(batch, ["t", "i"], {"t": "|"}) is not None
    assert readers._parsed_at_once(batch, ["t", "i"], {"t": "|", "i": "|"}) is not None


@pytest.mark.parametrize("source", ["none.csv", pathlib.Path("none.parquet"), ["none*.csv"]])
def test_a_file_that_is_not_there_is_named(source):
    with pytest.raises(DataError, match=r"none.*: no such file"):
        read(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"a": [1, "x"]}, "the data: column 'a' mixes types"),
        ({"a": [1], "b": [1, 2]}, "the columns differ in length: {'a': 1, 'b': 2}"),
        ({"a": []}, "the data: there are no rows"),
        (pd.DataFrame({"a": []}), "the data: there are no rows"),
        (pa.table({"a": pa.array([], pa.int64())}), "the data: there are no rows"),
    ],
)
def test_memory_that_holds_no_table_or_no_rows_is_refused(source, message):
    with pytest.raises(DataError, match=message):
        read(source)


@pytest.mark.parametrize("source", [{"A": [1]}, pd.DataFrame({"A": [1]}), pa.table({"A": [1]})])
def test_memory_that_lacks_a_column_is_refused(source):
    with pytest.raises(DataError, match="the data: no column 'a'; the columns are"):
        read(source, [NumericFeature("a")])


@pytest.mark.parametrize("values", [[2**63 + 5, 1], [1, None, 2**64 - 1]])
def test_ids_above_int64_are_read(values):
    texts = [None if value is None else str(value) for value in values]
    for column in (values, pd.Series(values, dtype=object)):
        assert as_strings(read({"a": column})["a"], "a", "").to_pylist() == texts


@pytest.mark.parametrize("values", [[2**64, 1], [-1, 2**63]])
def test_ids_beyond_any_type_are_refused(values):
    with pytest.raises(DataError, match="the data: column 'a' has whole numbers that neither"):
        read({"a": values})


def test_float_ids_of_a_tfrecord_that_may_have_been_merged_are_refused(tmp_path):
    path = tmp_path / "rows.tfrecord"
    write_examples(path, {"a": [50_000_001.0]})
    with pytest.raises(DataError, match=r"column 'a' .* has 50000000\.0, .* up to 16777216"):
        as_strings(read(path, [CategoricalFeature("a")])["a"], "a", "")


def test_an_array_of_two_dimensions_is_a_column_of_lists():
    assert read({"a": np.array([["x", "y"], ["z", ""]])})["a"].to_pylist() == [
        ["x", "y"],
        ["z", ""],
    ]


def test_columns_that_several_parts_need_are_read_once():
    tasks = [Task("a", "clicked", mask="seen"), Task("b", "liked", mask="clicked", weight="age")]
    assert needed_columns(FEATURES, tasks) == ["age", "city", "tags", "clicked", "seen", "liked"]
