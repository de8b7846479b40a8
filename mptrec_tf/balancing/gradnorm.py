"""Task weights that give the tasks gradients of one size."""

import re
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf.balancing.base import Balancing, descend, require_number

LOWEST = 1e-3


@keras.saving.register_keras_serializable("mptrec_tf")
class GradNorm(Balancing):
    """Weighs the tasks so that their gradients are of one size, larger for those that lag behind.

    With `G_k = v_k |g_k|` over shared weights and `r_k` the fraction `L_k(t) / L_k(0)` of the loss
    that is left, over its mean: the weights `v_k`, which begin at 1 and sum to K, descend on
    `sum_k |G_k - mean(G) r_k^alpha|`, in which only `G_k` depends on them. A step follows
    `sum_k w_k v_k L_k`.

    The paper takes the norms at the last shared layer, to save time. Here it is all shared weights
    (see `TaskGradients`), since a model with experts and gates has no such layer; `weights` chooses
    some, such as `"experts/kernel_1"`, and saves the rest of each task's backward pass. Where the
    tasks share no number of these, as of towers, which lie in one tensor, all `v_k` stay 1.

    Args:
        alpha: How strongly a task that lags behind is pulled, 0 for not at all. Defaults to 1.5, as
            published for tasks that differ much.
        learning_rate: Rate of Adam for the `v_k`. Defaults to 0.025, as published.
        weights: A regular expression that is searched for in the paths of the weights whose
            gradients count. Defaults to `""`: all.
        **kwargs: `name`.

    Raises:
        ValueError: If `learning_rate` is no finite number above 0, `alpha` none from 0 on, or
            `weights` no regular expression.

    Example:

    ```python
    model.compile("adam", balancing=mpt.balancing.GradNorm(weights="experts/kernel_1"))
    ```

    Reference: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks", ICML 2018, arXiv:1711.02257, equations 1 and 2, algorithm 1.
    """

    uses_gradients = True

    def __init__(
        self, alpha: float = 1.5, learning_rate: float = 0.025, weights: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        require_number("alpha", alpha, zero=True)
        require_number("learning_rate", learning_rate)
        try:
            re.compile(weights)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"weights must be a regular expression: {error}. Received: {weights!r}"
            ) from error
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.paths = weights

    def build(self, num_tasks: int) -> None:
        self.task_weights = self.add_weight(
            name="task_weights", shape=(num_tasks,), initializer="ones", trainable=False
        )
        self.first_losses = self.add_weight(
            name="first_losses", shape=(num_tasks,), initializer="zeros", trainable=False
        )
        self.optimizer = keras.optimizers.Adam(self.learning_rate)
        self.optimizer.build([self.task_weights])

    def factors(self, losses: Any, gradients: Any) -> Any:
        """See `Balancing.factors`."""
        present = losses > 0
        weights, first = map(tf.convert_to_tensor, (self.task_weights, self.first_losses))
        first = ops.where(present & (first == 0), losses, first)
        self.first_losses.assign(first)
        norms = ops.sqrt(ops.diagonal(gradients.products(self.paths)))
        left = losses / ops.where(first > 0, first, 1.0)
        rates = left / _mean(left, present)
        sizes = weights * norms
        targets = _mean(sizes, present) * rates**self.alpha
        slopes = ops.sign(sizes - targets) * norms
        # Of a step that overflows and is not taken there are no norms, and nothing to learn.
        present = present & ops.any(norms > 0)
        descend(self.optimizer, self.task_weights, slopes, present)
        moved = ops.maximum(tf.convert_to_tensor(self.task_weights), LOWEST)
        # What the absent have of the sum K stays theirs.
        theirs = ops.sum(ops.where(present, 0.0, weights))
        sum_moved = ops.maximum(ops.sum(ops.where(present, moved, 0.0)), LOWEST)
        moved = moved * (moved.shape[0] - theirs) / sum_moved
        self.task_weights.assign(ops.where(present, moved, weights))
        return self.loss_weights * weights

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "learning_rate": self.learning_rate,
            "weights": self.paths,
        }


def _mean(values: Any, present: Any) -> Any:
    """The mean over the tasks that are present; 1 where none is."""
    counts = ops.cast(present, "float32")
    return ops.where(
        ops.any(present), ops.sum(values * counts) / ops.maximum(ops.sum(counts), 1), 1
    )
