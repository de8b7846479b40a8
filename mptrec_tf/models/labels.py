"""Labels and example weights, as `fit` and a step are given them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mptrec_tf.data.labels import check_example_weights, check_labels
from mptrec_tf.errors import ModelError
from mptrec_tf.spec import Task


def by_row(name: str, values: Any, what: str = "labels", axes: int = 1) -> Any:
    """A task's labels or example weights without a last axis of 1, which would be broadcast.

    Args:
        name: The task.
        values: (B,) or (B, 1); with another axis in front where they are of several steps.
        what: What to call them. Defaults to `"labels"`.
        axes: How many axes they are to have, 2 with several steps. Defaults to 1.

    Raises:
        ModelError: If they have another shape.

    Example:

    >>> by_row("click", np.zeros((3, 1))).shape
    TensorShape([3])
    """
    shape = values.shape
    if shape is None or len(shape) == axes:
        return values
    if len(shape) == axes + 1 and shape[-1] == 1:
        return ops.squeeze(values, -1)
    raise ModelError(
        f"{what} of the task {name!r} must have the shape (B,) or (B, 1), a number for each row. "
        f"Received: {tuple(shape)[axes - 1 :]}"
    )


def unpack(data: Any, tasks: Collection[str], axes: int = 1) -> tuple[Any, Any, Any]:
    """Inputs, labels and example weights; of labels and weights (B, 1) the last axis is gone.

    Args:
        data: `(x, y)` or `(x, y, weights)`.
        tasks: Names of the model's tasks; weights of others are left out.
        axes: 1 for a batch, 2 for several, one after another. Defaults to 1.

    Raises:
        ModelError: If labels or weights of a task have another shape, or there are weights without
            labels.

    Example:

    >>> unpack((None, {"click": np.ones((2, 1))}, np.ones(2)), ["click"])[2]["click"].shape
    TensorShape([2])
    """
    x, *parts = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(parts[0], Mapping):
        parts[1] = _by_task(parts[0], parts[1])
    y, weights = (
        {n: by_row(n, v, what, axes) if n in tasks else v for n, v in part.items()}
        if isinstance(part, Mapping)
        else part
        for what, part in zip(("labels", "example weights"), parts, strict=True)
    )
    if isinstance(weights, Mapping):
        weights = {n: ops.cast(w, "float32") for n, w in weights.items() if n in tasks}
    return x, y, weights


def check_label_arrays(y: Any, task: Callable[[str], Task]) -> None:
    """Checks labels that are given as arrays.

    Args:
        y: Labels by task; anything else passes.
        task: Gives the task of a name, or refuses it.

    Raises:
        ModelError: If there is no such task, or its labels have another shape than (B,) or (B, 1).
        DataError: If a label is not one that its task allows.
    """
    if isinstance(y, Mapping):
        for name, values in y.items():
            known, values = task(name), np.asarray(values, np.float32)
            by_row(name, values)
            check_labels(known, values, "y")


def checked_weights(
    y: Any,
    weights: Any,
    task: Callable[[str], Task],
    measured: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Any:
    """Example weights that are arrays, as Keras takes them: those of all tasks or of none.

    Args:
        y: Labels by task; with anything else the weights pass.
        weights: Those of all tasks, or by task.
        task: Gives the task of a name.
        measured: The model's `measured`.

    Raises:
        ModelError: If weights have another shape, or there are some without labels.
        DataError: If a labelled row has a weight that is none.
    """
    if not isinstance(y, Mapping) or weights is None:
        return weights
    labels = measured(y)
    for name, values in (_by_task(y, weights) or {}).items():
        by_row(name, np.asarray(values), "example weights")
        check_example_weights(task(name), values, labels[name], "sample_weight")
    if not isinstance(weights, Mapping):
        return weights
    whole: dict[str, Any] = {n: np.ones(len(values), np.float32) for n, values in y.items()}
    return whole | dict(weights)


def require_labels_of(y: Any, names: Sequence[str]) -> None:
    """Refuses labels that are not those of some tasks, or lack one.

    Args:
        y: What should be labels by task.
        names: The tasks.

    Raises:
        ModelError: Names what is missing.
    """
    given = list(y) if isinstance(y, Mapping) else type(y).__name__
    missing = [name for name in names if not isinstance(y, Mapping) or name not in y]
    if missing:
        raise ModelError(
            f"y must be a dict with the labels of {names} (NaN where a row has none); "
            f"{missing} are missing. Received: {given}"
        )


def _by_task(y: Mapping[str, Any], weights: Any) -> Mapping[str, Any] | None:
    """Example weights by task: those of all tasks are those of each."""
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        return dict.fromkeys(y, weights)
    if unknown := sorted(weights.keys() - y.keys()):
        raise ModelError(f"there are example weights of {unknown}, but labels of {sorted(y)} only")
    return weights
