"""Why a model was pushed or not, in words: what the Evaluator and the gate found."""

import json
import os
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from pipelines.components.evaluation import LABELLED
from pipelines.components.gate import GATE_FILE

OVERALL = "all rows"


class Failure(NamedTuple):
    """A threshold that a model does not keep.

    Attributes:
        task: The task.
        slice: Column and value, or `"all rows"`.
        metric: The metric.
        value: Its value; for a threshold on changes, the change.
        demanded: What it should be.
        undefined: Why there is no value; empty if there is one.
    """

    task: str
    slice: str
    metric: str
    value: float
    demanded: str
    undefined: str = ""

    def __str__(self) -> str:
        if self.metric == LABELLED:
            return f"task {self.task!r}, {self.slice}: none has a label"
        value = f"undefined ({self.undefined})" if self.undefined else f"{self.value:.5g}"
        return (
            f"task {self.task!r}, {self.slice}: {self.metric} is {value}, "
            f"demanded is {self.demanded}"
        )


def failures(evaluation: str) -> list[Failure]:
    """The thresholds that a model does not keep.

    Args:
        evaluation: URI of the Evaluator's output.
    """
    result = tfma.load_validation_result(evaluation)
    found = []
    for validation in result.metric_validations_per_slice:
        where = slice_name(
            tuple((k.column, _value(k)) for k in validation.slice_key.single_slice_keys)
        )
        for failure in validation.failures:
            found.append(
                Failure(
                    task=failure.metric_key.output_name,
                    slice=where,
                    metric=failure.metric_key.name,
                    value=failure.metric_value.double_value.value,
                    demanded=demanded(failure.metric_threshold),
                    undefined=failure.message.strip(),
                )
            )
    return sorted(set(found))


def refusals(evaluation: str, gate_blessing: str | None) -> list[str]:
    """Why a model was not pushed, in words.

    Args:
        evaluation: URI of the Evaluator's output.
        gate_blessing: URI of the output of the gate of the frozen tasks, `None` in stage 1.
    """
    reasons = list(map(str, failures(evaluation)))
    if gate_blessing is not None:
        reasons.append(gate_verdict(gate_blessing)["verdict"])
    return reasons


def slice_name(key: tuple[tuple[str, object], ...]) -> str:
    """A slice in words.

    Args:
        key: Columns with their values, as TFMA keys its slices.
    """
    return ", ".join(f"{column} = {value}" for column, value in key) or OVERALL


def gate_verdict(blessing: str) -> dict[str, Any]:
    """What the gate of the frozen tasks compared and found; see `FrozenTaskGate`.

    Args:
        blessing: URI of its output.
    """
    with tf.io.gfile.GFile(os.path.join(blessing, GATE_FILE), "r") as opened:
        return json.loads(opened.read())


def _value(key: Any) -> object:
    kind = key.WhichOneof("kind")
    value = getattr(key, kind)
    return value.decode() if isinstance(value, bytes) else value


def demanded(threshold: config_pb2.MetricThreshold) -> str:
    """A threshold in words."""
    parts = []
    bounds = threshold.value_threshold
    if bounds.HasField("lower_bound"):
        parts.append(f"at least {bounds.lower_bound.value:g}")
    if bounds.HasField("upper_bound"):
        parts.append(f"at most {bounds.upper_bound.value:g}")
    change = threshold.change_threshold
    if change.HasField("absolute"):
        parts.append(f"not worse by more than {abs(change.absolute.value):g} than the last one")
    return " and ".join(parts)
