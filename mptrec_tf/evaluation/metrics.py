"""Exact metrics over all rows, where `MPTRec.evaluate` approximates the AUC by thresholds."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from mptrec_tf.data import read_chunks
from mptrec_tf.data.labels import require_labels
from mptrec_tf.data.readers import Source, describe
from mptrec_tf.errors import DataError, ModelError, SpecError
from mptrec_tf.evaluation.batches import encoded_batches, graph, read_columns
from mptrec_tf.evaluation.calibration import Reliability, reliability
from mptrec_tf.evaluation.grouped import grouped_auc
from mptrec_tf.models import GrowingModel
from mptrec_tf.models.baselines.funnel import FunnelModel
from mptrec_tf.spec import Task
from mptrec_tf.spec.given import given_tasks

ROUNDING = 1e-4
"""How far the float32 probabilities of many classes may sum up beside 1."""


class Scored(NamedTuple):
    """One task's labels and predictions, row by row.

    Attributes:
        task: The task.
        labels: float32 (rows,), NaN for no label.
        predictions: float32 (rows,) or (rows, classes), as `MPTRec.predict` gives them.
        weights: float32 (rows,), or `None` for equal weights.

    Example:

    >>> labels, predictions = np.float32([0, 1, np.nan]), np.float32([0.2, 0.7, 0.5])
    >>> Scored(Task("click", "click"), labels, predictions).metrics()["auc"]
    1.0
    """

    task: Task
    labels: np.ndarray
    predictions: np.ndarray
    weights: np.ndarray | None = None

    def metrics(self, groups: np.ndarray | None = None) -> dict[str, float]:
        """The metrics of `evaluate` for this task.

        Args:
            groups: What each row's group is called, (rows,), for the grouped AUC of a binary task.
                Defaults to `None`: without it.

        Raises:
            DataError: If no row has a label, those that have one all weigh 0, or the groups are not
                one for each row.
            ModelError: If a prediction of a row with a label is no finite number.
        """
        known, weights = self._labelled()
        labels, predictions = self.labels[known], self.predictions[known]
        if self.task.kind == "regression":
            errors = predictions.astype(np.float64) - labels
            return {
                "rmse": float(np.sqrt(np.average(errors**2, weights=weights))),
                "mae": float(np.average(np.abs(errors), weights=weights)),
                "rows": len(labels),
            }
        classes = np.arange(max(self.task.num_outputs, 2))
        probabilities = _in_float64(predictions)
        loss = float(log_loss(labels, probabilities, sample_weight=weights, labels=classes))
        if self.task.kind == "multiclass":
            chosen = predictions.argmax(axis=-1)
            accuracy = float(accuracy_score(labels, chosen, sample_weight=weights))
            return {"accuracy": accuracy, "log_loss": loss, "rows": len(labels)}
        one_class = len(np.unique(labels[weights > 0])) == 1
        found = {
            "auc": (
                float("nan")
                if one_class
                else float(roc_auc_score(labels, predictions, sample_weight=weights))
            ),
            "log_loss": loss,
            "calibration_error": reliability(labels, predictions, weights).error,
            "rows": len(labels),
            "positives": int(np.count_nonzero(labels)),
        }
        if groups is None:
            return found
        groups = np.asarray(groups)
        if groups.shape != self.labels.shape:
            raise DataError(
                f"groups should be one for each of {len(self.labels)} rows. "
                f"Received: an array of shape {groups.shape}"
            )
        grouped = grouped_auc(labels, predictions, groups[known], weights)
        return {
            **found,
            "grouped_auc": grouped.auc,
            "groups": grouped.groups,
            "groups_left_out": grouped.left_out,
            "rows_without_group": grouped.rows_without_group,
        }

    def reliability(self) -> Reliability:
        """What was predicted and what came true, of a binary task.

        Raises:
            DataError: If the task is not binary, no row has a label, or those that have one all
                weigh 0.
            ModelError: If a prediction of a row with a label is no finite number.
        """
        if self.task.kind != "binary":
            raise DataError(
                f"reliability is of binary tasks, and {self.task.name!r} is {self.task.kind}"
            )
        known, weights = self._labelled()
        return reliability(self.labels[known], self.predictions[known], weights)

    def _labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Which rows have a label, and what these weigh; their predictions are finite."""
        known = ~np.isnan(self.labels)
        if not known.any():
            raise DataError(f"no row has a label of the task {self.task.name!r}")
        weights = np.ones(len(known)) if self.weights is None else self.weights
        if not weights[known].any():
            raise DataError(
                f"the weights of the task {self.task.name!r} are all 0, of the rows with a label"
            )
        predictions = self.predictions[known]
        finite = np.isfinite(predictions).reshape(len(predictions), -1).all(axis=1)
        if not finite.all():
            raise ModelError(
                f"{np.count_nonzero(~finite)} of {len(finite)} rows with a label of the task "
                f"{self.task.name!r} have a prediction that is no finite number"
            )
        return known, weights[known]


def evaluate(
    model: GrowingModel,
    source: Source,
    tasks: Sequence[Task | str] | None = None,
    *,
    batch_size: int = 4096,
    group: str | None = None,
) -> dict[str, dict[str, float]]:
    """Exact metrics of each task, over the rows that have a label of it.

    Rows are read and scored batch by batch; memory holds a label and a prediction for each row.

    Args:
        model: The model.
        source: Rows with the features and labels: a frame, a dict of columns, or files.
        tasks: The tasks to score, or their names; label, rule, mask and weight of a `Task` need not
            be those of the model's task of that name. Defaults to `None`: the model's whose label
            columns the data have.
        batch_size: Rows that are scored at a time. Defaults to 4,096.
        group: Column, such as that of the user, within whose values the AUC of binary tasks is
            taken too, see `grouped_auc`. Defaults to `None`.

    Returns:
        By task, weighted where the task has a weight column:

        - binary: `"auc"`, `"log_loss"`, `"calibration_error"` (see `reliability`), `"rows"`,
          `"positives"`. Where all labels are of one class there is no order to judge, and `"auc"`
          is NaN. With `group` also `"grouped_auc"`, `"groups"`, `"groups_left_out"`, those of one
          class, and `"rows_without_group"`, whose cell is empty: they are no group together;
        - multiclass: `"accuracy"`, `"log_loss"`, `"rows"`;
        - regression: `"rmse"`, `"mae"`, `"rows"`.

        `"rows"` and `"positives"` are counts of labelled rows, without weights.

    Raises:
        DataError: If the data do not fit the features or the tasks, or a task has no label at all.
        ModelError: If the model has no such task, or one of another kind or other classes, or a
            prediction is no finite number.

    Example:

    ```python
    evaluate(model, "test.parquet")["income"]["auc"]
    ```
    """
    groups = None if group is None else read_columns(source, [group])[group]
    scored = score(model, source, tasks, batch_size=batch_size)
    return {name: task.metrics(groups) for name, task in scored.items()}


def score(
    model: GrowingModel,
    source: Source,
    tasks: Sequence[Task | str] | None = None,
    *,
    batch_size: int = 4096,
) -> dict[str, Scored]:
    """Labels and predictions of each task on all rows, those without a label included.

    Args:
        model: The model.
        source: Rows with the features and labels: a frame, a dict of columns, or files.
        tasks: The tasks to score, or their names; label, rule, mask and weight of a `Task` need not
            be those of the model's task of that name. Defaults to `None`: the model's whose label
            columns the data have.
        batch_size: Rows that are scored at a time. Defaults to 4,096.

    Returns:
        Labels and predictions by task.

    Raises:
        DataError: If the data do not fit the features or the tasks, or a task has no label at all.
        ModelError: If the model has no such task, or one of another kind or other classes.

    Example:

    ```python
    scored = score(model, "test.parquet")["income"]
    scored.predictions[scored.labels == 1].mean()
    ```
    """
    if tasks is None:
        tasks = _tasks_in(source, model.tasks)
    else:
        if isinstance(tasks, str | Task):
            raise SpecError(f"tasks must be a list of tasks or of their names. Received: {tasks!r}")
        tasks = given_tasks([model.task(t) if isinstance(t, str) else t for t in tasks])
    for task in tasks:
        _require_same_outputs(task, model.task(task.name))
    names = [task.name for task in tasks]
    predict: Callable[[Any], Any] | None = None
    parts = []
    read = [*tasks, *_other_steps(model, source, names)]
    for inputs, labels, weights in encoded_batches(model.encoder, source, read, batch_size):
        predict = predict or graph(lambda batch: model(batch), inputs)
        outputs = predict(inputs)
        predictions = {name: outputs[name].numpy() for name in names}
        parts.append((labels, predictions, weights))
    labels, predictions, weights = tf.nest.map_structure(lambda *p: np.concatenate(p), *parts)
    labels = {name: np.asarray(values) for name, values in model.measured(labels).items()}
    counts = {name: int(np.count_nonzero(~np.isnan(labels[name]))) for name in names}
    require_labels(tasks, counts, describe(source))
    return {
        task.name: Scored(task, labels[task.name], predictions[task.name], weights.get(task.name))
        for task in tasks
    }


def _in_float64(probabilities: np.ndarray) -> np.ndarray:
    """For scikit-learn, which cuts off what is below the epsilon of the precision."""
    wide = probabilities.astype(np.float64)
    if wide.ndim == 1:
        return wide
    # It also warns of classes whose sum is not 1, which in float64 float32 never is to the bit.
    sums = wide.sum(axis=-1, keepdims=True)
    return wide / np.where(np.abs(sums - 1) < ROUNDING, sums, 1)


def _require_same_outputs(task: Task, own: Task) -> None:
    if (task.kind, task.classes) != (own.kind, own.classes):
        raise ModelError(
            f"the task {task.name!r} was given as {_outputs(task)}, and the model's is "
            f"{_outputs(own)}; only label, rule, mask and weight may differ"
        )


def _outputs(task: Task) -> str:
    classes = "" if task.classes is None else f" with the classes {list(task.classes)}"
    return task.kind + classes


def _tasks_in(source: Source, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Those tasks whose label columns the data have."""
    problems = {task: _missing(task, source) for task in tasks}
    found = tuple(task for task, problem in problems.items() if problem is None)
    if not found:
        raise next(filter(None, problems.values()))
    return found


def _other_steps(model: GrowingModel, source: Source, names: Sequence[str]) -> list[Task]:
    """The other steps of a funnel that the data have: whether they were taken is in the labels."""
    if not isinstance(model, FunnelModel):
        return []
    others = [task for task in model.tasks if task.name not in names]
    return [task for task in others if _missing(task, source) is None]


def _missing(task: Task, source: Source) -> DataError | None:
    """What says that the data lack a task's label column."""
    try:
        next(read_chunks(source, tasks=[dataclasses.replace(task, mask=None, weight=None)]))
    except DataError as problem:
        return problem
    return None
