"""Rows become columns by the rules with which training reads them."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptrec_client import ClientError, RowError, TensorInfo
from mptrec_client.rows import encode_rows, to_array
from mptrec_tf import DataError
from mptrec_tf.data.columns import as_floats, as_lists, as_strings

NUMBER = TensorInfo("DT_FLOAT", (-1,))
TEXT = TensorInfo("DT_STRING", (-1,))
LIST = TensorInfo("DT_STRING", (-1, -1))
INPUTS = {"age": NUMBER, "city": TEXT, "tags": LIST}


def encode(cells, info):
    return encode_rows([{"x": cell} for cell in cells], {"x": info})["x"]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("Oslo", "Oslo"),
        (" b", " b"),
        (np.str_("é"), "é"),
        (b"\xc3\xa9", "é"),
        (3, "3"),
        (-(2**70), str(-(2**70))),
        (np.int8(-3), "-3"),
        (3.0, "3"),
        (-0.0, "0"),
        (np.float32(16777216), "16777216"),
        (2.0**53, "9007199254740992"),
        (decimal.Decimal("3.00"), "3"),
        (decimal.Decimal(2**60 + 1), str(2**60 + 1)),
        (True, "1"),
        (np.False_, "0"),
        ("", ""),
        (None, ""),
        (np.nan, ""),
        (np.float16("nan"), ""),
        (pd.NA, ""),
        (pd.NaT, ""),
        (decimal.Decimal("nan"), ""),
    ],
    ids=lambda value: f"{type(value).__name__}-{value!r}",
)
def test_a_category_is_text_or_a_whole_number(cell, text):
    (encoded,) = encode([cell], TEXT)
    assert encoded == text
    assert type(encoded) is str


@pytest.mark.parametrize(
    "cell",
    [
        *(2.5, np.inf, 2.0**53 + 2, decimal.Decimal("2.5"), decimal.Decimal("inf"), 1j),
        *(["a"], {}, datetime.date(2024, 1, 1), b"\xff", "\ud800"),
    ],
    ids=repr,
)
def test_what_is_no_category_is_refused_with_row_column_and_value(cell):
    with pytest.raises(RowError) as caught:
        encode(["a", cell], TEXT)
    assert str(caught.value) == (
        f"row 1: column 'x' should hold categories (text or whole numbers), but has {cell!r}"
    )


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (0.1, np.float32(0.1)),
        (3, 3),
        (True, 1),
        (np.int64(7), 7),
        (decimal.Decimal("1.5"), 1.5),
        (" 1e3 ", 1000),
        (b"-.5", -0.5),
        ("", np.nan),
        ("  ", np.nan),
        ("nan", np.nan),
        (None, np.nan),
        (pd.NA, np.nan),
        (np.nan, np.nan),
    ],
    ids=repr,
)
def test_a_number_may_be_of_any_type_or_text(cell, number):
    encoded = encode([cell], NUMBER)
    assert encoded.dtype == np.float32
    np.testing.assert_array_equal(encoded, np.array([number], np.float32))


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ("old", "should hold numbers, but has 'old'"),
        ("1_000", "should hold numbers, but has '1_000'"),
        ("\uff11", "should hold numbers, but has '\uff11'"),
        ([1.0], "should hold numbers, but has [1.0]"),
        (1j, "should hold numbers, but has 1j"),
        (10**400, "should hold numbers, but has 100000000000000000...0000000000000000000"),
        ("inf", "finite numbers within the range of float32, but has inf"),
        (-1e39, "finite numbers within the range of float32, but has -1e+39"),
    ],
    ids=["word", "underscore", "script", "list", "complex", "huge", "infinite", "too-large"],
)
def test_what_is_no_number_is_refused_with_row_column_and_value(cell, named):
    with pytest.raises(RowError, match=r"^row 1: column 'x' ") as caught:
        encode([1, cell], NUMBER)
    assert named in str(caught.value)


TRAINED = st.one_of(
    st.lists(st.one_of(st.none(), st.text("ab é", max_size=3)), min_size=1),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=1),
    st.lists(
        st.one_of(st.none(), st.floats(), st.integers(-9, 9).map(float), st.just(2.0**53)),
        min_size=1,
    ),
    st.lists(st.one_of(st.none(), st.decimals(-(10**18), 10**18, places=0)), min_size=1),
    st.lists(st.one_of(st.none(), st.decimals(-99, 99, places=1)), min_size=1),
)


def outcome(function, *errors):
    try:
        return function()
    except errors:
        return "refused"


def trained_categories(values):
    trained = outcome(lambda: as_strings(pa.array(values, from_pandas=True), "x", ""), DataError)
    return trained if isinstance(trained, str) else trained.fill_null("").to_pylist()


@given(TRAINED)
def test_categories_are_those_of_training(cells):
    """As pyarrow reads the same columns when a vocabulary is learned."""
    assert outcome(lambda: encode(cells, TEXT), RowError) == trained_categories(cells)
    frame = pd.DataFrame({"x": cells})
    served = outcome(lambda: encode_rows(frame, {"x": TEXT})["x"], RowError)
    assert served == trained_categories(frame["x"])


@pytest.mark.parametrize(
    "cells",
    [
        *(np.array([0, 7, 100], kind) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")),
        *(np.array([-7, 2**11, np.nan], kind) for kind in ("f2", "f4", "f8")),
        np.array([2**64 - 1], np.uint64),
        np.array([2.5], np.float32),
        np.array([True, False]),
        [np.str_("a"), "é", ""],
        [b"a", b"\xc3\xa9", np.bytes_(b""), None],
        [b"\xff"],
        [decimal.Decimal(text) for text in ("3", "-3.00", "1E+2", "-0.0", "nan")],
        [decimal.Decimal("3.5")],
        [datetime.date(2024, 1, 1)],
        [datetime.datetime(2024, 1, 1)],
        [datetime.timedelta(1)],
        [pd.Timestamp("2024-01-01")],
    ],
    ids=lambda cells: f"{getattr(cells, 'dtype', type(cells[0]).__name__)}-{cells[0]!r}",
)
def test_categories_of_every_type_are_those_of_training(cells):
    assert outcome(lambda: encode(list(cells), TEXT), RowError) == trained_categories(cells)
    frame = pd.DataFrame({"x": cells})
    assert outcome(lambda: encode_rows(frame, {"x": TEXT})["x"], RowError) == trained_categories(
        frame["x"]
    )


@given(st.one_of(TRAINED, st.lists(st.text("019.-+e_ anif", max_size=5), min_size=1)))
def test_numbers_are_those_of_training(cells):
    trained = outcome(lambda: as_floats(pa.array(cells, from_pandas=True), "x", ""), DataError)
    served = outcome(lambda: encode(cells, NUMBER), RowError)
    with np.errstate(over="ignore"):
        if isinstance(trained, str) or np.isinf(trained.astype(np.float32)).any():
            assert isinstance(served, str)
        else:
            np.testing.assert_array_equal(served, trained.astype(np.float32))


@given(st.lists(st.lists(st.one_of(st.none(), st.sampled_from(["a", "", "é"]))), min_size=1))
def test_lists_are_those_of_training(cells):
    trained = as_lists(pa.array(cells, pa.list_(pa.string())), "x", "|", "").to_pylist()
    assert encode(cells, LIST) == [[text or "" for text in texts] for texts in trained]


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        (["a", 2, 3.0, None], ["a", "2", "3", ""]),
        (("a",), ["a"]),
        (np.array([1, 2]), ["1", "2"]),
        ([], []),
        ("", []),
        (None, []),
        (np.nan, []),
    ],
    ids=repr,
)
def test_a_multivalued_cell_is_a_list(cell, texts):
    assert encode([cell], LIST) == [texts]


@pytest.mark.parametrize("cell", ["a|b", 7, {"a"}, [["a"]], [2.5], np.array([[1]])], ids=repr)
def test_without_a_separator_text_is_refused_with_what_would_help(cell):
    with pytest.raises(RowError) as caught:
        encode([cell], LIST)
    assert str(caught.value) == (
        "row 0: column 'x' should hold lists of categories, or text if the client is given "
        f"separators={{'x': ...}}, but has {cell!r}"
    )


@given(st.lists(st.one_of(st.none(), st.text("ab, é", max_size=6)), min_size=1))
@pytest.mark.parametrize("separator", [",", ", "])
def test_text_is_split_as_in_training(separator, cells):
    trained = as_lists(pa.array(cells, pa.string()), "x", separator, "").to_pylist()
    split = encode_rows([{"x": cell} for cell in cells], {"x": LIST}, {"x": separator})["x"]
    no_value = (None, [], [""])
    assert [[] if texts in no_value else texts for texts in split] == [
        [] if texts in no_value else texts for texts in trained
    ]


@pytest.mark.parametrize(
    ("cell", "texts"),
    [("a|b", ["a", "b"]), ("a", ["a"]), (b"a|b", ["a", "b"]), (7, ["7"]), (["a|b"], ["a|b"])],
    ids=repr,
)
def test_with_a_separator_lists_and_whole_numbers_are_taken_too(cell, texts):
    rows = [{"x": cell, "city": "a|b"}]
    columns = encode_rows(rows, {"x": LIST, "city": TEXT}, {"x": "|"})
    assert columns == {"x": [texts], "city": ["a|b"]}


@pytest.mark.parametrize("cell", [{"a"}, 2.5, b"\xff"], ids=repr)
def test_what_no_separator_makes_a_list_is_refused(cell):
    with pytest.raises(RowError, match="'x' should hold lists of categories, or text, but has "):
        encode_rows([{"x": cell}], {"x": LIST}, {"x": "|"})


def test_lists_are_padded_to_the_longest():
    padded = to_array([["a"], [], ["b", "c"]])
    assert padded.tolist() == [["a", ""], ["", ""], ["b", "c"]]
    assert to_array([[], []]).tolist() == [[""], [""]]


def test_a_frame_gives_what_its_rows_give():
    frame = pd.DataFrame(
        {
            "id": [10, 11],
            "age": pd.array([31, None], "Int64"),
            "city": [3, np.nan],  # integers become floats
            "tags": [["a"], None],
        }
    )
    expected = {"city": ["3", ""], "tags": [["a"], []]}
    of_frame = encode_rows(frame, INPUTS)
    of_rows = encode_rows(frame.to_dict("records"), INPUTS)
    for columns in (of_frame, of_rows):
        np.testing.assert_array_equal(columns.pop("age"), np.array([31, np.nan], np.float32))
        assert columns == expected


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pd.Series(["a", None], dtype="category"), ["a", ""]),
        (pd.Series(["a", None], dtype="string"), ["a", ""]),
        (pd.Series([True, None], dtype="boolean"), ["1", ""]),
        (pd.Series([True, False]), ["1", "0"]),
        (pd.Series([2**60, 1]), [str(2**60), "1"]),
    ],
    ids=["category", "string", "boolean", "bool", "int64"],
)
def test_columns_of_every_type_of_pandas(column, texts):
    assert encode_rows(pd.DataFrame({"x": column}), {"x": TEXT})["x"] == texts


def test_rows_may_be_mappings_of_any_order_with_more_keys():
    rows = [{"city": "Oslo", "id": 1, "age": 3}, {"age": 4, "city": None}]
    columns = encode_rows(rows, {"age": NUMBER, "city": TEXT})
    assert list(columns) == ["age", "city"]
    assert columns["city"] == ["Oslo", ""]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"age": 1, "city": ""}, {"age": 1, "cty": ""}],
            "row 1 has no column 'city' (did you mean 'cty'?); it has ['age', 'cty']",
        ),
        (
            pd.DataFrame({"age": [1]}),
            "the frame has no column 'city'; it has ['age']",
        ),
        (
            pd.DataFrame([[1, 2, 3]], columns=["age", "city", "city"]),
            "the frame has the column 'city' twice",
        ),
        ([[1, 2]], "row 0 should be a dict, but is [1, 2]"),
        ({"age": [1], "city": [""]}, "a dict for each row, or a pandas frame, but are a dict"),
        (iter([{}]), "but are a list_iterator"),
        ("rows.csv", "but are a str"),
    ],
    ids=["dict", "frame", "twice", "list", "columns", "iterator", "path"],
)
def test_unusable_rows_are_refused(rows, message):
    with pytest.raises(RowError) as caught:
        encode_rows(rows, {"age": NUMBER, "city": TEXT})
    assert message in str(caught.value)


def test_a_row_error_is_a_value_error():
    assert issubclass(RowError, ValueError)
    assert issubclass(RowError, ClientError)


@pytest.mark.parametrize("info", [TensorInfo("DT_INT64", (-1,)), TensorInfo("DT_FLOAT", None)])
def test_an_input_of_another_kind_is_no_error_of_the_rows(info):
    with pytest.raises(ClientError, match="the model's input 'x' is DT_") as caught:
        encode([1], info)
    assert not isinstance(caught.value, RowError)
