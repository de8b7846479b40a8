"""Answers as JSON, as TensorFlow Serving writes them."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow_serving.apis import classification_pb2, regression_pb2

from mptrec_tf.serving.local.errors import invalid

BYTES_SUFFIX = "_bytes"
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
        return f'{{"outputs": {_named({key: _text(key, outputs[key]) for key in outputs})}}}'
    _check_rows(outputs)
    columns = {key: [_text(key, row) for row in array] for key, array in outputs.items()}
    lines = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return f'{{"predictions": [{", ".join(map(_named, lines))}]}}'


def write_classifications(result: classification_pb2.ClassificationResult) -> str:
    """Writes the answer of Classify: `[[label, score], ...]` for each Example."""
    examples = (
        ", ".join(
            f"[{_string(one.label)}, {decimal(np.float32(one.score))}]" for one in found.classes
        )
        for found in result.classifications
    )
    return f'{{"results": [{", ".join(f"[{pairs}]" for pairs in examples)}]}}'


def write_regressions(result: regression_pb2.RegressionResult) -> str:
    """Writes the answer of Regress: a number for each Example."""
    numbers = (decimal(np.float32(found.value)) for found in result.regressions)
    return f'{{"results": [{", ".join(numbers)}]}}'


def write_error(message: str) -> str:
    """Writes an error."""
    return json.dumps({"error": message})


def decimal(value: np.floating) -> str:
    """A float in the fewest of 6 or all its digits that give it back, with a point or exponent.

    Args:
        value: `float32` or `float64`.

    Returns:
        The text; `NaN`, `Infinity` or `-Infinity` if it is not finite.

    Example:

    >>> decimal(np.float32(0.1)), decimal(np.float64(1) / 3), decimal(np.float32(2))
    ('0.1', '0.33333333333333331', '2.0')
    """
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = f"{float(value):.6g}"
    if type(value)(text) != value:
        text = f"{float(value):.{_DIGITS[value.dtype]}g}"
    return text if "." in text or "e" in text else f"{text}.0"


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


def _text(key: str, value: Any) -> str:
    """An array, or an element of one, as JSON."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"[{', '.join(_text(key, item) for item in value)}]"
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, np.floating) and value.dtype in _DIGITS:
        return decimal(value)
    if isinstance(value, np.bool_ | np.integer):
        return json.dumps(value.item())
    if not isinstance(value, bytes):
        raise invalid(f"Failed to write JSON value for tensor type: {type(value).__name__}")
    if key.endswith(BYTES_SUFFIX):
        return json.dumps({"b64": base64.b64encode(value).decode("ascii")})
    try:
        return _string(value.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise invalid(
            f"output {key!r} is no UTF-8 text; a name that ends in {BYTES_SUFFIX!r} makes it base64"
        ) from error


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
