"""Labels, predictions and weights of a binary task, checked before anything is made of them."""

from typing import Any

import numpy as np

from mptrec_tf.errors import DataError


def binary_rows(
    labels: Any, predictions: Any, weights: Any = None, **others: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a binary task as float64.

    Args:
        labels: 0 and 1, (rows,).
        predictions: Finite numbers, (rows,).
        weights: Finite numbers, 0 or more, (rows,). Defaults to `None`, all 1.
        **others: What else must have as many rows, by the name of the argument.

    Returns:
        Labels, predictions and weights.

    Raises:
        DataError: Names the argument and the value, or the shapes.

    Example:

    >>> binary_rows([0, 1], [0.25, 0.5])[2]
    array([1., 1.])
    """
    labels, predictions = _numbers("labels", labels), _numbers("predictions", predictions)
    weights = np.ones(labels.shape) if weights is None else _numbers("weights", weights)
    rows = {"labels": labels, "predictions": predictions, "weights": weights, **others}
    shapes = {name: np.shape(values) for name, values in rows.items()}
    if labels.ndim != 1 or len(set(shapes.values())) > 1:
        raise DataError(f"{', '.join(shapes)} must have one shape, (rows,). Received: {shapes}")
    _refuse("labels", labels, (labels != 0) & (labels != 1), "0 or 1")
    _refuse("predictions", predictions, ~np.isfinite(predictions), "finite numbers")
    wrong = ~((weights >= 0) & np.isfinite(weights))
    _refuse("weights", weights, wrong, "finite numbers, 0 or more")
    return labels, predictions, weights


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be numbers: {error}") from error


def _refuse(name: str, values: np.ndarray, wrong: np.ndarray, expected: str) -> None:
    if wrong.any():
        raise DataError(f"{name} must be {expected}. Received: {values[wrong][0]:g}")
