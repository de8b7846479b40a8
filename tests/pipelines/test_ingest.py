"""Ingest: the same examples from every format, what stops at bad rows, parts, spans, streaming."""

import gzip
import hashlib
import json
import os
import pathlib
import weakref

import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf
from tfx import v1 as tfx

from mptrec_tf.config import Config
from mptrec_tf.data import readers
from mptrec_tf.data.readers import Chunk
from mptrec_tf.errors import DataError, MPTRecError, PipelineError
from mptrec_tf.spec import Task
from mptrec_tf.spec.parsing import parse
from pipelines import runs
from pipelines.components import example_gen
from pipelines.components.example_gen import (
    IngestConfig,
    WriteFile,
    choose_span,
    find_files,
    ingest,
)
from pipelines.examples import LEAST, raw_examples
from pipelines.metadata import connection
from pipelines.nodes import beam_arguments
from pipelines.runners.local import run
from pipelines.sources import check_sources, labelled, sources_of, state_of

SPLITS = ("train", "validation", "test")
FEATURES = [
    {"kind": "numeric", "name": "age", "missing": 0.0},
    {"kind": "categorical", "name": "city"},
    {"kind": "multivalued", "name": "tags"},
]
TASKS = [
    {"name": "click", "label": "clicked", "weight": "importance"},
    {"name": "level", "label": "stars", "kind": "multiclass", "classes": ["low", "mid", "high"]},
    {"name": "money", "label": "spent", "kind": "regression", "mask": "seen"},
]
COLUMNS = {
    "age": [31.5, -2.0, None, 7.0, 0.0],
    "city": ["Oslo", "São Paulo", None, "42", "x,y"],
    "tags": [["x", "y"], None, ["z"], ["ü", "ü", "a"], ["b"]],
    "region": ["north", None, "south", "7", "north"],
    "clicked": [1, 0, None, 1, 0],
    "importance": [2.0, 0.5, 3.0, 0.0, 1.0],
    "stars": ["high", "low", "mid", None, "low"],
    "spent": [1.25, 2.5, -3.0, 4.0, None],
    "seen": [1, 0, 1, None, 1],
    "unread": ["p", "q", "r", "s", "t"],
}
TEXTS = ("city", "region", "stars", "unread")


def row(age, city, tags, region, click, level, money):
    """An example as it should be written: `None` is absent, a label is a value and a weight."""
    cells = {"age": age, "city": city, "tags": tags, "region": region}
    values = {}
    for name, cell in cells.items():
        if cell is not None:
            cell = cell if isinstance(cell, list) else [cell]
            values[name] = [v.encode() if isinstance(v, str) else v for v in cell]
    for task, (label, weight) in (("click", click), ("level", level), ("money", money)):
        values |= {f"label:{task}": [label], f"weight:{task}": [weight]}
    return values


EXPECTED = [
    row(31.5, "Oslo", ["x", "y"], "north", (1, 2), (2, 1), (1.25, 1)),
    row(-2.0, "São Paulo", None, None, (0, 0.5), (0, 1), (0, 0)),
    row(None, None, ["z"], "south", (0, 0), (1, 1), (-3, 1)),
    row(7.0, "42", ["ü", "ü", "a"], "7", (1, LEAST), (0, 0), (0, 0)),
    row(0.0, "x,y", ["b"], "north", (0, 1), (0, 1), (0, 0)),
]


def as_text(value):
    if value is None:
        return ""
    text = "|".join(value) if isinstance(value, list) else str(value)
    return f'"{text}"' if "," in text else text


def write_text(path, columns):
    separator = "\t" if ".tsv" in path.name else ","
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    text = "".join(separator.join(map(as_text, cells)) + "\n" for cells in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_records(path, columns):
    def feature(value):
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], str):
            texts = [text.encode() for text in values]
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for cells in zip(*columns.values(), strict=True):
            named = zip(columns, cells, strict=True)
            known = {name: feature(value) for name, value in named if value is not None}
            features = tf.train.Features(feature=known)
            writer.write(tf.train.Example(features=features).SerializeToString())


def write(path, columns=COLUMNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table(columns), path)
    elif ".tfrecord" in path.name:
        write_records(path, columns)
    else:
        write_text(path, columns)
    return path


def part(start, stop):
    return {name: cells[start:stop] for name, cells in COLUMNS.items()}


def configuration(data, features=FEATURES, tasks=TASKS, **pipeline):
    """A configuration whose stage 1 trains all tasks."""
    plain = {
        "data": {split: os.fspath(path) for split, path in data.items()},
        "features": features,
        "tasks": tasks,
        "stage1": {"tasks": [task["name"] for task in tasks]},
        "pipeline": {"slices": ["region", "city"], **pipeline},
    }
    return parse(Config, plain, "the test")


def ingest_only(directory, config, span=None):
    """What a pipeline of Ingest alone has done."""
    component = ingest(config, sources_of(config), config.stage1.tasks, span=span)
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="ingest-only",
        pipeline_root=str(directory / "artifacts"),
        components=[component],
        enable_cache=True,
        metadata_connection_config=connection(config.pipeline, directory),
        beam_pipeline_args=beam_arguments(config.pipeline.beam),
    )
    result = run(pipeline, log_file=directory / "run.log", progress=False)
    return result.executions["Ingest"]


def artifact(execution):
    [examples] = execution.outputs["examples"]
    return examples


def examples_of(execution, split):
    """Every example of a split, parsed by hand; absent features are left out."""
    parsed = []
    for file in sorted(pathlib.Path(artifact(execution).uri, f"Split-{split}").iterdir()):
        for record in tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
            parsed.append(
                {name: list(getattr(features[name], k).value) for name, k in kinds.items() if k}
            )
    return parsed


def refused(directory, config, **arguments):
    """What a run that must stop says, without the component's name."""
    with pytest.raises(MPTRecError, match=r"^Ingest: ") as raised:
        ingest_only(directory, config, **arguments)
    assert isinstance(raised.value, DataError)
    return str(raised.value).removeprefix("Ingest: ")


# Formats


@pytest.mark.parametrize(
    "names",
    [
        ("rows.csv", "rows.tsv", "rows.csv.gz"),
        ("rows.tsv.gz", "rows.parquet", "rows.tfrecord"),
        ("rows.tfrecord.gz", "part-*.csv", "*/rows.parquet"),
    ],
    ids=lambda names: " ".join(names),
)
def test_every_format_gives_the_same_examples_in_the_order_of_the_rows(tmp_path, names):
    data = {split: tmp_path / split / name for split, name in zip(SPLITS, names, strict=True)}
    for path in data.values():
        if "*" not in str(path):
            write(path)
            continue
        for piece, (start, stop) in {"0": (0, 2), "1": (2, 3), "2": (3, 5)}.items():
            write(pathlib.Path(str(path).replace("*", piece)), part(start, stop))
    execution = ingest_only(tmp_path, configuration(data))
    for split in SPLITS:
        assert examples_of(execution, split) == EXPECTED
    properties = artifact(execution).properties
    assert {name: properties[name] for name in properties if "rows:" in name} == {
        f"{prefix}rows:{split}": count
        for prefix, count in (("", len(EXPECTED)), ("bad_", 0))
        for split in SPLITS
    }
    written = {path.name for path in pathlib.Path(artifact(execution).uri).iterdir()}
    assert written == {f"Split-{split}" for split in SPLITS}


def test_labels_and_columns_that_nothing_needs_are_not_read(tmp_path):
    kept = {name: COLUMNS[name] for name in ("age", "city", "tags", "clicked", "importance")}
    path = write(tmp_path / "rows.csv", kept)
    config = configuration(dict.fromkeys(SPLITS, path), tasks=TASKS[:1], slices=[])
    execution = ingest_only(tmp_path, config)
    unused = ("region", "label:level", "weight:level", "label:money", "weight:money")
    assert examples_of(execution, "test") == [
        {name: cell for name, cell in example.items() if name not in unused} for example in EXPECTED
    ]


def test_empty_texts_and_lists_are_absent(tmp_path):
    columns = COLUMNS | {
        "city": ["", None, "a", "b", "c"],
        "region": ["", None, "a", "b", "c"],
        "tags": [[], None, ["a", None], [""], ["b"]],
    }
    path = write(tmp_path / "rows.parquet", columns)
    found = examples_of(ingest_only(tmp_path, configuration(dict.fromkeys(SPLITS, path))), "train")
    texts = {name: [example.get(name) for example in found] for name in ("city", "region", "tags")}
    assert texts == {
        "city": [None, None, [b"a"], [b"b"], [b"c"]],
        "region": [None, None, [b"a"], [b"b"], [b"c"]],
        "tags": [None, None, [b"a", b""], [b""], [b"b"]],
    }


def test_files_of_another_file_system_are_copied_to_be_read(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "data" / f"{name}.csv")
    write(tmp_path / "span-4" / "rows.parquet")
    data = dict.fromkeys(SPLITS, f"file://{tmp_path}/data/*.csv")
    assert examples_of(ingest_only(tmp_path, configuration(data)), "train") == EXPECTED * 2
    data = dict.fromkeys(SPLITS, f"file://{tmp_path}/span-{{SPAN}}/rows.parquet")
    assert examples_of(ingest_only(tmp_path, configuration(data)), "train") == EXPECTED


def test_sources_of_two_file_systems_are_refused(tmp_path):
    data = dict.fromkeys(SPLITS, tmp_path / "rows.csv") | {"test": "gs://bucket/rows.csv"}
    with pytest.raises(PipelineError, match=r"not in one file system: .*'gs://bucket/rows\.csv'"):
        ingest(configuration(data), sources_of(configuration(data)), ["click"])


def test_a_rule_must_match_rows_of_any_file_that_are_trained_on(tmp_path):
    rare = COLUMNS | {"stars": ["high"] * 5}
    data = {split: tmp_path / split / "*.csv" for split in SPLITS}
    for split, files in {"train": [rare, COLUMNS], "validation": [rare], "test": [rare]}.items():
        for number, columns in enumerate(files):
            write(tmp_path / split / f"{number}.csv", columns)
    low = {"name": "low", "label": "stars", "positive": "low"}
    ingest_only(tmp_path / "low", configuration(data, tasks=[low]))
    typo = configuration(data, tasks=[low, {**low, "name": "typo", "positive": "Low"}])
    assert refused(tmp_path / "typo", typo) == (
        "the split 'train': no label of the task 'typo' in column 'stars' is positive='Low', so "
        "all rows have the same label; the most frequent values are ['high', 'low', 'mid']"
    )
    component = ingest(typo, sources_of(typo), ["low", "typo"], trained=["low"])
    assert '\\"trained\\": [\\"low\\"]' in component.exec_properties["custom_config"]


# Bad rows


def without(column):
    return {name: cells for name, cells in COLUMNS.items() if name != column}


def with_cell(column, value, count=1):
    return COLUMNS | {column: [value] * count + COLUMNS[column][count:]}


BAD_FILES = {
    "0.csv": (without("tags"), "no column 'tags'"),
    "1.parquet": (without("region"), "no column 'region'"),
    "2.tfrecord": (without("stars"), "no column 'stars'"),
    "3.csv": (with_cell("age", "old"), "column 'age' should hold numbers, but has 'old'"),
    "4.csv": (with_cell("age", "inf"), "column 'age' has the value inf"),
    "5.csv": (with_cell("clicked", 2), "column 'clicked' of the task 'click' has 2, expected 0 or"),
    "6.csv": (with_cell("stars", "top"), "column 'stars' has 'top', which is none of the classes"),
    "7.csv": (with_cell("spent", 1e39), "column 'spent' of the task 'money' has 1e+39, expected"),
    "8.csv": (with_cell("importance", -1), "column 'importance' of the task 'click' has -1, exp"),
    "9.csv": (with_cell("importance", 1e39), "column 'importance' of the task 'click' has 1e+39"),
    "a.tfrecord": (with_cell("age", "old"), "column 'age' mixes types: "),
    "b.csv": ({name: [] for name in COLUMNS}, "there are no rows"),
    "c.parquet": (pa.table(COLUMNS).slice(0, 0).to_pydict(), "there are no rows"),
}


def assert_each_file_is_named(text, directory, messages):
    lines = text.splitlines()
    assert len(lines) == len(messages)
    for line, (name, message) in zip(lines, sorted(messages.items()), strict=True):
        assert line.startswith(f"{directory / name}: {message}")


def test_a_run_stops_at_bad_files_and_names_what_is_wrong_in_each(tmp_path):
    good = write(tmp_path / "good.csv")
    for name, (columns, _) in BAD_FILES.items():
        write(tmp_path / "bad" / name, columns)
    config = configuration({"train": good, "validation": tmp_path / "bad" / "*", "test": good})
    messages = {name: message for name, (_, message) in BAD_FILES.items()}
    assert_each_file_is_named(refused(tmp_path, config), tmp_path / "bad", messages)


def test_broken_files_stop_a_run_even_where_bad_rows_are_allowed(tmp_path):
    messages = {
        "a.csv.gz": "the compressed file is truncated or broken: ",
        "b.tfrecord": "the TFRecord file is truncated or broken: ",
        "c.tfrecord.gz": "the TFRecord file is truncated or broken: ",
        "d.parquet": "not a readable Parquet file: ",
    }
    good = write(tmp_path / "good.csv")
    for name in messages:
        path = write(tmp_path / "bad" / name)
        path.write_bytes(path.read_bytes()[:-9])
    (tmp_path / "bad" / "e.parquet").write_text("age,city")
    (tmp_path / "bad" / "f.tsv").write_bytes(b"")
    messages |= {"e.parquet": "not a readable Parquet file: ", "f.tsv": "the file is empty"}
    data = {"train": good, "validation": good, "test": tmp_path / "bad" / "*"}
    text = refused(tmp_path, configuration(data, checks={"max_bad_rows": 100}))
    assert_each_file_is_named(text, tmp_path / "bad", messages)


BAD_CELLS = {0: ("age", "old"), 2: ("clicked", 3), 4: ("stars", "top")}


def some_bad(rows):
    columns = {name: list(cells) for name, cells in COLUMNS.items()}
    for index in rows:
        column, value = BAD_CELLS[index]
        columns[column][index] = value
    return columns


REASONS = {
    0: "column 'age' should hold numbers, but has 'old'",
    2: "column 'clicked' of the task 'click' has 3, expected 0 or 1 (or give the task a rule)",
    4: "column 'stars' has 'top', which is none of the classes of the task 'level': "
    "['low', 'mid', 'high']",
}


def test_as_many_bad_rows_as_allowed_are_left_out_counted_and_shown(tmp_path):
    good = write(tmp_path / "good.csv")
    bad = write(tmp_path / "bad.csv", some_bad((0, 2, 4)))
    last = write(tmp_path / "last.tsv.gz", some_bad((2,)))
    config = configuration(
        {"train": bad, "validation": good, "test": last}, checks={"max_bad_rows": 3}
    )
    execution = ingest_only(tmp_path, config)
    assert examples_of(execution, "train") == [EXPECTED[1], EXPECTED[3]]
    assert examples_of(execution, "validation") == EXPECTED
    assert examples_of(execution, "test") == [EXPECTED[i] for i in (0, 1, 3, 4)]
    properties = artifact(execution).properties
    assert [properties[f"rows:{split}"] for split in SPLITS] == [2, 5, 4]
    assert [properties[f"bad_rows:{split}"] for split in SPLITS] == [3, 0, 1]
    kept = pathlib.Path(artifact(execution).uri, "bad_rows.json").read_text()
    assert json.loads(kept) == [
        f"{bad}: {REASONS[0]}",
        f"{bad}: {REASONS[2]}",
        f"{bad}: {REASONS[4]}",
        f"{last}: {REASONS[2]}",
    ]


def test_one_bad_row_more_than_allowed_stops_the_run(tmp_path):
    good = write(tmp_path / "good.csv")
    bad = write(tmp_path / "bad.csv", some_bad((0, 2, 4)))
    config = configuration(
        {"train": bad, "validation": good, "test": good}, checks={"max_bad_rows": 2}
    )
    assert refused(tmp_path, config) == (
        "more than 2 rows of a split cannot be read, the most that pipeline.checks.max_bad_rows "
        f"allows: {bad}: {REASONS[4]}"
    )


def test_the_limit_holds_over_all_files_of_a_split(tmp_path):
    good = write(tmp_path / "good.csv", some_bad((4,)))
    for name in ("a", "b"):
        write(tmp_path / "data" / f"{name}.csv", some_bad((0, 2)))
    data = {"train": good, "validation": tmp_path / "data" / "*.csv", "test": good}
    text = refused(tmp_path, configuration(data, checks={"max_bad_rows": 3}))
    assert text == (
        "4 rows of the split 'validation' cannot be read; pipeline.checks.max_bad_rows allows 3: "
        f"{tmp_path}/data/a.csv: {REASONS[0]}"
    )
    execution = ingest_only(tmp_path, configuration(data, checks={"max_bad_rows": 4}))
    assert artifact(execution).properties["bad_rows:validation"] == 4
    assert examples_of(execution, "validation") == [EXPECTED[i] for i in (1, 3, 4)] * 2


def test_lines_that_cannot_be_parsed_are_bad_rows(tmp_path):
    good = write(tmp_path / "good.csv")
    bad = write(tmp_path / "bad.csv", some_bad((0,)))
    lines = bad.read_bytes().splitlines()
    lines[2:2] = [b"1,2", lines[2].replace("São".encode(), b"S\xe3o")]
    bad.write_bytes(b"\n".join(lines))
    data = {"train": bad, "validation": good, "test": good}
    config = configuration(data, checks={"max_bad_rows": 3})
    assert check_sources(
        config, sources_of(config), config.spec.with_tasks(*config.stage1.tasks).tasks
    )
    execution = ingest_only(tmp_path, config)
    assert examples_of(execution, "train") == EXPECTED[1:]
    assert artifact(execution).properties["bad_rows:train"] == 3
    kept = pathlib.Path(artifact(execution).uri, "bad_rows.json").read_text()
    assert sorted(json.loads(kept)) == [
        f"{bad}: {REASONS[0]}",
        f"{bad}: column 'city' has b'S\\xe3o Paulo', which is not UTF-8",
        f"{bad}: expected {len(COLUMNS)} cells, got 2: '1,2'",
    ]
    for allowed, message in (
        (0, f"{bad}: row 2 after the header: expected 10 cells, got 2: '1,2'"),
        (1, "more than 1 rows of a split cannot be read"),
        (2, "3 rows of the split 'train' cannot be read"),
    ):
        config = configuration(data, checks={"max_bad_rows": allowed})
        assert refused(tmp_path, config).startswith(message)


def test_a_split_of_bad_rows_alone_is_named(tmp_path):
    good = write(tmp_path / "good.csv")
    bad = write(tmp_path / "bad.csv", COLUMNS | {"clicked": [7] * 5})
    config = configuration(
        {"train": good, "validation": good, "test": bad}, checks={"max_bad_rows": 5}
    )
    assert refused(tmp_path, config) == "the split 'test' has no rows"


@pytest.mark.parametrize("name", ["rows[1].csv", "none-*.csv"])
def test_a_pattern_without_a_file_is_named(tmp_path, name):
    good = write(tmp_path / "good.csv")
    write(tmp_path / "rows[1].csv")
    config = configuration({"train": good, "validation": tmp_path / name, "test": good})
    assert refused(tmp_path, config) == f"{tmp_path}/{name}: no such file"


# Parts of one source

USERS = [f"user {i % 40}" for i in range(200)]


def bucket(user, total):
    return int(hashlib.sha256(user.encode()).hexdigest(), 16) % total


def split_config(path, shares=None, checks=None, features=FEATURES[:1]):
    return configuration(
        {"train": path},
        features=features,
        tasks=[{"name": "click", "label": "clicked"}],
        slices=["user"],
        split={"column": "user", **(shares or {})},
        checks=checks or {},
    )


def write_users(path, users=USERS, ages=None):
    rows = range(len(users))
    return write(
        path,
        {
            "age": [float(i) for i in rows] if ages is None else ages,
            "user": users,
            "clicked": [i % 2 for i in rows],
        },
    )


def test_one_source_is_parted_by_a_hash_of_a_column(tmp_path):
    write_users(tmp_path / "data" / "a.csv", USERS[:90])
    write_users(tmp_path / "data" / "b.parquet", USERS[90:])
    shares = {"train": 6, "validation": 2, "test": 3}
    config = split_config(tmp_path / "data" / "*", shares)
    execution = ingest_only(tmp_path, config)
    found = {split: examples_of(execution, split) for split in SPLITS}
    users = {split: {row["user"][0].decode() for row in rows} for split, rows in found.items()}
    assert users == {
        "train": {user for user in USERS if bucket(user, 11) < 6},
        "validation": {user for user in USERS if bucket(user, 11) in (6, 7)},
        "test": {user for user in USERS if bucket(user, 11) >= 8},
    }
    rows = [(row["age"][0], row["user"][0].decode()) for part in found.values() for row in part]
    assert sorted(rows) == sorted(zip([*range(90), *range(110)], USERS, strict=True))
    for split in SPLITS:
        own = [i for i, user in enumerate(USERS) if user in users[split]]
        assert [row["age"] for row in found[split]] == [[i % 90 if i < 90 else i - 90] for i in own]
        assert artifact(execution).properties[f"rows:{split}"] == len(own)


def test_shares_are_about_those_asked_for(tmp_path):
    users = [str(i) for i in range(4000)]
    execution = ingest_only(tmp_path, split_config(write_users(tmp_path / "rows.parquet", users)))
    rows = [artifact(execution).properties[f"rows:{split}"] for split in SPLITS]
    assert sum(rows) == 4000
    for count, share in zip(rows, (0.8, 0.1, 0.1), strict=True):
        # Four standard deviations of a binomial count.
        assert abs(count - 4000 * share) < 4 * (4000 * share * (1 - share)) ** 0.5


def test_rows_without_the_column_s_value_stay_together(tmp_path):
    users = [None if i % 5 == 0 else f"user {i}" for i in range(100)]
    execution = ingest_only(tmp_path, split_config(write_users(tmp_path / "rows.csv", users)))
    nobody = {s: [r for r in examples_of(execution, s) if "user" not in r] for s in SPLITS}
    edges = [0, 8, 9, 10]
    [home] = [
        s for s, a, b in zip(SPLITS, edges, edges[1:], strict=False) if a <= bucket("", 10) < b
    ]
    assert {split: len(rows) for split, rows in nobody.items()} == dict.fromkeys(SPLITS, 0) | {
        home: 20
    }


def test_a_part_that_no_row_falls_into_is_named(tmp_path):
    users = [user for user in USERS if bucket(user, 10) < 9]
    text = refused(tmp_path, split_config(write_users(tmp_path / "rows.csv", users)))
    assert text == "the split 'test' has no rows"


def test_bad_rows_are_allowed_in_each_part_of_one_source(tmp_path):
    homes = {split: [] for split in SPLITS}
    for i, user in enumerate(USERS):
        homes["train" if bucket(user, 10) < 8 else SPLITS[bucket(user, 10) - 7]].append(i)
    ages = [float(i) for i in range(200)]
    for rows in homes.values():
        ages[rows[0]] = "old"
    path = write_users(tmp_path / "rows.csv", ages=ages)
    execution = ingest_only(tmp_path, split_config(path, checks={"max_bad_rows": 1}))
    properties = artifact(execution).properties
    assert [properties[f"bad_rows:{split}"] for split in SPLITS] == [1, 1, 1]
    for split in SPLITS:
        assert [row["age"] for row in examples_of(execution, split)] == [
            [i] for i in homes[split][1:]
        ]
    ages[homes["test"][1]] = "older"
    write_users(path, ages=ages)
    text = refused(tmp_path, split_config(path, checks={"max_bad_rows": 1}))
    assert text.startswith("more than 1 rows of a split cannot be read")
    assert text.endswith("but has 'older'")


# Spans


def write_span(path, age):
    return write(path, COLUMNS | {"age": [age] * 5})


def ages_of(execution):
    return {example["age"][0] for example in examples_of(execution, "train")}


@pytest.mark.parametrize(
    ("pattern", "names", "spans"),
    [
        ("span-{SPAN}/rows.csv", ["span-9/rows.csv", "span-10/rows.csv"], [9, 10]),
        ("rows-{SPAN:3}.csv", ["rows-001.csv", "rows-002.csv"], [1, 2]),
        (
            "{YYYY}-{MM}-{DD}/part-*.csv",
            ["1970-01-03/part-0.csv", "1970-02-01/part-0.csv"],
            [2, 31],
        ),
    ],
    ids=["in a directory", "in a name", "dates"],
)
def test_the_latest_span_is_taken_or_the_one_asked_for(tmp_path, pattern, names, spans):
    for name, age in zip(names, (1.0, 2.0), strict=True):
        write_span(tmp_path / "data" / name, age)
    config = configuration(dict.fromkeys(SPLITS, tmp_path / "data" / pattern))
    latest = ingest_only(tmp_path, config)
    assert ages_of(latest) == {2.0}
    assert artifact(latest).properties["span"] == spans[1]
    older = ingest_only(tmp_path, config, span=spans[0])
    assert ages_of(older) == {1.0}
    assert artifact(older).properties["span"] == spans[0]
    sources = sources_of(config)
    assert choose_span(sources)["test"] == str(
        tmp_path / "data" / names[1].replace("part-0", "part-*")
    )
    with pytest.raises(DataError) as raised:
        choose_span(sources, 5)
    assert str(raised.value).startswith(f"span 5: {sources['train']}, ")


def test_ingest_itself_refuses_a_span_that_is_not_there(tmp_path):
    write(tmp_path / "rows-1.csv")
    config = configuration(dict.fromkeys(SPLITS, tmp_path / "rows-{SPAN}.csv"))
    with pytest.raises(PipelineError, match=r"^Ingest: .*Cannot find matching for split train"):
        ingest_only(tmp_path, config, span=5)


def test_the_latest_version_of_a_span_is_taken(tmp_path):
    for version in (1, 2):
        write_span(tmp_path / "data" / f"span-3-v{version}" / "rows.csv", float(version))
    pattern = tmp_path / "data" / "span-{SPAN}-v{VERSION}" / "rows.csv"
    execution = ingest_only(tmp_path, configuration(dict.fromkeys(SPLITS, pattern)))
    assert ages_of(execution) == {2.0}
    assert artifact(execution).properties["version"] == 2


def test_what_is_new_is_read_and_what_is_not_comes_from_the_cache(tmp_path):
    path = write_span(tmp_path / "data" / "span-1" / "rows.csv", 1.0)
    config = configuration(dict.fromkeys(SPLITS, tmp_path / "data" / "span-{SPAN}" / "rows.csv"))
    first = ingest_only(tmp_path, config)
    again = ingest_only(tmp_path, config)
    assert (first.state, again.state) == ("complete", "cached")
    assert artifact(again).uri == artifact(first).uri

    # The same size: only the time of the file, to the second, tells that it has changed.
    status = path.stat()
    write_span(path, 3.0)
    os.utime(path, (status.st_atime, status.st_mtime + 1))
    assert path.stat().st_size == status.st_size
    changed = ingest_only(tmp_path, config)
    assert (changed.state, ages_of(changed)) == ("complete", {3.0})

    write_span(tmp_path / "data" / "span-2" / "rows.csv", 2.0)
    new = ingest_only(tmp_path, config)
    assert (new.state, ages_of(new)) == ("complete", {2.0})

    fewer = configuration(dict.fromkeys(SPLITS, config.data.train), slices=[])
    other = ingest_only(tmp_path, fewer)
    assert other.state == "complete"
    assert "region" not in examples_of(other, "train")[0]


# Before any work


def test_sources_are_absolute_and_keep_the_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configuration(
        {"train": "data/*.csv", "validation": "../v.csv", "test": "gs://bucket/t-{SPAN}.csv"}
    )
    assert sources_of(config) == {
        "train": f"{tmp_path}/data/*.csv",
        "validation": f"{tmp_path.parent}/v.csv",
        "test": "gs://bucket/t-{SPAN}.csv",
    }


def test_relative_sources_are_read(tmp_path, monkeypatch):
    write(tmp_path / "rows.csv")
    monkeypatch.chdir(tmp_path)
    config = configuration(dict.fromkeys(SPLITS, "rows.csv"))
    assert examples_of(ingest_only(tmp_path, config), "test") == EXPECTED


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": "a.csv", "validation": "b.csv"}, "data.test: .* got nothing"),
        (
            {"train": ["a.csv", "b.csv"], "validation": "c.csv", "test": "d.csv"},
            r"data.train: .* one path or glob pattern, got \['a.csv', 'b.csv'\]",
        ),
        (
            {"train": "a.csv", "validation": "c.csv", "test": []},
            r"data.test: .* one path or glob pattern, got \[\]",
        ),
    ],
    ids=["no test", "two files", "no file"],
)
def test_a_part_that_is_not_one_path_or_pattern_is_refused(data, message, tmp_path):
    plain = {
        "data": data,
        "features": FEATURES,
        "tasks": TASKS,
        "stage1": {"tasks": ["click"]},
    }
    config = parse(Config, plain, "the test")
    with pytest.raises(PipelineError, match=message):
        runs.run_pretrain(config, tmp_path / "out")
    assert not list(tmp_path.rglob("*.sqlite"))


def test_a_list_of_one_path_is_that_path():
    plain = {
        "data": {"train": ["/a.csv"], "validation": ["/b.csv"], "test": ["/c.csv"]},
        "features": FEATURES,
        "tasks": TASKS,
        "stage1": {"tasks": ["click"]},
    }
    assert sources_of(parse(Config, plain, "the test")) == {
        "train": "/a.csv",
        "validation": "/b.csv",
        "test": "/c.csv",
    }


def checked(config, span=None):
    return check_sources(config, sources_of(config), config.tasks, span)


@pytest.mark.parametrize("lost", ["age", "clicked", "importance", "seen", "region"])
def test_a_column_that_is_missing_is_named_before_any_work(tmp_path, lost):
    good = write(tmp_path / "good.csv")
    bad = write(tmp_path / "bad.parquet", without(lost))
    config = configuration({"train": good, "validation": good, "test": bad})
    with pytest.raises(DataError) as raised:
        runs.run_pretrain(config, tmp_path / "out", progress=False)
    assert str(raised.value).startswith(f"{bad}: no column '{lost}'")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_file_is_named_before_any_work(tmp_path):
    good = write(tmp_path / "good.csv")
    for name in ("none.csv", "none-*.csv", "none/*/x.csv"):
        config = configuration({"train": good, "validation": tmp_path / name, "test": good})
        with pytest.raises(DataError) as raised:
            runs.run_pretrain(config, tmp_path / "out", progress=False)
        assert str(raised.value) == f"{tmp_path / name}: no such file"
    assert list((tmp_path / "out").iterdir()) == []


def test_the_column_that_parts_the_rows_is_checked(tmp_path):
    path = write(tmp_path / "rows.csv", without("user"))
    with pytest.raises(DataError, match=r"rows\.csv: no column 'user'"):
        checked(split_config(path))


def test_the_files_of_the_span_are_checked_and_not_those_of_others(tmp_path):
    write(tmp_path / "span-1" / "rows.csv", without("region"))
    write(tmp_path / "span-2" / "rows.csv")
    pattern = tmp_path / "span-{SPAN}" / "rows.csv"
    config = configuration(dict.fromkeys(SPLITS, pattern))
    assert checked(config) == dict.fromkeys(SPLITS, str(tmp_path / "span-2" / "rows.csv"))
    with pytest.raises(DataError, match=r"span-1/rows\.csv: no column 'region'"):
        checked(config, span=1)
    with pytest.raises(DataError) as raised:
        runs.run_pretrain(config, tmp_path / "out", span=3, progress=False)
    assert str(raised.value).startswith(f"span 3: {pattern}, ")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_span_of_paths_without_one_is_refused(tmp_path):
    config = configuration(dict.fromkeys(SPLITS, write(tmp_path / "rows.csv")))
    with pytest.raises(DataError, match=rf"^span 3: {tmp_path}/rows\.csv, .*should be specified"):
        checked(config, span=3)


def test_splits_whose_latest_spans_differ_are_refused(tmp_path):
    for split, span in {"train": 1, "validation": 1, "test": 2}.items():
        write(tmp_path / f"{split}-{span}.csv")
    config = configuration({split: tmp_path / f"{split}-{{SPAN}}.csv" for split in SPLITS})
    with pytest.raises(DataError, match="Latest span should be the same for each split"):
        checked(config)


# Memory


def test_rows_are_written_as_they_are_read(tmp_path, monkeypatch):
    made = []
    most = 0

    class Examples(list):
        """A list that can be watched."""

    def watch(item):
        nonlocal most
        made.append(weakref.ref(item))
        most = max(most, sum(reference() is not None for reference in made))
        return item

    def watched_examples(*arguments):
        return watch(Examples(raw_examples(*arguments)))

    def counting_reader(*_, **__):
        for start in range(0, 5000, 10):
            numbers = range(start, start + 10)
            table = pa.table(
                {
                    "age": [float(i) for i in numbers],
                    "user": [f"user {i}" for i in numbers],
                    "clicked": [i % 2 for i in numbers],
                }
            )
            yield Chunk(watch(table), "rows")
            del table

    config = split_config(tmp_path / "rows.csv")
    settings = IngestConfig(config.spec, ("user",), 0, config.pipeline.split).to_json()
    monkeypatch.setattr(example_gen, "read_chunks", counting_reader)
    monkeypatch.setattr(example_gen, "raw_examples", watched_examples)
    writer = WriteFile(settings, str(tmp_path / "examples"), str(tmp_path))
    assert list(writer.process(("train", 0, str(tmp_path / "rows.csv")))) == []
    summary = json.loads((tmp_path / "train-00000.json").read_text())
    assert sum(summary["rows"].values()) == 5000
    assert most <= 4  # rows and examples of a chunk and of the one before


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.tfrecord"])
def test_rows_of_several_chunks_keep_their_order_and_their_bad_ones_are_counted(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 16)
    columns = {
        "age": [float(i) for i in range(100)],
        "clicked": [9 if i in (0, 15, 16, 99) else i % 2 for i in range(100)],
    }
    path = write(tmp_path / name, columns)
    config = configuration(
        dict.fromkeys(SPLITS, path),
        features=FEATURES[:1],
        tasks=[{"name": "click", "label": "clicked"}],
        slices=[],
        checks={"max_bad_rows": 4},
    )
    execution = ingest_only(tmp_path, config)
    good = [i for i in range(100) if i not in (0, 15, 16, 99)]
    assert [example["age"] for example in examples_of(execution, "test")] == [[i] for i in good]
    assert artifact(execution).properties["bad_rows:test"] == 4


def test_tasks_of_which_a_source_has_no_label_are_not_labelled(tmp_path):
    tasks = [Task(name, name) for name in ("click", "like", "buy")]
    rows = {"train": "click,like,tags\n1,,a\n,,b\n", "test": "click,like,buy\n,1,1\n0,1,1\n"}
    sources = {split: str(tmp_path / f"{split}.csv") for split in rows}
    for split, text in rows.items():
        pathlib.Path(sources[split]).write_text(text)
    assert labelled(tasks, sources) == ["click"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_state_of_a_pattern_changes_with_its_files(scheme, tmp_path):
    def state_after(name, text, seconds):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (seconds, seconds))
        return state_of(f"{scheme}{tmp_path}/train-*.csv")

    first = state_after("train-0.csv", "click\n1\n", 1000)
    assert state_after("test-0.csv", "click\n", 2000) == first
    states = [
        first,
        state_after("train-0.csv", "click\n1\n0\n", 1000),
        state_after("train-0.csv", "click\n0\n1\n", 3000),
        state_after("train-1.csv", "click\n1\n", 1000),
    ]
    assert len({str(state) for state in states}) == len(states)
    assert [file.rpartition("/")[2] for file, *_ in states[-1]] == ["train-0.csv", "train-1.csv"]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_pattern_matches_no_hidden_file(scheme, tmp_path):
    (tmp_path / "rows.csv").write_text("click\n1\n")
    (tmp_path / ".partial-rows.csv").write_text("click\n")
    pattern = f"{scheme}{tmp_path}/*.csv"
    assert find_files(pattern) == [f"{scheme}{tmp_path}/rows.csv"]
    assert [file for file, *_ in state_of(pattern)] == [f"{scheme}{tmp_path}/rows.csv"]


def test_labels_are_found_beside_lists(tmp_path):
    file = tmp_path / "rows.tfrecord"
    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    tags = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"a", b"b", b"c"]))
    example = tf.train.Example(features=tf.train.Features(feature={"click": label, "tags": tags}))
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(example.SerializeToString())
    assert labelled([Task("click", "click"), Task("buy", "buy")], {"train": str(file)}) == ["click"]


def test_a_labelled_row_of_weight_0_keeps_its_label():
    table = pa.table({"clicked": [1, 1, None], "importance": [0.0, 2.0, 3.0]})
    task = Task("click", "clicked", weight="importance")
    rows = [
        tf.train.Example.FromString(row).features.feature
        for row in raw_examples(Chunk(table, "rows"), [], [task])
    ]
    weights = [row["weight:click"].float_list.value[0] for row in rows]
    assert weights == [pytest.approx(0.0, abs=1e-30), 2.0, 0.0]
    assert weights[0] > 0
