"""What lazy optimizers share: of an embedding table, only the rows of the batch are touched."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mptrec_tf.optimizers.duplicates import DuplicateSums

REFUSED = {
    "use_ema": "averaging goes through whole tables in each step",
    "gradient_accumulation_steps": "accumulating goes through whole tables in each step",
    "loss_scale_factor": "Keras cannot divide sparse gradients by it; wrap the optimizer in "
    "keras.optimizers.LossScaleOptimizer, as compile does under mixed_float16",
}


class LazyOptimizer(keras.optimizers.Optimizer):
    """Makes a Keras optimizer lazy; a lazy optimizer derives from this class and from that one.

    A dense gradient goes to the Keras optimizer as it is. Of a sparse one (`tf.IndexedSlices`, as
    looking up rows of a variable gives it), the parts of a row are added up, and then weight, slots
    and weight decay of that row change as the Keras optimizer would change them; no other row is
    read or written. Clipping sees the sums, so the norms are those of the dense gradient.

    Args:
        *args: As in the Keras optimizer.
        **kwargs: As in the Keras optimizer.

    Raises:
        ValueError: If `use_ema`, `gradient_accumulation_steps` or `loss_scale_factor` is given.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name, reason in REFUSED.items():
            if kwargs.get(name):
                raise ValueError(
                    f"{type(self).__name__} cannot have {name}: {reason}. "
                    f"Received: {name}={kwargs[name]!r}"
                )
        super().__init__(*args, **kwargs)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the slots."""
        if not self.built:
            super().build(variables)
            self._sums = DuplicateSums(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its slots; of a sparse gradient, only its rows."""
        rate = tf.cast(learning_rate, variable.dtype)
        decay = None
        if self.weight_decay is not None and self._use_weight_decay(variable):
            decay = tf.cast(self.weight_decay, variable.dtype)
        if not isinstance(gradient, tf.IndexedSlices):
            if decay is not None:
                self.assign_sub(variable, variable * decay * rate)
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        ids = gradient.indices
        sums = tf.cast(self._sums.everywhere(gradient, index), variable.dtype)
        rows = tf.gather(variable, ids)
        if decay is not None:
            rows -= rows * decay * rate
        rows -= self.update_slots(index, ids, sums, rate)
        # All occurrences of a row write the same values, so their order does not matter.
        self.assign(variable, tf.IndexedSlices(rows, ids))

    def update_slots(self, index: int, ids: Any, gradient: Any, learning_rate: Any) -> Any:
        """Updates the slots of some rows; a lazy optimizer defines this.

        Args:
            index: Number of the variable.
            ids: The rows, int (n,). They may repeat.
            gradient: The whole gradient of the row, at each of its occurrences, (n, ...).
            learning_rate: In the precision of the variable.

        Returns:
            What is to be subtracted from these rows of the variable, (n, ...).
        """
        raise NotImplementedError

    # What Keras calls between `apply` and `update_step`.

    def _backend_apply_gradients(self, grads: Sequence[Any], variables: Sequence[Any]) -> None:
        if self.clipnorm or self.global_clipnorm or self.clipvalue:
            grads = [
                self._sums.at_leaders(gradient, self._get_variable_index(variable))
                if isinstance(gradient, tf.IndexedSlices)
                else gradient
                for gradient, variable in zip(grads, variables, strict=True)
            ]
        super()._backend_apply_gradients(grads, variables)

    def _clip_gradients(self, grads: Sequence[Any]) -> list[Any]:
        sparse = [isinstance(gradient, tf.IndexedSlices) for gradient in grads]
        values = [g.values if s else g for g, s in zip(grads, sparse, strict=True)]
        return [
            tf.IndexedSlices(value, gradient.indices, gradient.dense_shape) if s else value
            for value, gradient, s in zip(
                super()._clip_gradients(values), grads, sparse, strict=True
            )
        ]

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Left to `update_step`, which knows the rows."""
