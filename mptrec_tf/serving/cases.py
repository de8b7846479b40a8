"""Requests with the answers of the Keras model, kept with an export to check it anywhere."""

import base64
import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mptrec_tf.models import MPTRec
from mptrec_tf.serving.samples import Columns, to_arrays, to_examples, unknown_categories
from mptrec_tf.serving.signatures import COLUMNS, ENCODED, EXAMPLES, INPUTS, SERVING_DEFAULT
from mptrec_tf.spec import MultiValuedFeature, NumericFeature, Task

CASES_FILE = "assets.extra/cases.json"

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


def make_cases(model: MPTRec, rows: Columns) -> list[Case]:
    """Each signature with good rows, and what a server must withstand.

    Args:
        model: The model, whose own scores are the expected ones.
        rows: Raw rows.

    Returns:
        The cases. The last one is a good request after the bad ones.
    """
    encoder = model.encoder
    examples = to_value(np.array(to_examples(encoder.features, rows), object))
    columns = _values(to_arrays(encoder.features, rows))
    encoded = _values(encoder.encode(rows))
    scores = _scores(model, rows)
    good = Case("examples", SERVING_DEFAULT, {EXAMPLES: examples}, _values(scores))
    unknown = unknown_categories(encoder, rows)
    malformed = {EXAMPLES: to_value(np.array([b"not an Example"], object))}
    return [
        good,
        Case("columns", COLUMNS, columns, _values(scores)),
        Case("encoded", ENCODED, encoded, _values(scores)),
        *(
            Case(f"task {task.name}", task.name, {INPUTS: examples}, _head(task, scores[task.name]))
            for task in model.tasks
        ),
        Case(
            "unknown categories",
            SERVING_DEFAULT,
            {EXAMPLES: to_value(np.array(to_examples(encoder.features, unknown), object))},
            _values(_scores(model, unknown)),
        ),
        Case("malformed Example", SERVING_DEFAULT, malformed, {}, "Could not parse example input"),
        _empty_example(model),
        dataclasses.replace(good, name="good request after the bad ones"),
    ]


def write_cases(directory: pathlib.Path, cases: list[Case]) -> None:
    """Writes cases into a version's directory."""
    file = directory / CASES_FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([dataclasses.asdict(case) for case in cases]), encoding="utf-8")


def read_cases(directory: pathlib.Path) -> list[Case]:
    """The cases of a version, none if it has no such file."""
    file = directory / CASES_FILE
    if not file.is_file():
        return []
    return [Case(**case) for case in json.loads(file.read_text(encoding="utf-8"))]


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


def _scores(model: MPTRec, rows: Columns) -> dict[str, np.ndarray]:
    predictions = model(model.encoder.encode(rows), training=False)
    return {name: np.asarray(values) for name, values in predictions.items()}


def _values(arrays: Mapping[str, np.ndarray]) -> dict[str, Value]:
    return {name: to_value(array) for name, array in arrays.items()}


def _head(task: Task, scores: np.ndarray) -> dict[str, Value]:
    if task.classes is None:
        return {"outputs": to_value(scores)}
    classes = np.array([name.encode() for name in task.classes], object)
    return {
        "classes": to_value(np.broadcast_to(classes, scores.shape)),
        "scores": to_value(scores),
    }


def _empty_example(model: MPTRec) -> Case:
    """An Example without any feature: stand-ins where all features have one, else an error."""
    inputs = {EXAMPLES: to_value(np.array([b""], object))}
    features = model.encoder.features
    numeric = [f for f in features if isinstance(f, NumericFeature)]
    if any(feature.missing is None for feature in numeric):
        return Case("empty Example", SERVING_DEFAULT, inputs, {}, "is required but could not be")
    rows: Columns = {
        f.name: [[]] if isinstance(f, MultiValuedFeature) else [""] for f in features
    } | {f.name: [f.missing] for f in numeric}
    return Case("empty Example", SERVING_DEFAULT, inputs, _values(_scores(model, rows)))
