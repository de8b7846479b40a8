"""The executor of the Evaluator: no slice is held to a metric that its labels do not define."""

import copy
import math
import os
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import validation_result_pb2
from tfx import types
from tfx.components.evaluator import constants, executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from pipelines.components.evaluation import LABELLED, MEAN_LABEL

_Labels: TypeAlias = dict[tuple[bytes, str, str], float]
"""Labelled rows and mean label, each by slice and task."""

VALIDATIONS_FILE = "validations.tfrecord"


class DefinedAUC(tfma.metrics.AUC):
    """TFMA's, but NaN where all labels are the same; TFMA's is 0 there."""

    def _metric_value(self, *args: Any, matrices: Any, **kwargs: Any) -> float:
        positive = np.add(matrices.tp, matrices.fn)
        negative = np.add(matrices.fp, matrices.tn)
        if not (positive.any() and negative.any()):
            return math.nan
        return float(super()._metric_value(*args, matrices=matrices, **kwargs))


class EvaluatorExecutor(executor.Executor):
    """The stock Evaluator's, but a slice does not fail for a metric that its labels do not define.

    All rows together do, and the failure's message says why. In a rare category's few rows, all
    labels are often the same.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates the model, and blesses it if it fails nowhere."""
        super().Do(input_dict, output_dict, exec_properties)
        result = judge(artifact_utils.get_single_uri(output_dict[constants.EVALUATION_KEY]))
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        refused = os.path.join(blessing.uri, constants.NOT_BLESSED_FILE_NAME)
        if result.validation_ok and tf.io.gfile.exists(refused):
            tf.io.gfile.remove(refused)
            io_utils.write_string_file(os.path.join(blessing.uri, constants.BLESSED_FILE_NAME), "")
            blessing.set_int_custom_property(
                constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.BLESSED_VALUE
            )


def judge(evaluation: str) -> validation_result_pb2.ValidationResult:
    """Takes out of a validation what fails in a slice for want of labels, and writes it back.

    Args:
        evaluation: URI of the Evaluator's output.

    Returns:
        What stays; where all rows together fail for want of labels, with a message.
    """
    result = tfma.load_validation_result(evaluation)
    labels = _labels(evaluation)
    failing = [
        validation_result_pb2.MetricsValidationForSlice(
            slice_key=validation.slice_key, failures=_defined(validation, labels)
        )
        for validation in result.metric_validations_per_slice
    ]
    result.ClearField("metric_validations_per_slice")
    result.metric_validations_per_slice.extend(found for found in failing if found.failures)
    result.validation_ok = not (result.metric_validations_per_slice or result.missing_slices)
    with tf.io.TFRecordWriter(os.path.join(evaluation, VALIDATIONS_FILE)) as writer:
        writer.write(result.SerializeToString())
    return result


def _defined(
    validation: validation_result_pb2.MetricsValidationForSlice, labels: _Labels
) -> Iterator[validation_result_pb2.ValidationFailure]:
    """The failures of a slice, without those for want of labels; of all rows, every one."""
    where = validation.slice_key.SerializeToString()
    for failure in validation.failures:
        key = failure.metric_key
        rows, mean = (
            labels.get((where, key.output_name, n), math.nan) for n in (LABELLED, MEAN_LABEL)
        )
        reason = undefined(key.name, failure.metric_value.double_value.value, rows, mean)
        if reason is None:
            yield failure
        elif not validation.slice_key.single_slice_keys:
            explained = copy.deepcopy(failure)
            explained.message = reason
            yield explained


def undefined(metric: str, value: float, labelled: float, mean_label: float) -> str | None:
    """Why the labels of some rows do not define a metric; `None` if they do.

    Args:
        metric: Name of the metric.
        value: Its value.
        labelled: Sum of the weights of labelled rows.
        mean_label: Mean of their labels.
    """
    if metric == LABELLED:
        return None
    if labelled == 0:
        return "no row has a label"
    if metric == "auc" and math.isnan(value):
        return "all labelled rows have the same label"
    if metric == "calibration" and math.isnan(value) and not mean_label > 0:
        return "no labelled row is positive"
    return None


def _labels(evaluation: str) -> _Labels:
    return {  # models do not differ in them
        (
            metrics.slice_key.SerializeToString(),
            item.key.output_name,
            item.key.name,
        ): item.value.double_value.value
        for metrics in tfma.load_metrics(evaluation)
        for item in metrics.metric_keys_and_values
        if item.key.name in (LABELLED, MEAN_LABEL) and not item.key.is_diff
    }
