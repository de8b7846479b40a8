import numpy as np
import pyarrow as pa
import pytest

from mptrec_tf import DataError, Task
from mptrec_tf.data import Chunk, encode_labels
from mptrec_tf.data.labels import RuleCounts, check_labels, require_labels

NAN = np.nan


def encode(task, **columns):
    labels, weights = encode_labels([task], Chunk(pa.table(columns), "rows.csv"))
    for values in (*labels.values(), *weights.values()):
        assert values.dtype == np.float32
    return labels["t"], weights.get("t")


@pytest.mark.parametrize(
    ("rule", "cells", "expected"),
    [
        ({}, [0, 1, None], [0, 1, NAN]),
        ({}, ["0", " 1", ""], [0, 1, NAN]),
        ({}, [True, False, None], [1, 0, NAN]),
        ({"positive": "yes"}, ["yes", "no", None, "", " yes"], [1, 0, NAN, NAN, 0]),
        ({"positive": 1}, [1, 2, None], [1, 0, NAN]),
        ({"positive": 1}, [1.0, 2.0, NAN], [1, 0, NAN]),
        ({"positive": 1}, ["1.0", "0.0", "", "10", "1.5", "1.00", "x1.0"], [1, 0, NAN, 0, 0, 1, 0]),
        ({"negative": ("-2", "no")}, ["-2.0", "2.0", "no.0", "-2"], [0, 1, 1, 0]),
        ({"positive": "1.0"}, ["1.0", "1"], [1, 0]),
        ({"positive": ("a", 3)}, ["a", "b", "3", "aa"], [1, 0, 1, 0]),
        ({"negative": "no"}, ["yes", "no", None, ""], [1, 0, NAN, NAN]),
        ({"negative": (0, "none")}, ["0", "1", "none"], [0, 1, 0]),
        ({"above": 10}, ["9.5", "10", "10.5", "-inf", None], [0, 0, 1, 0, NAN]),
        (
            {"kind": "multiclass", "classes": ("c", "a", "b")},
            ["a", "b", "c", None, ""],
            [1, 2, 0, NAN, NAN],
        ),
        ({"kind": "multiclass", "classes": ("1", "5")}, [5, 1, None], [1, 0, NAN]),
        ({"kind": "regression"}, ["-1.5", "", "2e3"], [-1.5, NAN, 2000]),
    ],
)
def test_labels_follow_the_rule_and_an_empty_cell_is_no_label(rule, cells, expected):
    labels, weights = encode(Task("t", "cell", **rule), cell=cells)
    np.testing.assert_array_equal(labels, np.array(expected, np.float32))
    assert weights is None


def test_a_mask_takes_labels_away():
    labels, _ = encode(Task("t", "cell", mask="m"), cell=[1, 1, 1, 0], m=[1, 0, None, 1])
    np.testing.assert_array_equal(labels, [1, NAN, NAN, 0])


@pytest.mark.parametrize(
    ("task", "cells", "expected"),
    [
        ({}, ["1", "7", "unknown"], [1, NAN, NAN]),
        ({}, [0, 2, -1], [0, NAN, NAN]),
        ({"positive": "3"}, [3.0, 0.5, np.inf], [1, NAN, NAN]),
        ({"negative": "b"}, [b"a", b"\xff", b""], [1, NAN, NAN]),
        ({"above": 10}, ["11", "many", ""], [1, NAN, NAN]),
        ({"kind": "multiclass", "classes": ("a", "b")}, ["b", "c", "-"], [1, NAN, NAN]),
        ({"kind": "regression"}, [2.5, np.inf, 1e39], [2.5, NAN, NAN]),
    ],
)
def test_a_label_that_is_none_is_refused_only_where_the_mask_is_1(task, cells, expected):
    task = Task("t", "cell", mask="m", **task)
    labels, _ = encode(task, cell=cells, m=[1, 0, None])
    np.testing.assert_array_equal(labels, np.array(expected, np.float32))
    counted = RuleCounts([task])
    counted.update(Chunk(pa.table({"cell": cells}), "rows.csv"), {"t": np.full(3, NAN)})
    with pytest.raises(DataError, match="column 'cell'"):
        encode(task, cell=cells, m=[1, 1, 0])


def test_a_wrong_weight_is_refused_only_where_there_is_a_label_and_is_0_elsewhere():
    task = Task("t", "cell", mask="m", weight="w")
    columns = {"cell": [1, None, 0, 1, None], "m": [1, 1, 0, None, 1]}
    for weights in ([2.5, None, -1.0, np.inf, 3.0], ["2.5", "", "-1", "nan", "3"]):
        labels, found = encode(task, **columns, w=weights)
        np.testing.assert_array_equal(labels, [1, NAN, NAN, NAN, NAN])
        np.testing.assert_array_equal(found, [2.5, 0, 0, 0, 3])
    with pytest.raises(DataError, match="column 'w' of the task 't' has -1, expected a weight"):
        encode(task, **columns, w=[-1.0, 1, 1, 1, 1])


def test_weights_are_given_beside_the_labels():
    labels, weights = encode(Task("t", "cell", weight="w"), cell=[1, 0], w=["0", "2.5"])
    np.testing.assert_array_equal(labels, [1, 0])
    np.testing.assert_array_equal(weights, [0, 2.5])


def test_tasks_may_share_a_column():
    chunk = Chunk(pa.table({"seconds": [5, 50]}), "rows.csv")
    tasks = [
        Task("stay", "seconds", above=10),
        Task("time", "seconds", kind="regression"),
        Task("paid", "seconds", above=1, mask="seconds_known", weight="seconds"),
    ]
    chunk = Chunk(chunk.table.append_column("seconds_known", pa.array([0, 1])), "rows.csv")
    labels, weights = encode_labels(tasks, chunk)
    np.testing.assert_array_equal(labels["stay"], [0, 1])
    np.testing.assert_array_equal(labels["time"], [5, 50])
    np.testing.assert_array_equal(labels["paid"], [NAN, 1])
    assert weights.keys() == {"paid"}


@pytest.mark.parametrize(
    ("task", "columns", "message"),
    [
        (Task("t", "cell"), {"cell": [0, 2]}, "column 'cell' of the task 't' has 2, expected 0 or"),
        (Task("t", "cell"), {"cell": ["yes"]}, "column 'cell' should hold numbers, but has 'yes'"),
        (Task("t", "cell", above=3), {"cell": ["many"]}, "column 'cell' .* has 'many'"),
        (Task("t", "cell", positive="1"), {"cell": [0.5]}, "column 'cell' .* has 0.5"),
        (
            Task("t", "cell", kind="multiclass", classes=("a", "b")),
            {"cell": ["a", "", "c"]},
            r"column 'cell' has 'c', which is none of the classes of the task 't': \['a', 'b'\]",
        ),
        (
            Task("t", "cell", kind="regression"),
            {"cell": [1.0, np.inf]},
            "column 'cell' of the task 't' has inf, expected a finite number",
        ),
        (
            Task("t", "cell", kind="regression"),
            {"cell": [1.8e19, 1.9e19]},
            r"column 'cell' of the task 't' has 1.9e\+19, expected a finite number, of 1.8e\+19",
        ),
        (
            Task("t", "cell", mask="m"),
            {"cell": [1, 1], "m": [1, 3]},
            "column 'm' of the task 't' has 3, expected 0 or 1",
        ),
        *(
            (
                Task("t", "cell", weight="w"),
                {"cell": [1, 1], "w": [1.0, weight]},
                f"column 'w' of the task 't' has {weight:g}, expected a weight of 0 or more",
            )
            for weight in (-1.0, NAN, np.inf)
        ),
    ],
)
def test_what_is_no_label_is_refused_with_file_column_and_value(task, columns, message):
    with pytest.raises(DataError, match=f"rows.csv: {message}"):
        encode(task, **columns)


@pytest.mark.parametrize(
    ("task", "good", "bad", "expected"),
    [
        (Task("t", "c"), [0, 1, NAN], 0.5, "is 0.5, expected 0 or 1"),
        (
            Task("t", "c", kind="multiclass", classes=("a", "b")),
            [0, 1, NAN],
            2,
            "is 2, expected a class index from 0 to 1",
        ),
        (Task("t", "c", kind="regression"), [-7, 1e9, NAN], np.inf, "is inf, expected a finite"),
        (Task("t", "c", kind="regression"), [1.8e19], -1.9e19, r"is -1.9e\+19, expected a finite"),
    ],
)
def test_labels_in_memory_are_checked_too(task, good, bad, expected):
    check_labels(task, np.array(good), "y")
    with pytest.raises(DataError, match=f"y: a label of the {task.kind} task 't' {expected}"):
        check_labels(task, np.array([*good, bad]), "y")


def test_a_task_without_any_label_is_named():
    tasks = [Task("a", "x"), Task("b", "y", mask="m")]
    require_labels(tasks, {"a": 1, "b": 1}, "rows.csv")
    with pytest.raises(DataError, match=r"rows.csv: no row has a label of the task 'b' .*'y', 'm'"):
        require_labels(tasks, {"a": 1, "b": 0}, "rows.csv")


def rule_counts(tasks, *tables):
    counts = RuleCounts(tasks)
    for table in tables:
        chunk = Chunk(pa.table(table), "rows.csv")
        counts.update(chunk, encode_labels(tasks, chunk)[0])
    return counts


@pytest.mark.parametrize(
    ("rule", "matched", "text"),
    [
        ({"positive": "a"}, True, ""),
        ({"negative": "c"}, True, ""),
        ({"positive": ("A", "c")}, True, ""),
        ({"positive": 3}, False, "positive=3"),
        ({"positive": "A"}, False, "positive='A'"),
        ({"negative": ("A", "C")}, False, r"negative=\('A', 'C'\)"),
        ({"positive": "masked"}, False, "positive='masked'"),
        ({"positive": ""}, False, "positive=''"),
    ],
)
def test_a_rule_that_matches_no_row_is_refused_with_what_the_column_holds(rule, matched, text):
    tasks = [Task("t", "cell", mask="m", **rule), Task("u", "other", above=2)]
    first = {"cell": ["b", "a", "b", None], "m": [1, 1, 1, 1], "other": [1, 2, 3, 4]}
    second = {"cell": ["c", "b", "masked", "a"], "m": [1, 1, 0, 1], "other": [1, 2, 3, 4]}
    whole, other = rule_counts(tasks, first, second), rule_counts(tasks, second)
    merged = rule_counts(tasks, first)
    merged.merge(other.unmatched)
    for counts in (whole, merged):
        counts.require(["u"], "rows.csv")
        if matched:
            counts.require(["t", "u"], "rows.csv")
            continue
        message = (
            f"rows.csv: no label of the task 't' in column 'cell' is {text}, so all rows have the "
            r"same label; the most frequent values are \['b', 'a', 'c'\]"
        )
        with pytest.raises(DataError, match=message):
            counts.require(["t", "u"], "rows.csv")


@pytest.mark.parametrize(
    ("rule", "cells", "message"),
    [
        ({}, ["1", "", "1.0"], "are 1$"),
        ({}, [0, 0, None], "are 0$"),
        ({"above": 100.0}, [5, 7, None], r"are 0 by above=100\.0$"),
        ({"positive": ("a", "b")}, ["a", "b", ""], r"are 1 by positive=\('a', 'b'\)$"),
    ],
)
def test_labels_that_are_all_the_same_are_refused(rule, cells, message):
    task = Task("t", "cell", mask="m", **rule)
    counts = rule_counts([task], {"cell": cells, "m": [1, 1, 1]}, {"cell": cells, "m": [1, 0, 0]})
    counts.require(["u"], "rows.csv")
    with pytest.raises(
        DataError, match=f"rows.csv: all labels of the task 't' in column 'cell' {message}"
    ):
        counts.require(["t"], "rows.csv")


def test_labels_of_both_classes_are_not_refused_nor_those_that_were_not_counted():
    tasks = [Task("t", "cell"), Task("r", "cell", kind="regression")]
    rule_counts(tasks, {"cell": [0, None]}, {"cell": [1, 1]}).require(["t", "r"], "rows.csv")
    rule_counts(tasks).require(["t", "r"], "rows.csv")


def test_the_texts_of_a_column_of_many_take_bounded_memory(monkeypatch):
    monkeypatch.setattr("mptrec_tf.data.labels.MAX_TEXTS", 8)
    tables = [{"cell": [f"{part}-{i}" for i in range(6)] + ["often"] * 2} for part in range(9)]
    counts = rule_counts([Task("t", "cell", positive="never")], *tables)
    assert len(counts.unmatched["t"]) <= 8
    with pytest.raises(DataError, match=r"the most frequent values are \['often', "):
        counts.require(["t"], "rows.csv")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"column 'cell' .* 'yes'; the task 't' reads it \(or give the task a rule"),
        ({"mask": "words", "positive": "yes"}, r"column 'words' .* 'a'; the task 't' reads it$"),
        ({"weight": "words", "positive": "yes"}, r"column 'words' .* 'a'; the task 't' reads it$"),
    ],
)
def test_text_where_a_task_reads_numbers(settings, message):
    with pytest.raises(DataError, match=message):
        encode(Task("t", "cell", **settings), cell=["yes", "no"], words=["a", "b"])
