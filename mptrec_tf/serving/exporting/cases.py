"""What an export must answer: the Keras model's own scores, and errors for broken requests."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mptrec_tf.models import GrowingModel
from mptrec_tf.serving.cases import Case, Value, to_value
from mptrec_tf.serving.exporting.samples import Columns, to_arrays, to_examples, unknown_categories
from mptrec_tf.serving.layout import COLUMNS, ENCODED, EXAMPLES, INPUTS, SERVING_DEFAULT
from mptrec_tf.spec import MultiValuedFeature, NumericFeature, Task


def make_cases(model: GrowingModel, rows: Columns) -> list[Case]:
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


def _scores(model: GrowingModel, rows: Columns) -> dict[str, np.ndarray]:
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


def _empty_example(model: GrowingModel) -> Case:
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
