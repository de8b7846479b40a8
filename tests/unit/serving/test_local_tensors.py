"""Tensors on the wire against TensorFlow's own reading and writing of them."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from mptrec_tf.serving.local.errors import RequestError
from mptrec_tf.serving.local.tensors import MAX_REPEATED, TensorSpec, to_array, to_proto

ARRAYS = {
    "float": np.float32([[0.5, -1], [np.nan, np.inf]]),
    "double": np.float64([1 / 3]),
    "int64": np.int64([[2**62], [-1]]),
    "int32": np.int32([1, 2, 3]),
    "uint8": np.uint8([0, 255]),
    "bool": np.array([True, False]),
    "half": np.float16([0.5, 2]),
    "string": np.array([[b"a", b"\xff"], [b"", b"long"]], object),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "no strings": np.zeros((0,), object),
}


def spec_of(array, shape=None):
    dtype = tf.string if array.dtype == object else tf.as_dtype(array.dtype)
    return TensorSpec("x:0", dtype.as_datatype_enum, shape)


def error(proto, spec):
    with pytest.raises(RequestError) as raised:
        to_array(proto, spec, "x")
    assert raised.value.code.name == "INVALID_ARGUMENT"
    return raised.value.message


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_a_tensor_goes_there_and_back(array):
    spec = spec_of(array)
    theirs = tf.make_tensor_proto(array, tf.as_dtype(spec.dtype), array.shape)
    for proto in (theirs, to_proto(array, spec.dtype)):
        np.testing.assert_array_equal(to_array(proto, spec, "x"), array)
    np.testing.assert_array_equal(tf.make_ndarray(to_proto(array, spec.dtype)), array)


@pytest.mark.parametrize("array", [np.float32([7, 2]), np.array([b"a", b"b"], object)], ids=str)
def test_the_last_value_stands_for_the_rest(array):
    spec = spec_of(array)
    proto = to_proto(array, spec.dtype)
    proto.tensor_shape.dim[0].size = 4
    expected = [array[0], array[1], array[1], array[1]]
    assert to_array(proto, spec, "x").tolist() == expected
    proto.tensor_shape.dim[0].size = MAX_REPEATED + 1
    assert "tensor parsing error: x" in error(proto, spec)


@pytest.mark.parametrize("array", [np.float32([7, 2]), np.array([b"a", b"b"], object)], ids=str)
def test_too_many_values_are_refused(array):
    spec = spec_of(array)
    proto = to_proto(array, spec.dtype)
    proto.tensor_shape.dim[0].size = 1
    assert "tensor parsing error: x" in error(proto, spec)


def test_types_are_compared():
    spec = spec_of(np.array([b"a"], object))
    message = error(tf.make_tensor_proto([1.0]), spec)
    assert message == "input 'x' has the type float, the signature expects string"
    assert "has the type 99" in error(tensor_pb2.TensorProto(dtype=99), spec)


@pytest.mark.parametrize("shape", [(-1,), (2, 2, -1), (3, -1), (-1, 4)], ids=str)
def test_shapes_are_compared(shape):
    array = np.zeros((2, 2), np.float32)
    expected = ",".join(str(size) for size in shape).replace("-1", "?")
    message = error(tf.make_tensor_proto(array), spec_of(array, shape))
    assert message == f"input 'x' has the shape [2,2], the signature expects [{expected}]"


@pytest.mark.parametrize("shape", [None, (-1, 2), (2, 2)], ids=str)
def test_shapes_that_fit_are_taken(shape):
    array = np.zeros((2, 2), np.float32)
    assert to_array(tf.make_tensor_proto(array), spec_of(array, shape), "x").shape == (2, 2)


def test_shapes_that_cannot_be_are_refused():
    proto = tf.make_tensor_proto(np.float32([1]))
    spec = spec_of(np.float32([1]))
    for size in (-1, 2**40):
        proto.tensor_shape.dim[0].size = size
        assert error(proto, spec).startswith("tensor parsing error: x")
    proto.tensor_shape.unknown_rank = True
    assert "the shape is not known" in error(proto, spec)


def test_values_out_of_range_are_refused():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_UINT8, int_val=[300])
    proto.tensor_shape.dim.add(size=1)
    assert "tensor parsing error: x" in error(proto, spec_of(np.uint8([1])))
