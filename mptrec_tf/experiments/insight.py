"""How a model does it: what its gates weigh, and where its representations lie."""

from typing import Any

import numpy as np
import threadpoolctl
from sklearn.manifold import TSNE

from mptrec_tf.evaluation.batches import graph
from mptrec_tf.experiments.data import EncodedParts
from mptrec_tf.models import MPTRec

POINTS = 250
"""Rows whose representations are drawn; few, since they are stored with the results."""
SIDE = 200
"""Width of the square that holds the points."""


def gate_means(model: Any, data: EncodedParts) -> dict[str, list[float]] | None:
    """How much each task takes from each expert, mean over the validation rows.

    Args:
        model: A model; one without `gate_weights` has no gates.
        data: The rows.

    Returns:
        By task, weights that sum to 1; `None` without gates.
    """
    if not hasattr(model, "gate_weights"):
        return None
    compute, totals, rows = None, dict[str, Any](), 0
    for x, _, _ in data.batches("validation", ()):
        compute = compute or graph(model.gate_weights, x)
        for task, weights in compute(x).items():
            totals[task] = totals.get(task, 0) + weights.numpy().sum(axis=0, dtype=np.float64)
        rows += len(next(iter(x.values())))
    return {task: (total / rows).round(5).tolist() for task, total in totals.items()}


def representations(model: Any, data: EncodedParts) -> dict[str, list[list[int]]] | None:
    """Where t-SNE puts the shared and the specific representations of some validation rows.

    Args:
        model: A model; only `MPTRec` has any.
        data: The rows.

    Returns:
        By name, `"shared"` or a task, points on a grid of 200 by 200; `None` for other models, and
        where there are too few rows, or all are alike.
    """
    if not isinstance(model, MPTRec):
        return None
    x, _, _ = next(data.batches("validation", ()))
    _, shared, specific, _ = model.represent({name: part[:POINTS] for name, part in x.items()})
    vectors = np.concatenate([shared.numpy()[:, None], specific.numpy()], axis=1)
    names = ["shared", *(task.name for task in model.stage1_tasks)]
    flat = vectors.reshape(-1, vectors.shape[-1])
    if len(flat) < 4 or not np.ptp(flat, axis=0).any():  # which t-SNE cannot part
        return None
    near = min(30.0, (len(flat) - 1) / 3)
    with threadpoolctl.threadpool_limits(1):  # on a busy machine several wait for each other
        placed = TSNE(random_state=0, init="pca", perplexity=near).fit_transform(flat)
    placed = SIDE * (placed - placed.min(axis=0)) / np.ptp(placed, axis=0)
    placed = placed.round().astype(int).reshape(*vectors.shape[:2], 2)
    return {name: placed[:, k].tolist() for k, name in enumerate(names)}
