"""Answers as JSON, as TensorFlow Serving writes them."""

import base64
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from tensorflow_serving.apis import classification_pb2, regression_pb2

from mptrec_tf.serving.local.errors import invalid

BYTES_SUFFIX = "_bytes"
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_DIGITS = {np.dtype(np.float32): 9, np.dtype(np.float64): 17}


def write_outputs(outputs: Mapping[str, np.ndarray], *, rows: bool) -> str:
    """Writes the outputs of Predict.

    Args:
        outputs: Arrays by alias.
        rows: Whether the request had the row format.

    Returns:
        `{"predictions": [...]}` with an item for each row, or `{"outputs": ...}`; with one output
        its values stand bare. Strings whose alias ends in `_bytes` are `{"b64": "..."}`.

    Raises:
        RequestError: If outputs have no rows, or not the same number.

    Example:

    >>> write_outputs({"click": np.float32([0.1, 2])}, rows=True)
    '{"predictions": [0.1, 2.0]}'
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if not rows:
        texts = {key: _nested(_leaves(key, array), array.shape) for key, array in outputs.items()}
        return f'{{"outputs": {_named(texts)}}}'
    _check_rows(outputs)
    columns = {key: _rows(_leaves(key, array), array.shape) for key, array in outputs.items()}
    lines = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return f'{{"predictions": [{", ".join(map(_named, lines))}]}}'


def write_classifications(result: classification_pb2.ClassificationResult) -> str:
    """Writes the answer of Classify: `[[label, score], ...]` for each Example."""
    examples = []
    for found in result.classifications:
        labels = [_string(one.label) for one in found.classes]
        scores = decimals(np.array([one.score for one in found.classes], np.float32))
        pairs = zip(labels, scores, strict=True)
        examples.append(f"[{', '.join(f'[{label}, {score}]' for label, score in pairs)}]")
    return f'{{"results": [{", ".join(examples)}]}}'


def write_regressions(result: regression_pb2.RegressionResult) -> str:
    """Writes the answer of Regress: a number for each Example."""
    numbers = decimals(np.array([one.value for one in result.regressions], np.float32))
    return f'{{"results": [{", ".join(numbers)}]}}'


def write_error(message: str) -> str:
    """Writes an error."""
    return json.dumps({"error": message})


def decimals(values: np.ndarray) -> list[str]:
    """Floats in 6 digits if these give them back, else in all; with a point or exponent.

    Args:
        values: `float32` or `float64`.

    Returns:
        A text for each; `NaN`, `Infinity` or `-Infinity` where it is not finite.

    Example:

    >>> decimals(np.float64([0.1, 1 / 3, 2, np.inf]))
    ['0.1', '0.33333333333333331', '2.0', 'Infinity']
    """
    flat, digits = values.ravel(), _DIGITS[values.dtype]
    texts = [f"{value:.6g}" for value in flat.tolist()]
    for place in np.flatnonzero(np.array(texts, flat.dtype) != flat):
        texts[place] = f"{float(flat[place]):.{digits}g}"
    return [
        _NOT_FINITE.get(text, text if "." in text or "e" in text else f"{text}.0") for text in texts
    ]


def _check_rows(outputs: Mapping[str, np.ndarray]) -> None:
    sizes = {}
    for key, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {key} has no shape information ")
        sizes[key] = len(array)
        expected = next(iter(sizes.values()))
        if len(array) != expected:
            raise invalid(
                f"Tensor name: {key} has inconsistent batch size: {len(array)} expecting: "
                f"{expected}"
            )


def _named(texts: Mapping[str, str]) -> str:
    if len(texts) == 1:
        return next(iter(texts.values()))
    return f"{{{', '.join(f'{_string(key)}: {text}' for key, text in texts.items())}}}"


def _rows(leaves: list[str], shape: Sequence[int]) -> list[str]:
    """The rows of an array as JSON, from its elements as JSON."""
    if len(shape) == 1:
        return leaves
    size = math.prod(shape[1:])
    return [_nested(leaves[row * size : (row + 1) * size], shape[1:]) for row in range(shape[0])]


def _nested(leaves: list[str], shape: Sequence[int]) -> str:
    return f"[{', '.join(_rows(leaves, shape))}]" if shape else leaves[0]


def _leaves(key: str, array: np.ndarray) -> list[str]:
    """All elements as JSON, in order."""
    if array.dtype in _DIGITS:
        return decimals(array)
    values = array.ravel().tolist()
    if array.dtype.kind in "biu":
        return [json.dumps(value) for value in values]
    if array.dtype != object:
        raise invalid(f"Failed to write JSON value for tensor type: {array.dtype}")
    if key.endswith(BYTES_SUFFIX):
        return [f'{{"b64": "{base64.b64encode(value).decode("ascii")}"}}' for value in values]
    try:
        return [_string(value.decode("utf-8")) for value in values]
    except UnicodeDecodeError as error:
        raise invalid(
            f"output {key!r} is no UTF-8 text; a name that ends in {BYTES_SUFFIX!r} makes it base64"
        ) from error


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
