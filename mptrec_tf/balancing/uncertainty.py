"""Task weights from learned uncertainty."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf.balancing.base import Balancing, descend, require_number


@keras.saving.register_keras_serializable("mptrec_tf")
class Uncertainty(Balancing):
    """Weighs each task by how uncertain it is, as learned along with the model.

    Minimizes `sum_k w_k (exp(-s_k) L_k + s_k)` over the model's weights and the `s_k`, which begin
    at 0. At its optimum `exp(-s_k) = 1 / L_k`: a task counts the more, the lower its loss. The
    published form halves `s_k`, and the loss too for a regression task; the optimum gives the same
    weights, all halved.

    One backward pass, as without balancing.

    Args:
        learning_rate: Rate of Adam for the `s_k`. Defaults to 0.01.
        **kwargs: `name`.

    Raises:
        ValueError: If `learning_rate` is no finite number above 0.

    Example:

    ```python
    model.compile("adam", balancing="uncertainty")
    ```

    Reference: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics", CVPR 2018, arXiv:1705.07115, equations 7 and 10.
    """

    def __init__(self, learning_rate: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_number("learning_rate", learning_rate)
        self.learning_rate = learning_rate

    def build(self, num_tasks: int) -> None:
        self.log_variances = self.add_weight(
            name="log_variances", shape=(num_tasks,), initializer="zeros", trainable=False
        )
        self.optimizer = keras.optimizers.Adam(self.learning_rate)
        self.optimizer.build([self.log_variances])

    def factors(self, losses: Any, gradients: Any = None) -> Any:
        """See `Balancing.factors`."""
        precisions = ops.exp(-tf.convert_to_tensor(self.log_variances))
        slopes = 1.0 - precisions * losses
        descend(self.optimizer, self.log_variances, slopes, losses > 0)
        return self.loss_weights * precisions

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "learning_rate": self.learning_rate}
