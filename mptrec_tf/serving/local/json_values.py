"""What all JSON requests have in common: parsing, text and bytes, names of types."""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

from mptrec_tf.serving.local.errors import invalid

_SHOWN = 256
_JSON_TYPES = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    bool: "Bool",
    type(None): "Null",
}


def parse(body: bytes) -> dict[str, Any]:
    """Parses the body of a request.

    Args:
        body: JSON; NaN and Infinity are allowed.

    Returns:
        The object.

    Raises:
        RequestError: If it is no JSON object, or nested too deep.

    Example:

    >>> parse(b'{"instances": [1, NaN]}')
    {'instances': [1, nan]}
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode("utf-8"), parse_float=_finite)
    except RecursionError:
        raise invalid("JSON Parse error: The document is nested too deep") from None
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature that a request names; `""` if none.

    Raises:
        RequestError: If it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be "
            "a string value."
        )
    to_bytes(name)
    return name


def is_base64(value: Any) -> bool:
    """Whether a value is `{"b64": "..."}`."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def to_bytes(value: str | dict[str, Any]) -> bytes:
    """The bytes of a text or of `{"b64": "..."}`.

    Raises:
        RequestError: If they cannot be had.

    Example:

    >>> to_bytes({"b64": "Y2F0"})
    b'cat'
    """
    try:
        if isinstance(value, str):
            return value.encode("utf-8")
        if is_base64(value):
            text = value["b64"]
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except UnicodeEncodeError as error:
        raise invalid(f"JSON Value: {shown(value)} is no Unicode text: {error.reason}") from error
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error
    raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")


def shown(value: Any) -> str:
    """The beginning of a value as JSON, for messages."""
    text = ""
    for part in json.JSONEncoder().iterencode(value):
        text += part[:_SHOWN]
        if len(text) >= _SHOWN:
            break
    return text[:_SHOWN]


def json_type(value: Any) -> str:
    """Name of a value's type, for messages."""
    return _JSON_TYPES[type(value)]


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:_SHOWN]}: Number too big to be stored in double.")
    return number
