"""Adagrad that reads and writes only the rows of an embedding table that a batch has looked up."""

from typing import Any

import keras
import tensorflow as tf

from mptrec_tf.optimizers.lazy import LazyOptimizer


@keras.saving.register_keras_serializable("mptrec_tf")
class LazyAdagrad(LazyOptimizer, keras.optimizers.Adagrad):
    """Adagrad whose cost follows the batch, not the size of the embedding tables.

    Of a table that is looked up by id, only the rows of the batch are read and written: `a <- a +
    g^2`, `w <- w - learning_rate * g / sqrt(a + epsilon)`, with `g` the sum over the occurrences of
    the row. A row without a gradient does not move in Adagrad, so without weight decay this is
    Adagrad itself, and keeps one slot where Adam keeps two. With `weight_decay`, only the rows of
    the batch decay. Weights with dense gradients are trained by Keras' Adagrad.

    Args:
        learning_rate: A number, a schedule, or a callable. Defaults to 0.001; Adagrad usually wants
            more, such as 0.01 to 0.1.
        initial_accumulator_value: What the sums of squares begin with. Defaults to 0.1.
        epsilon: Added under the root. Defaults to 1e-7.
        **kwargs: `weight_decay`, `clipnorm`, `clipvalue`, `global_clipnorm` and `name`, as in
            `keras.optimizers.Adagrad`.

    Raises:
        ValueError: If `use_ema`, `gradient_accumulation_steps` or `loss_scale_factor` is given.

    Example:

    >>> table = keras.Variable([[1.0], [2.0], [3.0]])
    >>> with tf.GradientTape() as tape:
    ...     loss = tf.reduce_sum(tf.gather(table.value, [2, 0, 2]))
    >>> LazyAdagrad(0.1, initial_accumulator_value=0.0).apply(tape.gradient(loss, [table]), [table])
    >>> table.numpy()[:, 0]
    array([0.9, 2. , 2.9], dtype=float32)

    Reference: Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization", JMLR 2011.
    """

    def update_slots(self, index: int, ids: Any, gradient: Any, learning_rate: Any) -> Any:
        """Updates the sums of squares of some rows; see `LazyOptimizer`."""
        slot = self._accumulators[index]
        squares = tf.gather(slot.value, ids) + gradient**2
        self.assign(slot, tf.IndexedSlices(squares, ids))
        return learning_rate * gradient / tf.sqrt(squares + self.epsilon)
