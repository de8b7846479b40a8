"""Requests with the answers of the Keras model, kept with an export to check it anywhere."""

import base64
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.layout import CASES_FILE

Value = dict[str, Any]
"""A tensor in JSON: `dtype`, `shape`, `values`; strings in base64."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A request and what must come of it.

    Args:
        name: What is tried.
        signature: The signature that is called.
        inputs: Values by input name.
        outputs: Values by output name, empty if an error must come.
        error: Part of the error's text. Defaults to `None`: no error.
    """

    name: str
    signature: str
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    error: str | None = None


def write_cases(directory: pathlib.Path, cases: list[Case]) -> None:
    """Writes cases into a version's directory."""
    file = directory / CASES_FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([dataclasses.asdict(case) for case in cases]), encoding="utf-8")


def read_cases(directory: pathlib.Path) -> list[Case]:
    """The cases of a version, none if it has no such file.

    Raises:
        ServingError: If the file is broken.
    """
    file = directory / CASES_FILE
    if not file.is_file():
        return []
    try:
        return [Case(**case) for case in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ServingError(f"{file}: broken: {error}") from error


def to_value(array: np.ndarray) -> Value:
    """An array as JSON; float32 survives exactly."""
    flat = array.ravel().tolist()
    if array.dtype == object:
        flat = [base64.b64encode(text).decode() for text in flat]
    dtype = "string" if array.dtype == object else array.dtype.name
    return {"dtype": dtype, "shape": list(array.shape), "values": flat}


def from_value(value: Value) -> np.ndarray:
    """The array that `to_value` was given."""
    if value["dtype"] == "string":
        flat = np.array([base64.b64decode(text) for text in value["values"]], object)
    else:
        flat = np.array(value["values"], value["dtype"])
    return flat.reshape(value["shape"])
