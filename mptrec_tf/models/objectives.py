"""Per task: loss, prediction and metrics, with missing labels left out."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mptrec_tf.errors import ModelError
from mptrec_tf.layers.replicas import counted_mean
from mptrec_tf.spec import Task

_ACCURACY = {
    "binary": keras.metrics.BinaryAccuracy,
    "multiclass": keras.metrics.SparseCategoricalAccuracy,
}
_CROSSENTROPY = {
    "binary": keras.metrics.BinaryCrossentropy,
    "multiclass": keras.metrics.SparseCategoricalCrossentropy,
}
# As Keras does it, where a name alone does not tell which metric is meant.
_BY_KIND: dict[str, Mapping[str, type[keras.metrics.Metric]]] = {
    "accuracy": _ACCURACY,
    "acc": _ACCURACY,
    "crossentropy": _CROSSENTROPY,
    "ce": _CROSSENTROPY,
}


def example_losses(task: Task, labels: Any, logits: Any) -> Any:
    """The task's loss on each example.

    Cross-entropy for binary and multiclass tasks, squared error for regression.

    Args:
        task: The task.
        labels: float32 (B,), NaN for no label.
        logits: float32 (B, number of outputs).

    Returns:
        float32 (B,), NaN where there is no label; no NaN reaches the gradient.
    """
    known = ops.logical_not(ops.isnan(labels))
    labels = ops.where(known, labels, 0.0)
    if task.kind == "binary":
        losses = ops.binary_crossentropy(labels, logits[:, 0], from_logits=True)
    elif task.kind == "multiclass":
        classes = ops.cast(labels, "int32")
        losses = ops.sparse_categorical_crossentropy(classes, logits, from_logits=True)
    else:
        losses = ops.square(logits[:, 0] - labels)
    return ops.where(known, losses, np.nan)


def mean_loss(losses: Any, labels: Any, weights: Any = None) -> Any:
    """Weighted sum over the labelled examples, over their number; 0 where none has a label.

    With several replicas the mean of their losses is that of the whole batch, see `counted_mean`.

    Args:
        losses: float32 (B,).
        labels: float32 (B,), NaN for no label.
        weights: float32 (B,), or `None` for equal weights.

    Returns:
        A scalar, NaN where the loss of a labelled example is.
    """
    weighted = losses if weights is None else losses * weights
    return counted_mean(weighted, ops.logical_not(ops.isnan(labels)))


def prediction(task: Task, logits: Any) -> Any:
    """What `predict` gives: a probability (B,), class probabilities (B, C) or a number (B,)."""
    if task.kind == "binary":
        return ops.sigmoid(logits[:, 0])
    return ops.softmax(logits) if task.kind == "multiclass" else logits[:, 0]


@keras.saving.register_keras_serializable("mptrec_tf")
class LogitAUC(keras.metrics.AUC):
    """Area under the ROC curve from logits.

    Keras's AUC places its thresholds evenly over [0, 1], where the scores of rare events crowd near
    0. The area depends on the order of scores only, so the logits are spread by
    `(1 + softsign(logit / 8)) / 2` first, which tells far-out scores apart where a sigmoid
    saturates. NaN where there is no positive or no negative example, or a score that counts is NaN.

    Args:
        num_thresholds: Defaults to 1,000: within about 1e-4 of the exact area,
            1e-3 where all scores lie around -12.
        name: Defaults to `"auc"`.
        **kwargs: Other arguments of `keras.metrics.AUC`.

    Example:

    >>> metric = LogitAUC()
    >>> metric.update_state([0.0, 1.0, 1.0], [-9.0, -8.0, 3.0])
    >>> round(float(metric.result()), 3)
    1.0
    """

    def __init__(self, num_thresholds: int = 1000, name: str = "auc", **kwargs: Any) -> None:
        super().__init__(num_thresholds=num_thresholds, name=name, **kwargs)
        self.undefined = self.add_variable((), "zeros", name="undefined")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        logits = ops.convert_to_tensor(y_pred, "float32")
        undefined = ops.cast(ops.isnan(logits), "float32")
        if sample_weight is not None:
            undefined *= ops.reshape(ops.cast(sample_weight, "float32"), ops.shape(logits))
        self.undefined.assign_add(ops.sum(undefined))
        super().update_state(y_true, 0.5 + 0.5 * ops.softsign(logits / 8.0), sample_weight)

    def result(self) -> Any:
        positives = self.true_positives[0] + self.false_negatives[0]
        negatives = self.false_positives[0] + self.true_negatives[0]
        both = ops.logical_and(positives > 0, negatives > 0)
        return ops.where(both & (self.undefined == 0), super().result(), np.nan)

    def reset_state(self) -> None:
        super().reset_state()
        self.undefined.assign(0.0)


QUALITIES: dict[str, tuple[str, type[keras.metrics.Metric]]] = {
    "binary": ("auc", LogitAUC),
    "multiclass": ("accuracy", keras.metrics.SparseCategoricalAccuracy),
    "regression": ("rmse", keras.metrics.RootMeanSquaredError),
}
"""What tells how good a task is, by its kind: its name and metric."""


class TaskMetrics:
    """The metrics of one model: each task's loss and quality, their mean, the total loss.

    Names: `loss`; `<task>_loss`; `<task>_auc` (binary), `<task>_accuracy` (multiclass),
    `<task>_rmse` (regression); `mean_auc` over the binary tasks. Those of a task of which no labels
    were counted are NaN, as is an area of labels that are all alike; `mean_auc` leaves it out.

    Args:
        tasks: The tasks.
        others: More metrics by task, which are copied; the copies are named `<task>_<name>`. They
            compare labels with what `predict` gives. Defaults to none.

    Raises:
        ModelError: If two metrics have one name, of one task or of two.
    """

    def __init__(
        self, tasks: list[Task], others: Mapping[str, Sequence[keras.metrics.Metric]] | None = None
    ) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.loss = keras.metrics.Mean(name="loss")
        self.losses = {name: keras.metrics.Mean(name=f"{name}_loss") for name in self.tasks}
        self.qualities = {name: _quality_metric(task) for name, task in self.tasks.items()}
        self.others = {
            name: [
                named(f"{name}_{metric.name}", metric) for metric in (others or {}).get(name, ())
            ]
            for name in self.tasks
        }
        self._require_names_of_their_own()

    def _require_names_of_their_own(self) -> None:
        parts = (self.losses, self.qualities)
        taken = {metric.name: name for part in parts for name, metric in part.items()}
        for name, metrics in self.others.items():
            for metric in metrics:
                # Also that of another task: `b_loss` of the task `a`, where `a_b` is a task too.
                if metric.name in taken:
                    raise ModelError(
                        f"the task {name!r} cannot have a metric named {metric.name!r}, since the "
                        f"task {taken[metric.name]!r} has one; give it another name"
                    )
                taken[metric.name] = name

    @property
    def all(self) -> list[keras.metrics.Metric]:
        """Every metric, to be reset between epochs."""
        others = (metric for metrics in self.others.values() for metric in metrics)
        return [self.loss, *self.losses.values(), *self.qualities.values(), *others]

    def update(self, name: str, labels: Any, logits: Any, losses: Any, weights: Any) -> None:
        """Counts a batch of one task; examples without a label weigh nothing."""
        task = self.tasks[name]
        known = ops.logical_not(ops.isnan(labels))
        weight = ops.cast(known, "float32")
        if weights is not None:
            weight = ops.where(known, weights, 0.0)
        labels = ops.where(known, labels, 0.0)
        self.losses[name].update_state(ops.where(known, losses, 0.0), weight)
        predicted = logits if task.kind == "multiclass" else logits[:, 0]
        self.qualities[name].update_state(labels, predicted, weight)
        if self.others[name]:
            predicted = prediction(task, logits)
            if task.kind != "multiclass":  # Keras takes means over the last axis
                labels, predicted = labels[:, None], predicted[:, None]
            for metric in self.others[name]:
                metric.update_state(labels, predicted, weight)

    def results(self, names: Iterable[str]) -> dict[str, Any]:
        """The values of some tasks."""
        results = {"loss": self.loss.result()}
        areas = []
        for name in names:
            quality = self.qualities[name]
            known = self.losses[name].count > 0
            for metric in (self.losses[name], quality, *self.others[name]):
                results[metric.name] = ops.where(known, metric.result(), np.nan)
            if self.tasks[name].kind == "binary":
                areas.append(results[quality.name])
        if areas:
            defined = [ops.logical_not(ops.isnan(area)) for area in areas]
            total = sum(ops.where(one, area, 0.0) for one, area in zip(defined, areas, strict=True))
            results["mean_auc"] = total / sum(ops.cast(one, "float32") for one in defined)
        return results


def named(name: str, metric: keras.metrics.Metric) -> keras.metrics.Metric:
    """A copy of a metric under a name, without what it has counted.

    Args:
        name: The name.
        metric: The metric.
    """
    return type(metric).from_config({**metric.get_config(), "name": name})


def metric_names(tasks: Sequence[Task], others: Iterable[str] = ()) -> list[str]:
    """Names of the metrics of tasks, as `TaskMetrics` gives them.

    Args:
        tasks: The tasks.
        others: Names of more metrics of theirs. Defaults to none.

    Example:

    >>> metric_names([Task("click", "click"), Task("price", "price", kind="regression")])
    ['loss', 'click_loss', 'price_loss', 'click_auc', 'price_rmse', 'mean_auc']
    """
    losses = [f"{task.name}_loss" for task in tasks]
    means = ["mean_auc"] if any(task.kind == "binary" for task in tasks) else []
    return ["loss", *losses, *map(_quality_name, tasks), *others, *means]


def _quality_name(task: Task) -> str:
    return f"{task.name}_{QUALITIES[task.kind][0]}"


def _quality_metric(task: Task) -> keras.metrics.Metric:
    return QUALITIES[task.kind][1](name=_quality_name(task))


def metrics_by_task(
    given: Any, task: Callable[[str], Task]
) -> dict[str, list[keras.metrics.Metric]]:
    """What `compile` is given as `metrics`, checked; a metric may also be serialized.

    Args:
        given: A dict of lists of metrics or their names by task, or `None`.
        task: Gives the task of a name, or refuses it.

    Raises:
        ModelError: If it is something else.
    """
    if not isinstance(given, Mapping | None):
        raise ModelError(
            "metrics must be a dict by task, such as {'click': [keras.metrics.AUC(curve='PR', "
            f"name='pr_auc')]}}. Received: {given!r}"
        )
    found: dict[str, list[keras.metrics.Metric]] = {}
    for name, metrics in (given or {}).items():
        of = task(name)
        if not isinstance(metrics, list | tuple):
            raise ModelError(
                f"metrics of the task {name!r} must be a list of metrics. Received: {metrics!r}"
            )
        found[name] = [_metric(of, metric) for metric in metrics]
    return found


def _metric(task: Task, given: Any) -> keras.metrics.Metric:
    if isinstance(given, str) and (kinds := _BY_KIND.get(given.lower())):
        if task.kind not in kinds:
            raise ModelError(f"the {task.kind} task {task.name!r} has no {given!r}")
        return kinds[task.kind](name=given)
    try:
        metric = keras.metrics.get(given)
    except (TypeError, ValueError):
        metric = None
    if not isinstance(metric, keras.metrics.Metric):
        raise ModelError(
            f"metrics of the task {task.name!r} must be Keras metrics or their names. "
            f"Received: {given!r}"
        )
    if isinstance(given, str):
        # Keras numbers the default names of one process: "auc", "auc_1".
        metric = named(re.sub(r"_\d+$", "", metric.name), metric)
    return metric
