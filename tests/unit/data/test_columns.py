import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from mptrec_tf import DataError
from mptrec_tf.data.columns import as_floats, as_lists, as_strings, decimal_text, require_columns


def column(values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (column(["a", "", None, " b"]), ["a", "", None, " b"]),
        (column(["a"], pa.large_string()), ["a"]),
        (column([b"\xc3\xa9", None]), ["é", None]),
        (column([3, -1, None]), ["3", "-1", None]),
        (column([3.0, np.nan, None, -0.0]), ["3", None, None, "0"]),
        (column([np.float16(2)], pa.float16()), ["2"]),
        (column([True, False, None]), ["1", "0", None]),
        (column([Decimal(7), None, Decimal(-8)], pa.decimal128(9, 0)), ["7", None, "-8"]),
        (column([Decimal(10**37 + 1)], pa.decimal128(38, 0)), [str(10**37 + 1)]),
        (column([Decimal(300)], pa.decimal256(50, 0)), ["300"]),
        (column([Decimal(300), None], pa.decimal128(9, 2)), ["300", None]),
        (column([Decimal(300)], pa.decimal128(9, -2)), ["300"]),
        (column(["a", None, "ü" * 20], pa.string_view()), ["a", None, "ü" * 20]),
        (column([b"a", None], pa.binary_view()), ["a", None]),
        (column([None, None]), [None, None]),
        (column(["b", "a", "b", None]).dictionary_encode(), ["b", "a", "b", None]),
        (pa.chunked_array([["a"], ["b", "c"]]), ["a", "b", "c"]),
        (pa.chunked_array([], pa.string()), []),
        (column(["a", "b", "c"]).slice(1, 1), ["b"]),
    ],
)
def test_categories_become_text_and_whole_numbers_their_decimal_text(values, expected):
    texts = as_strings(values, "city", "rows.csv")
    assert texts.type == pa.string()
    assert texts.to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (column([1.0, 2.5]), "2.5"),
        (column([float("inf")]), "inf"),
        (column([1e300]), "1e+300"),
        (column([Decimal("2.5")], pa.decimal128(9, 2)), "2.5"),
        (column([b"\xff"], pa.binary_view()), "not UTF-8"),
        (column([2.0**53 + 2]), "9007199254740994"),  # other ids may have become this one
        (column([2.0**24 + 2], pa.float32()), "16777218"),
        (column([np.float16(2050)], pa.float16()), "2050"),
        (
            pa.chunked_array([column([2.0**24 + 2], pa.float32()).chunk(0).dictionary_encode()]),
            "18",
        ),
        (column([[1]]), "list<item: int64>"),
        (column([datetime.date(2024, 1, 1)]), "date32"),
        (column([b"\xff"]), "not UTF-8"),
    ],
)
def test_what_is_no_category_is_refused_with_file_column_and_value(values, named):
    with pytest.raises(DataError) as caught:
        as_strings(values, "city", "rows.csv")
    assert str(caught.value).startswith("rows.csv: column 'city' ")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (column(["1.5", " 2 ", "", "  ", None, "1e3", "-.5"]), [1.5, 2, *3 * [np.nan], 1000, -0.5]),
        (column([b"1.5", None]), [1.5, np.nan]),
        (column([b" 1.5", b"", b" ", b"2\t"]), [1.5, np.nan, np.nan, 2]),
        (column([b" 1.5", b""], pa.large_binary()), [1.5, np.nan]),
        (column([3, None]), [3, np.nan]),
        (column([True, False]), [1, 0]),
        (column([Decimal("2.5"), None], pa.decimal128(9, 2)), [2.5, np.nan]),
        (column([" 2.5", "", None], pa.string_view()), [2.5, np.nan, np.nan]),
        (column([b" 2.5"], pa.binary_view()), [2.5]),
        (column([0.1], pa.float64()), [0.1]),
        (column(["2", "1", "2"]).dictionary_encode(), [2, 1, 2]),
        (column([None]), [np.nan]),
        (column(["inf", "nan"]), [np.inf, np.nan]),
    ],
)
def test_numbers_are_read_from_text_and_from_any_number_type(values, expected):
    numbers = as_floats(values, "age", "rows.csv")
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (16777217.0, "16777217"),
        (-0.0, "0"),
        (2.0**53, "9007199254740992"),
        (2.0**54, "1.8014398509481984e+16"),
        (0.1, "0.1"),
        (float("inf"), "inf"),
    ],
)
def test_a_number_as_text_reads_back_as_the_same(number, text):
    assert decimal_text(number) == text
    assert as_floats(column([text]), "age", "") == [number]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (column(["1", "old", "x"]), "'old'"),
        (column(["1,5"]), "'1,5'"),
        (column(["1_000"]), "'1_000'"),
        (column([b"1", b"old"]), "'old'"),
        (column([b"1", b"\xff"]), "b'\\xff'"),
        (column([[1.0]]), "[1.0]"),
    ],
)
def test_what_is_no_number_is_refused_with_the_first_such_value(values, named):
    with pytest.raises(DataError) as caught:
        as_floats(values, "age", "rows.csv")
    assert str(caught.value) == f"rows.csv: column 'age' should hold numbers, but has {named}"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            column(["a|b", "", None, "a||b", "|"]),
            [["a", "b"], [""], None, ["a", "", "b"], ["", ""]],
        ),
        (column([["a", "b"], [], None, ["c", None]]), [["a", "b"], [], [], ["c", None]]),
        (column([[1, 2], [3]]), [["1", "2"], ["3"]]),
        (column([[Decimal(1)]], pa.list_(pa.decimal128(9, 0))), [["1"]]),
        (column([["a"]], pa.list_(pa.string_view())), [["a"]]),
        (column(["a|b"], pa.string_view()), [["a", "b"]]),
        (column([["a"]], pa.large_list(pa.string())), [["a"]]),
        (column([["a", "b"]], pa.list_(pa.string(), 2)), [["a", "b"]]),
        (column([["a"], ["b", "c"], ["d"]]).slice(1), [["b", "c"], ["d"]]),
        (column(["a", "b|c", "d"]).slice(1), [["b", "c"], ["d"]]),
        (column([7, 8]), [["7"], ["8"]]),
    ],
)
def test_lists_stay_lists_and_text_is_split(values, expected):
    assert as_lists(values, "tags", "|", "rows.csv").to_pylist() == expected


def test_a_separator_may_be_several_characters_and_is_no_pattern():
    assert as_lists(column(["a.*b.c"]), "tags", ".*", "").to_pylist() == [["a", "b.c"]]


def test_a_missing_column_is_named_with_the_one_that_was_meant():
    with pytest.raises(DataError) as caught:
        require_columns(["age", "city"], ["cty", "age", "zzz", "cty"], "rows.csv")
    assert str(caught.value) == (
        "rows.csv: no column 'cty' (did you mean 'city'?), 'zzz'; the columns are ['age', 'city']"
    )
