"""What a model uses: how its gates and its prompt attention weigh over the rows of a source."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mptrec_tf.data.readers import Source
from mptrec_tf.evaluation.batches import encoded_batches, graph
from mptrec_tf.models import MPTRec

BINS = 40


class WeightsInUse(NamedTuple):
    """Distributions of weights over rows.

    Attributes:
        gates: By task, float32 (rows,): the weight of the specific representation; the shared one
            has the rest.
        prompts: By added task and stage 1 task, float32 (rows,): the attention that the added task
            pays to the stage 1 task's expert.

    Example:

    ```python
    weights = weights_in_use(model, "validation.parquet")
    weights.prompts["education"]["income"].mean()  # what education takes of the expert of income
    ```
    """

    gates: dict[str, np.ndarray]
    prompts: dict[str, dict[str, np.ndarray]]


def weights_in_use(model: MPTRec, source: Source, *, batch_size: int = 4096) -> WeightsInUse:
    """Gate and prompt weights of every task on every row.

    Args:
        model: The model.
        source: Rows with the features; labels are not needed.
        batch_size: Rows that are computed at a time. Defaults to 4,096.

    Returns:
        The weights, row by row.

    Raises:
        DataError: If the data do not fit the features.

    Example:

    ```python
    weights_in_use(model, "validation.parquet").gates["income"].mean()
    ```
    """
    compute: Callable[[Any], Any] | None = None
    parts = []
    for inputs, _, _ in encoded_batches(model.encoder, source, (), batch_size):
        compute = compute or graph(_weights_of(model), inputs)
        parts.append(tf.nest.map_structure(lambda weights: weights.numpy(), compute(inputs)))
    gates, prompts = tf.nest.map_structure(lambda *part: np.concatenate(part), *parts)
    sources = [task.name for task in model.stage1_tasks]
    return WeightsInUse(
        {task: weights[:, 0] for task, weights in gates.items()},
        {
            task: {name: weights[:, k] for k, name in enumerate(sources)}
            for task, weights in prompts.items()
        },
    )


def histogram(values: Mapping[str, np.ndarray], low: float, high: float) -> dict[str, Any]:
    """Distributions in the same bins, as plain data.

    Args:
        values: Numbers by name.
        low: Left edge of the first of 40 bins.
        high: Right edge of the last.

    Returns:
        `"edges"`, and by name `"means"` and `"counts"`.
    """
    edges = np.linspace(low, high, BINS + 1)
    return {
        "edges": edges.tolist(),
        "means": {name: float(np.mean(v, dtype=np.float64)) for name, v in values.items()},
        "counts": {name: np.histogram(v, edges)[0].tolist() for name, v in values.items()},
    }


def _weights_of(model: MPTRec) -> Callable[[Any], Any]:
    def compute(inputs: Any) -> Any:
        rows = tf.shape(next(iter(inputs.values())))[0]
        prompts = {
            task: tf.broadcast_to(weights, (rows, len(model.stage1_tasks)))
            for task, weights in model.prompt_weights(inputs).items()
        }
        weights = (model.gate_weights(inputs), prompts)
        return tf.nest.map_structure(lambda part: tf.cast(part, tf.float32), weights)

    return compute
