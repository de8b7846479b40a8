"""Requests that a server runs before it calls a version available."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mptrec_tf.data import FeatureEncoder
from mptrec_tf.errors import ServingError
from mptrec_tf.serving.exporting.samples import Columns, to_arrays, to_examples
from mptrec_tf.serving.layout import (
    COLUMNS,
    ENCODED,
    EXAMPLES,
    MAX_RECORDS,
    SERVING_DEFAULT,
    WARMUP_FILE,
    prediction_log_type,
)
from mptrec_tf.spec import Task

APIS = (SERVING_DEFAULT, COLUMNS, ENCODED, "MultiInference")
"""What is requested beside each task."""


def write_warmup(
    directory: pathlib.Path,
    name: str,
    encoder: FeatureEncoder,
    tasks: Sequence[Task],
    rows: Columns,
    batch_sizes: Sequence[int],
) -> int:
    """Writes a request for each API, signature and batch size.

    Args:
        directory: The SavedModel.
        name: The model's name, which requests carry.
        encoder: The encoder of the model.
        tasks: The tasks of the model.
        rows: Raw rows; they are repeated where a batch is larger.
        batch_sizes: Rows of the requests.

    Returns:
        The number of requests.

    Raises:
        ServingError: If there are more than TensorFlow Serving allows, or
            `tensorflow-serving-api` is not installed.
    """
    count = len(batch_sizes) * (len(tasks) + len(APIS))
    if count > MAX_RECORDS:
        raise ServingError(
            f"{count} warm-up requests ({len(batch_sizes)} batch sizes, {len(tasks)} tasks), "
            f"but TensorFlow Serving loads at most {MAX_RECORDS}; give fewer batch sizes"
        )
    file = directory / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for size in batch_sizes:
            for log in _requests(name, encoder, tasks, _repeat(rows, size)):
                writer.write(log.SerializeToString(deterministic=True))
    return count


def _requests(
    name: str, encoder: FeatureEncoder, tasks: Sequence[Task], rows: Columns
) -> Iterator[Any]:
    prediction_log = prediction_log_type()
    examples = to_examples(encoder.features, rows)
    predict: dict[str, Mapping[str, Any]] = {
        SERVING_DEFAULT: {EXAMPLES: np.array(examples, object)},
        COLUMNS: to_arrays(encoder.features, rows),
        ENCODED: encoder.encode(rows),
    }
    for signature, inputs in predict.items():
        log = prediction_log()
        _address(log.predict_log.request.model_spec, name, signature)
        for alias, array in inputs.items():
            log.predict_log.request.inputs[alias].CopyFrom(tf.make_tensor_proto(array))
        yield log
    parsed = [tf.train.Example.FromString(example) for example in examples]
    everything = prediction_log()
    multi = everything.multi_inference_log.request
    multi.input.example_list.examples.extend(parsed)
    for task in tasks:
        method = "regress" if task.classes is None else "classify"
        log = prediction_log()
        request = getattr(log, f"{method}_log").request
        _address(request.model_spec, name, task.name)
        request.input.example_list.examples.extend(parsed)
        yield log
        head = multi.tasks.add(method_name=f"tensorflow/serving/{method}")
        _address(head.model_spec, name, task.name)
    yield everything


def _address(model_spec: Any, name: str, signature: str) -> None:
    model_spec.name, model_spec.signature_name = name, signature


def _repeat(rows: Columns, size: int) -> Columns:
    return {
        name: [values[row % len(values)] for row in range(size)] for name, values in rows.items()
    }
