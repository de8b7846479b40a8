"""Tensors on the wire and in NumPy, without TensorFlow on the way."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from mptrec_tf.serving.local.errors import invalid

MAX_REPEATED = 1 << 20
"""Elements that a tensor may have whose last value stands for the rest, so that no small message
asks for gigabytes."""

_FIELDS = {
    types_pb2.DT_FLOAT: "float_val",
    types_pb2.DT_DOUBLE: "double_val",
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_STRING: "string_val",
}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """What a signature says of an input or output.

    Args:
        name: Name in the graph, such as `"examples:0"`.
        dtype: Number of the type, as in `DataType`.
        shape: Sizes, `-1` where any size will do; `None` if the rank is not known.
    """

    name: str
    dtype: int
    shape: tuple[int, ...] | None

    @classmethod
    def of(cls, info: meta_graph_pb2.TensorInfo) -> "TensorSpec":
        """The spec that a SavedModel's signature holds."""
        shape = info.tensor_shape
        sizes = None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
        return cls(info.name, info.dtype, sizes)

    @property
    def numpy(self) -> Any:
        """The type in NumPy; `object` for strings."""
        return tf.as_dtype(self.dtype).as_numpy_dtype

    def check_shape(self, shape: Sequence[int], alias: str) -> None:
        """Refuses a shape that does not fit.

        Args:
            shape: Sizes of a given tensor.
            alias: Name of the input, for the message.

        Raises:
            RequestError: If rank or sizes differ.
        """
        if self.shape is None:
            return
        if len(shape) != len(self.shape) or any(
            wanted not in (-1, size) for wanted, size in zip(self.shape, shape, strict=True)
        ):
            wanted = ",".join("?" if size == -1 else str(size) for size in self.shape)
            raise invalid(
                f"input {alias!r} has the shape [{','.join(map(str, shape))}], the signature "
                f"expects [{wanted}]"
            )


def type_name(dtype: int) -> str:
    """Name of a type, such as `"float"`, as TensorFlow Serving's messages have it."""
    name = types_pb2.DataType.Name(dtype) if dtype in types_pb2.DataType.values() else str(dtype)
    return name.removeprefix("DT_").lower()


def to_array(proto: tensor_pb2.TensorProto, spec: TensorSpec, alias: str) -> np.ndarray:
    """Reads an input of a request.

    Args:
        proto: The tensor.
        spec: What the signature expects.
        alias: Name of the input, for messages.

    Returns:
        The array; strings as an array of `object` with `bytes`.

    Raises:
        RequestError: If type, shape or number of values do not fit.
    """
    if proto.dtype != spec.dtype:
        raise invalid(
            f"input {alias!r} has the type {type_name(proto.dtype)}, the signature expects "
            f"{type_name(spec.dtype)}"
        )
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid(f"tensor parsing error: {alias}: the shape is not known")
    spec.check_shape(shape, alias)
    try:
        return _read(proto, math.prod(shape)).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid(f"tensor parsing error: {alias}: {error}") from error


def to_proto(array: np.ndarray, dtype: int) -> tensor_pb2.TensorProto:
    """Writes an output, in the typed field as TensorFlow Serving does.

    Args:
        array: The output.
        dtype: Its type in the signature.

    Returns:
        The tensor.
    """
    field = _FIELDS.get(dtype)
    if field is None:
        return tf.make_tensor_proto(array)
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in array.shape]
    values: dict[str, Any] = {field: array.ravel().tolist()}
    return tensor_pb2.TensorProto(
        dtype=dtype, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims), **values
    )


def specs(infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, TensorSpec]:
    """The specs of a signature's inputs or outputs, by alias in alphabetical order."""
    return {alias: TensorSpec.of(infos[alias]) for alias in sorted(infos)}


def _read(proto: tensor_pb2.TensorProto, size: int) -> np.ndarray:
    if proto.dtype == types_pb2.DT_STRING:
        return _strings(list(proto.string_val), size)
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, tf.as_dtype(proto.dtype).as_numpy_dtype)
    if size > MAX_REPEATED and len(getattr(proto, _FIELDS.get(proto.dtype, "half_val"))) < size:
        raise ValueError(f"fewer values than the {size} elements of the shape")
    return tf.make_ndarray(proto)


def _strings(values: list[bytes], size: int) -> np.ndarray:
    """Fewer values than elements: the last one stands for the rest."""
    if len(values) > size or (len(values) < size and size > MAX_REPEATED):
        raise ValueError(f"{len(values)} values for the {size} elements of the shape")
    array = np.empty(size, object)
    array[: len(values)] = values
    array[len(values) :] = values[-1] if values else b""
    return array
