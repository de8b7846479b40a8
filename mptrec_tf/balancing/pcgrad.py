"""Gradients without what tasks would do to each other."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf.balancing.base import Balancing


@keras.saving.register_keras_serializable("mptrec_tf")
class PCGrad(Balancing):
    """Takes out of each task's gradient what opposes another task ("gradient surgery").

    For each task, going through the others in random order: where its gradient opposes the other's,
    `g_i . g_j < 0`, it loses its part along that, `g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j`. A step
    follows `sum_k w_k g_k` of what is left. This concerns the shared weights (see `TaskGradients`);
    what one task alone trains is left as it is, and where no two tasks oppose each other, the step
    is the one without balancing.

    One backward pass for each task, and one for the sum.

    Args:
        seed: Seed of the order. Defaults to 0.
        **kwargs: `name`.

    Example:

    ```python
    model.compile("adam", balancing="pcgrad")
    ```

    Reference: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
    arXiv:2001.06782, algorithm 1.
    """

    uses_gradients = True
    shared_only = True

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, num_tasks: int) -> None:
        self.step = self.add_weight(
            name="step", shape=(), initializer="zeros", dtype="int32", trainable=False
        )

    def factors(self, losses: Any, gradients: Any) -> Any:
        """See `Balancing.factors`."""
        count = losses.shape[0]
        seed = tf.stack([self.seed, tf.convert_to_tensor(self.step)])
        draws = tf.random.stateless_uniform((count, count), seed, alg="philox")
        self.step.assign_add(1)
        return ops.matmul(
            self.loss_weights, projected(gradients.products(), ops.argsort(draws, axis=-1))
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def projected(products: Any, order: Any) -> Any:
    """What is left of each task's gradient, as a combination of all of them.

    Args:
        products: Inner products `g_i . g_j`, float (K, K).
        order: For each task, all tasks in the order in which it goes through them, int (K, K).

    Returns:
        float (K, K); row `i` are the factors of `g_1 ... g_K` in the gradient of task `i`.

    Example:

    >>> projected(np.array([[1.0, -1.0], [-1.0, 2.0]]), [[0, 1], [1, 0]]).numpy()
    array([[1. , 0.5],
           [1. , 1. ]])
    """
    products, order = map(ops.convert_to_tensor, (products, order))
    count = products.shape[0]
    own = ops.eye(count, dtype=products.dtype)
    norms = ops.diagonal(products)
    left = own
    for turn in range(count):
        others = ops.one_hot(order[:, turn], count, dtype=products.dtype) * (1 - own)
        along = ops.sum(ops.matmul(left, products) * others, axis=1, keepdims=True)
        left -= others * ops.minimum(along, 0) / ops.where(norms > 0, norms, 1)
    return left
