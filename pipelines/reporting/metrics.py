"""The Evaluator's metrics as rows, each with the interval that its figures allow."""

import json
import math
import pathlib
from statistics import NormalDist
from typing import Any, NamedTuple

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from mptrec_tf.errors import ServingError
from mptrec_tf.serving import Manifest
from pipelines.components.evaluation import BASELINE, CANDIDATE, LABELLED, MEAN_LABEL
from pipelines.reporting.verdict import OVERALL, demanded, failures, slice_name

Interval = tuple[float, float]

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


class MetricRow(NamedTuple):
    """A metric of a task in a slice, on the test rows.

    Attributes:
        task: The task.
        slice: Columns and values, or `"all rows"`.
        metric: The metric.
        value: Its value.
        interval: Its 95 % interval; `None` where what is stored gives none.
        baseline: The value of the model before, on the same rows; `None` if it has none.
        rows: Labelled rows; where they are weighted, the sum of their weights.
        demanded: What it should be, in words; `None` if nothing is demanded.
        kept: Whether it is; `None` if nothing is demanded.
    """

    task: str
    slice: str
    metric: str
    value: float
    interval: Interval | None
    baseline: float | None
    rows: float
    demanded: str | None
    kept: bool | None


def metrics_of(evaluation: str) -> list[MetricRow]:
    """The metrics of an evaluation: by task, all rows first, then slice by slice.

    Intervals: the AUC by `auc_interval`; accuracy and the share of positive labels by
    `proportion_interval`; calibration by the interval of that share, for the predictions as they
    are. A mean loss or error has none: its spread over the rows is not stored. Nor has a task with
    a column of weights: their sum is no number of rows.

    Args:
        evaluation: URI of the Evaluator's output.

    Example:

    ```python
    for row in metrics_of("runs/artifacts/Evaluator/evaluation/8"):
        print(row.task, row.slice, row.metric, row.value, row.interval)
    ```
    """
    candidate = tfma.load_eval_result(evaluation)
    baseline = None
    if len(candidate.config.model_specs) > 1:
        candidate = tfma.load_eval_result(evaluation, model_name=CANDIDATE)
        baseline = tfma.load_eval_result(evaluation, model_name=BASELINE)
    before = {} if baseline is None else _values(baseline)
    counted = _tasks_that_count_rows(candidate.model_location)
    broken = {(failure.task, failure.slice, failure.metric) for failure in failures(evaluation)}
    rows = []
    values = _values(candidate)
    for spec in candidate.config.metrics_specs:
        (task,) = spec.output_names
        names = {_name(metric): metric for metric in spec.metrics}
        for where in sorted({key[1] for key in values if key[0] == task}, key=_overall_first):
            found = {n: values[task, where, n] for n in names if (task, where, n) in values}
            for name, value in found.items():
                if name == LABELLED:
                    continue
                asked = _asked(names[name], where)
                rows.append(
                    MetricRow(
                        task=task,
                        slice=where,
                        metric=name,
                        value=value,
                        interval=_interval(name, found) if task in counted else None,
                        baseline=before.get((task, where, name)),
                        rows=found[LABELLED],
                        demanded=asked,
                        kept=None if asked is None else (task, where, name) not in broken,
                    )
                )
    return rows


def auc_interval(auc: float, positives: float, negatives: float) -> Interval | None:
    """The 95 % interval of an AUC, from its standard error after Hanley and McNeil (1982).

    `SE^2 = (A (1 - A) + (P - 1) (Q1 - A^2) + (N - 1) (Q2 - A^2)) / (P N)`, where
    `Q1 = A / (2 - A)` and `Q2 = 2 A^2 / (1 + A)`.

    Args:
        auc: The AUC, A.
        positives: Number of positive rows, P.
        negatives: Number of negative rows, N.

    Returns:
        Its ends, within 0 and 1. `None` where the formula says nothing: without rows of both kinds,
        and for an AUC of 0 or 1.

    Source: J. A. Hanley and B. J. McNeil, The Meaning and Use of the Area under a Receiver
    Operating Characteristic (ROC) Curve, Radiology 143 (1982), 29-36.
    """
    if min(positives, negatives) < 1 or not 0 < auc < 1:
        return None
    q1, q2, square = auc / (2 - auc), 2 * auc**2 / (1 + auc), auc**2
    variance = auc * (1 - auc) + (positives - 1) * (q1 - square) + (negatives - 1) * (q2 - square)
    half = Z * math.sqrt(variance / (positives * negatives))
    return max(auc - half, 0.0), min(auc + half, 1.0)


def proportion_interval(share: float, rows: float) -> Interval | None:
    """The 95 % interval of a share of rows, after Wilson (1927).

    Args:
        share: The share, from 0 to 1.
        rows: Number of rows.

    Returns:
        Its ends; `None` without rows.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
    Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if rows < 1:
        return None
    scale = 1 + Z**2 / rows
    middle = (share + Z**2 / (2 * rows)) / scale
    half = Z * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2)) / scale
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _interval(name: str, found: dict[str, float]) -> Interval | None:
    rows = found[LABELLED]
    if name == "accuracy":
        return proportion_interval(found[name], rows)
    share = found.get(MEAN_LABEL)
    if share is None:
        return None
    if name == "auc":
        return auc_interval(found[name], rows * share, rows * (1 - share))
    ends = proportion_interval(share, rows)
    if name == MEAN_LABEL or ends is None:
        return ends
    if name == "calibration" and share > 0:
        # The predictions stay as they are. Labels that follow them vary less than equal chances do.
        predicted = found[name] * share
        return predicted / ends[1], predicted / ends[0]
    return None


def _values(result: Any) -> dict[tuple[str, str, str], float]:
    """Values by task, slice and metric."""
    values = {}
    for key, outputs in result.slicing_metrics:
        for task, by_class in outputs.items():
            for name, value in by_class.get("", {}).items():
                number = float(value.get("doubleValue", math.nan))
                if not math.isnan(number):  # as an AUC is where all labels are the same
                    values[task, slice_name(key), name] = number
    return values


def _name(metric: config_pb2.MetricConfig) -> str:
    return str(json.loads(f"{{{metric.config}}}")["name"])


def _asked(metric: config_pb2.MetricConfig, where: str) -> str | None:
    thresholds = [metric.threshold] if metric.HasField("threshold") else []
    if where == OVERALL:
        thresholds += [some.threshold for some in metric.per_slice_thresholds]
    return " and ".join(map(demanded, thresholds)) or None


def _overall_first(where: str) -> tuple[bool, str]:
    return where != OVERALL, where


def _tasks_that_count_rows(model: str) -> set[str]:
    """The tasks of a model without a column of weights; none if that cannot be told any more."""
    try:
        spec = Manifest.read(pathlib.Path(model)).spec
    except (ServingError, OSError):
        return set()
    return {task["name"] for task in spec["tasks"] if task.get("weight") is None}
