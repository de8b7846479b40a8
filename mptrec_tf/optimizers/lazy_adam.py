"""Adam that changes only the rows of an embedding table that a batch has looked up."""

from typing import Any

import keras
import tensorflow as tf

from mptrec_tf.optimizers.lazy import LazyOptimizer


@keras.saving.register_keras_serializable("mptrec_tf")
class LazyAdam(LazyOptimizer, keras.optimizers.Adam):
    """Adam whose cost follows the batch, not the size of the embedding tables.

    Of a table that is looked up by id, moments and weights (and with `weight_decay` their decay)
    change only in the rows of the batch: `m <- m + (1 - beta_1) (g - m)`,
    `v <- v + (1 - beta_2) (g^2 - v)`, `w <- w - w * weight_decay * learning_rate - learning_rate *
    sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)`, with `g` the sum over the
    occurrences of the row and `t` the step of the whole training. Keras' Adam also moves the rows
    that were not looked up, by what is left of their moments. Where each step looks up each row,
    both are the same. Weights with dense gradients are trained by Keras' Adam.

    Args:
        learning_rate: A number, a schedule, or a callable. Defaults to 0.001.
        beta_1: Decay rate of the first moment. Defaults to 0.9.
        beta_2: Decay rate of the second moment. Defaults to 0.999.
        epsilon: Added to the denominator. Defaults to 1e-7.
        amsgrad: Whether the second moment never decreases. Defaults to `False`.
        **kwargs: `weight_decay` (decoupled, as in `keras.optimizers.AdamW`), `clipnorm`,
            `clipvalue`, `global_clipnorm` and `name`, as in `keras.optimizers.Adam`.

    Raises:
        ValueError: If `use_ema`, `gradient_accumulation_steps` or `loss_scale_factor` is given.

    Example:

    >>> table = keras.Variable([[1.0], [2.0], [3.0]])
    >>> with tf.GradientTape() as tape:
    ...     loss = tf.reduce_sum(tf.gather(table.value, [2, 0, 2]))
    >>> LazyAdam(0.1).apply(tape.gradient(loss, [table]), [table])
    >>> table.numpy()[:, 0].round(3)
    array([0.9, 2. , 2.9], dtype=float32)

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; Loshchilov
    and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    def update_slots(self, index: int, ids: Any, gradient: Any, learning_rate: Any) -> Any:
        """Updates the moments of some rows; see `LazyOptimizer`."""
        step = tf.cast(self.iterations + 1, gradient.dtype)
        rate = learning_rate * tf.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        momentum = self._moved(self._momentums[index], ids, gradient, 1 - self.beta_1)
        velocity = self._moved(self._velocities[index], ids, gradient**2, 1 - self.beta_2)
        if self.amsgrad:
            slot = self._velocity_hats[index]
            velocity = tf.maximum(tf.gather(slot.value, ids), velocity)
            self.assign(slot, tf.IndexedSlices(velocity, ids))
        return momentum * rate / (tf.sqrt(velocity) + self.epsilon)

    def _moved(self, slot: keras.Variable, ids: Any, target: Any, rate: float) -> Any:
        rows = tf.gather(slot.value, ids)
        rows += (target - rows) * rate
        self.assign(slot, tf.IndexedSlices(rows, ids))
        return rows
