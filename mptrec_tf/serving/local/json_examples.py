"""Examples from the JSON of a Classify or Regress request, as TensorFlow Serving reads them."""

from collections.abc import Mapping
from typing import Any

from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import input_pb2

from mptrec_tf.serving.local.errors import invalid
from mptrec_tf.serving.local.json_values import is_base64, json_type, shown, to_bytes

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}
_MIN, _MAX = -(1 << 63), (1 << 63) - 1


def read_examples(document: Mapping[str, Any]) -> input_pb2.Input:
    """Reads `examples` and `context`.

    Args:
        document: The request. Each Example is an object of features: a value or a list of values.
            An integer makes an int64 feature, a number with a point or exponent a float feature,
            text and `{"b64": "..."}` a bytes feature.

    Returns:
        The input of a Classify or Regress request.

    Raises:
        RequestError: If there are no Examples, or a value fits no feature.

    Example:

    >>> read_examples({"examples": [{"age": 1.5}]}).example_list.examples[0].features.feature["age"]
    float_list {
      value: 1.5
    }
    """
    given = input_pb2.Input()
    with_context = "context" in document
    if with_context:
        context = given.example_list_with_context.context
        context.CopyFrom(_example(document["context"]))
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(
            f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    target = given.example_list_with_context if with_context else given.example_list
    target.examples.extend(map(_example, examples))
    return given


def _example(value: Any) -> example_pb2.Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        to_bytes(name)
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add(feature, item, name)
    return example


def _add(feature: feature_pb2.Feature, value: Any, name: str) -> None:
    item: Any
    match value:
        case bool() | int():
            kind, item = "int64_list", int(value)
        case float():
            kind, item = "float_list", value
        case str():
            kind, item = "bytes_list", to_bytes(value)
        case dict() if is_base64(value):
            kind, item = "bytes_list", to_bytes(value)
        case _:
            raise invalid(
                f"Feature: {name} has element with unexpected JSON type: {json_type(value)}"
            )
    known = feature.WhichOneof("kind")
    if known not in (None, kind):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[known]}")
    if kind == "int64_list" and not _MIN <= item <= _MAX:
        raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    getattr(feature, kind).value.append(item)
