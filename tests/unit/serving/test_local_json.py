"""JSON of the REST API: what is read, what is written, what is refused."""

import base64
import json
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.serving.local.errors import RequestError
from mptrec_tf.serving.local.json_examples import read_examples
from mptrec_tf.serving.local.json_inputs import read_inputs
from mptrec_tf.serving.local.json_outputs import decimals, write_outputs
from mptrec_tf.serving.local.json_values import parse, shown, signature_name, to_bytes
from mptrec_tf.serving.local.servable import Signature
from mptrec_tf.serving.local.tensors import TensorSpec

FLOAT, INT32, STRING, BOOL, INT64 = (
    dtype.as_datatype_enum for dtype in (tf.float32, tf.int32, tf.string, tf.bool, tf.int64)
)


def signature(**dtypes):
    inputs = {name: TensorSpec(f"{name}:0", dtype, None) for name, dtype in sorted(dtypes.items())}
    return Signature(None, inputs, {})


def message(function, *args):
    with pytest.raises(RequestError) as raised:
        function(*args)
    assert raised.value.code.name == "INVALID_ARGUMENT"
    return raised.value.message


def test_rows_and_columns_give_the_same_arrays():
    two = signature(age=FLOAT, tags=STRING)
    rows = [{"age": 1, "tags": ["a", "é"]}, {"age": 2.5, "tags": [{"b64": "/w=="}, ""]}]
    columns = {"age": [1, 2.5], "tags": [["a", "é"], [{"b64": "/w=="}, ""]]}
    for document, by_row in (({"instances": rows}, True), ({"inputs": columns}, False)):
        found, arrays = read_inputs(document, two)
        assert found is by_row
        assert arrays["age"].dtype == np.float32
        assert arrays["age"].tolist() == [1, 2.5]
        assert arrays["tags"].tolist() == [[b"a", "é".encode()], [b"\xff", b""]]


@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize(
    ("dtype", "values"),
    [(FLOAT, [[1, 2], [3, 4.5]]), (INT32, [1, -2]), (BOOL, [True, False]), (INT64, [2**62])],
    ids=str,
)
def test_one_input_stands_bare(key, dtype, values):
    _, arrays = read_inputs({key: values}, signature(x=dtype))
    assert arrays["x"].tolist() == values
    assert tf.as_dtype(arrays["x"].dtype).as_datatype_enum == dtype


@pytest.mark.parametrize(
    ("dtype", "values", "says"),
    [
        (FLOAT, [True], "Type: Bool is not of expected type: float"),
        (FLOAT, [None], "Type: Null is not of expected type: float"),
        (FLOAT, ["1"], "Type: String is not of expected type: float"),
        (FLOAT, [{"b64": ""}], "Type: Object is not of expected type: float"),
        (FLOAT, [1e39], "a value is out of the range of float"),
        (INT32, [1.0], "Type: Number is not of expected type: int32"),
        (INT32, [2**31], "a value is out of the range of int32"),
        (STRING, [1], "Type: Number is not of expected type: string"),
        (STRING, [{"b64": "a b"}], "Unable to base64 decode"),
        (STRING, ["\ud800"], "is no Unicode text"),
        (BOOL, [1], "is not of expected type: bool"),
        (FLOAT, [[1], 2], "found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        (FLOAT, [1, [2]], "Encountered list at unexpected level: 1"),
        (FLOAT, [[1], [2, 3]], "Encountered list at unexpected size: 2 at level: 1"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_refused(dtype, values, says):
    assert says in message(read_inputs, {"inputs": values}, signature(x=dtype))


def test_deep_lists_are_refused():
    value = []
    for _ in range(40):
        value = [value]
    assert "more than 32 dimensions" in message(read_inputs, {"inputs": value}, signature(x=FLOAT))


@pytest.mark.parametrize("depth", [2_000, 1_000_000])
def test_deep_documents_are_refused(depth):
    body = b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"
    assert "nested too deep" in message(parse, body)


@pytest.mark.parametrize(
    "body",
    [b"", b"[1]", b"{", b'{"a": 1} 2', b'{"a": 1e999}', b'{"a": "\xff"}', b"1" * 5000],
    ids=str,
)
def test_what_is_no_json_object_is_refused(body):
    message(parse, body)


def test_text_that_is_no_unicode_is_refused():
    document = parse(b'{"signature_name": "\\ud800"}')
    assert "is no Unicode text" in message(signature_name, document)
    assert "is no Unicode text" in message(to_bytes, "\ud800")


def test_long_values_are_cut_in_messages():
    value = {"x": list(range(10_000))}
    assert shown(value) == json.dumps(value)[:256]


@hypothesis.given(st.floats(width=32))
def test_a_float_is_written_so_that_it_comes_back(value):
    [text] = decimals(np.float32([value]))
    assert any(mark in text for mark in ".eNI")
    np.testing.assert_array_equal(np.float32(json.loads(text)), np.float32(value))


@hypothesis.given(st.floats())
def test_a_double_is_written_so_that_it_comes_back(value):
    np.testing.assert_array_equal(json.loads(decimals(np.float64([value]))[0]), value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1 / 3, "0.333333343"),
        (9_000_000, "9e+06"),
        (0.00003, "3e-05"),
        (2, "2.0"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
    ],
)
def test_a_float_has_the_digits_of_tensorflow_serving(value, text):
    assert decimals(np.float32([value])) == [text]


def test_outputs_by_row_and_by_column():
    outputs = {
        "raw_bytes": np.array([b"\xff", b"a"], object),
        "rank": np.int64([[1], [2]]),
        "top": np.array([True, False]),
        "word": np.array(["é".encode(), b'"'], object),
    }
    assert json.loads(write_outputs(outputs, rows=True)) == {
        "predictions": [
            {"raw_bytes": {"b64": "/w=="}, "rank": [1], "top": True, "word": "é"},
            {"raw_bytes": {"b64": "YQ=="}, "rank": [2], "top": False, "word": '"'},
        ]
    }
    assert json.loads(write_outputs(outputs, rows=False)) == {
        "outputs": {
            "raw_bytes": [{"b64": "/w=="}, {"b64": "YQ=="}],
            "rank": [[1], [2]],
            "top": [True, False],
            "word": ["é", '"'],
        }
    }


def test_outputs_without_common_rows_are_refused_by_row_only():
    outputs = {"a": np.float32([1, 2]), "b": np.float32([1])}
    assert "b has inconsistent batch size: 1 expecting: 2" in message(
        lambda: write_outputs(outputs, rows=True)
    )
    assert json.loads(write_outputs(outputs, rows=False))["outputs"]["b"] == [1.0]
    scalar = {"a": np.float32(1)}
    assert "has no shape information" in message(lambda: write_outputs(scalar, rows=True))
    assert json.loads(write_outputs(scalar, rows=False)) == {"outputs": 1.0}


def test_bytes_that_are_no_text_need_the_name():
    outputs = {"word": np.array([b"\xff"], object)}
    assert "ends in '_bytes'" in message(lambda: write_outputs(outputs, rows=False))


def test_examples_have_the_features_of_their_json():
    document = {
        "context": {"flag": True},
        "examples": [
            {"a": 1, "b": [1.0, 2.5], "c": ["x", {"b64": base64.b64encode(b"\xff").decode()}]},
            {"d": []},
        ],
    }
    given = read_examples(document).example_list_with_context
    assert given.context.features.feature["flag"].int64_list.value == [1]
    first, second = (example.features.feature for example in given.examples)
    assert first["a"].int64_list.value == [1]
    assert first["b"].float_list.value == [1.0, 2.5]
    assert first["c"].bytes_list.value == [b"x", b"\xff"]
    assert second["d"].WhichOneof("kind") is None


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        ([{"a": [1, 2.0]}], "Unexpected element type in feature: a expecting type: int64"),
        ([{"a": [1.0, 2]}], "Unexpected element type in feature: a expecting type: float"),
        ([{"a": [[1]]}], "Feature: a has element with unexpected JSON type: Array"),
        ([{"a": {"c": 1}}], "Feature: a has element with unexpected JSON type: Object"),
        ([{"a": 2**63}], "Feature: a has uint64_t element. Only int64_t is supported."),
        ([{"\ud800": 1}], "is no Unicode text"),
        (["a"], "Example must be JSON object but got JSON String"),
    ],
    ids=str,
)
def test_examples_that_cannot_be_are_refused(examples, says):
    assert says in message(read_examples, {"examples": examples})
