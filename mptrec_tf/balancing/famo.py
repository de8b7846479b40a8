"""Task weights that make all losses fall at one rate, at the cost of one forward pass."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf.balancing.base import Balancing, descend, require_number

SMALL = 1e-8
NOTHING = -1e9


@keras.saving.register_keras_serializable("mptrec_tf")
class FAMO(Balancing):
    """Weighs the tasks so that the logarithms of their losses fall at one rate.

    With `z = softmax(xi)`, which begins even, a step follows `sum_k w_k v_k L_k`, with `v_k`
    proportional to `z_k / L_k`. After it, `xi` descends along
    `J^T (log L_k(before) - log L_k(after)) + gamma xi`, with `J` the derivative of the softmax: a
    task that fell less than the others counts more in the next step. The `v_k` sum to the number of
    tasks, where the published ones sum to 1, so that penalties keep their weight beside them.

    One backward pass, as without balancing, and a second forward pass over the same rows under the
    same dropout.

    Args:
        learning_rate: Rate of Adam for `xi`, `beta` in the paper. Defaults to 0.025, as published.
        decay: `gamma`. Defaults to 1e-3, as published.
        **kwargs: `name`.

    Raises:
        ValueError: If `learning_rate` is no finite number above 0, or `decay` none from 0 on.

    Example:

    ```python
    model.compile("adam", balancing="famo")
    ```

    Reference: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023,
    arXiv:2306.03792, algorithm 1.
    """

    looks_back = True

    def __init__(self, learning_rate: float = 0.025, decay: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_number("learning_rate", learning_rate)
        require_number("decay", decay, zero=True)
        self.learning_rate = learning_rate
        self.decay = decay

    def build(self, num_tasks: int) -> None:
        self.logits = self.add_weight(
            name="logits", shape=(num_tasks,), initializer="zeros", trainable=False
        )
        self.optimizer = keras.optimizers.Adam(self.learning_rate)
        self.optimizer.build([self.logits])

    def factors(self, losses: Any, gradients: Any = None) -> Any:
        """See `Balancing.factors`."""
        present = ops.cast(losses > 0, "float32")
        shares = present * ops.softmax(tf.convert_to_tensor(self.logits)) / (losses + SMALL)
        total = ops.maximum(ops.sum(shares), SMALL)
        return self.loss_weights * shares * ops.sum(present) / total

    def look_back(self, before: Any, after: Any) -> None:
        """See `Balancing.look_back`."""
        present = before > 0
        logits = tf.convert_to_tensor(self.logits)
        fell = ops.log(before + SMALL) - ops.log(after + SMALL)
        fell = ops.where(present & (after > 0), fell, 0.0)
        even = ops.softmax(ops.where(present, logits, NOTHING))
        slopes = even * (fell - ops.sum(even * fell))
        descend(self.optimizer, self.logits, slopes + self.decay * logits, present)
        # In a softmax the absent would lose what the present gain together.
        moved = tf.convert_to_tensor(self.logits)
        gain = _together(moved, present) - _together(logits, present)
        self.logits.assign(moved - ops.where(present & ~ops.all(present), gain, 0.0))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "decay": self.decay,
        }


def _together(logits: Any, present: Any) -> Any:
    return ops.logsumexp(ops.where(present, logits, NOTHING))
