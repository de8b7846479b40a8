"""Tensors from the JSON of a Predict request, as TensorFlow Serving reads them."""

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2

from mptrec_tf.serving.local.errors import RequestError, invalid
from mptrec_tf.serving.local.json_values import is_base64, json_type, shown, to_bytes
from mptrec_tf.serving.local.servable import Signature
from mptrec_tf.serving.local.tensors import TensorSpec, type_name

MAX_RANK = 32
_FLOATS = (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
_INTEGERS = (
    types_pb2.DT_INT8,
    types_pb2.DT_INT16,
    types_pb2.DT_INT32,
    types_pb2.DT_INT64,
    types_pb2.DT_UINT8,
    types_pb2.DT_UINT32,
    types_pb2.DT_UINT64,
)
_PYTHON_TYPES: dict[int, tuple[type, ...]] = {
    **dict.fromkeys(_FLOATS, (int, float)),
    **dict.fromkeys(_INTEGERS, (int,)),
    types_pb2.DT_BOOL: (bool,),
    types_pb2.DT_STRING: (str, dict),
}


def read_inputs(
    document: Mapping[str, Any], signature: Signature
) -> tuple[bool, dict[str, np.ndarray]]:
    """Reads `instances` or `inputs`.

    Args:
        document: The request.
        signature: The signature that it is for.

    Returns:
        Whether the request has the row format, and the arrays by alias.

    Raises:
        RequestError: If the request does not fit the signature.
    """
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' "
            "or 'instances' keys to exist "
        )
    if "instances" in document:
        return True, _rows(document, document["instances"], signature)
    if "inputs" in document:
        return False, _columns(document["inputs"], signature)
    raise invalid("Missing 'inputs' or 'instances' key")


def _rows(document: Any, rows: Any, signature: Signature) -> dict[str, np.ndarray]:
    """One value per input and row; a bare value where there is one input."""
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {shown(document)} Expecting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
    named = isinstance(rows[0], dict) and not is_base64(rows[0])
    if not named and len(signature.inputs) != 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    for number, row in enumerate(rows):
        if named != (isinstance(row, dict) and not is_base64(row)):
            expected = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {expected} at item {number} of input list")
        if named and row.keys() != signature.inputs.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{shown(row)} keys must be equal to: {','.join(signature.inputs)}"
            )
    columns = (
        {alias: [row[alias] for row in rows] for alias in signature.inputs}
        if named
        else {next(iter(signature.inputs)): rows}
    )
    return {alias: _array(columns[alias], alias, signature.inputs[alias]) for alias in columns}


def _columns(values: Any, signature: Signature) -> dict[str, np.ndarray]:
    """One tensor per input; a bare one where there is one input."""
    if not isinstance(values, dict) or is_base64(values):
        if len(signature.inputs) != 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        values = {next(iter(signature.inputs)): values}
    for alias in signature.inputs:
        if alias not in values:
            raise invalid(f"Missing named input: {alias} in 'inputs' object.")
    return {alias: _array(values[alias], alias, spec) for alias, spec in signature.inputs.items()}


def _array(value: Any, alias: str, spec: TensorSpec) -> np.ndarray:
    shape: list[int] = []
    first = value
    while isinstance(first, list) and len(shape) <= MAX_RANK:
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    if len(shape) > MAX_RANK:
        raise invalid(f"input {alias!r} has more than {MAX_RANK} dimensions")
    if spec.dtype not in _PYTHON_TYPES:
        raise RequestError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"Conversion of JSON Value: {shown(value)} to type: {type_name(spec.dtype)}",
        )
    leaves: list[Any] = []
    _flatten(value, shape, 0, leaves)
    spec.check_shape(shape, alias)
    return _typed(leaves, spec).reshape(shape)


def _flatten(value: Any, shape: list[int], level: int, leaves: list[Any]) -> None:
    """Appends the values of a tensor; all lists of a level must be equally long."""
    if level == len(shape):
        if isinstance(value, list):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {level}")
        leaves.append(value)
        return
    if not isinstance(value, list):
        raise invalid(
            f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
            f"Expected at level: {len(shape)}"
        )
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    for item in value:
        _flatten(item, shape, level + 1, leaves)


def _typed(leaves: list[Any], spec: TensorSpec) -> np.ndarray:
    accepted = _PYTHON_TYPES[spec.dtype]
    for leaf in leaves:
        if type(leaf) not in accepted:
            raise invalid(
                f"JSON Value: {shown(leaf)} Type: {json_type(leaf)} is not of expected type: "
                f"{type_name(spec.dtype)}"
            )
    if spec.dtype == types_pb2.DT_STRING:
        array = np.empty(len(leaves), object)
        array[:] = [to_bytes(leaf) for leaf in leaves]
        return array
    try:
        with np.errstate(over="raise"):
            return np.array(leaves, spec.numpy)
    except (OverflowError, FloatingPointError) as error:
        raise invalid(f"a value is out of the range of {type_name(spec.dtype)}") from error
