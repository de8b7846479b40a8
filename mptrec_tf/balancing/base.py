"""What every way of balancing tasks shares."""

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf.balancing.task_gradients import TaskGradients


class Balancing(keras.layers.Layer):
    """Decides in each step how much each task counts.

    `model.compile(balancing=...)` makes a copy, which begins anew. Without balancing a step follows
    the gradient of `sum_k w_k L_k + other`, with `w_k` the task's `loss_weight` and `other` what
    belongs to no task: penalties, the adversarial part. A balancing replaces the `w_k`; a subclass
    gives `factors`. Its own state are weights made by `build(num_tasks)`; they are saved with the
    model, and are no part of `model.weights`: the model's optimizer does not train them.

    A task whose loss is 0 in a batch, for want of labels, is absent from that step: it must neither
    lose nor gain by it. `descend` sees to that for a state with a number for each task.

    Args:
        **kwargs: `name`.

    Attributes:
        uses_gradients: Whether `factors` needs each task's own gradient: one backward pass a task.
        shared_only: Whether factors act on shared weights only, those that get a gradient other
            than 0 from more than one task, each number of a tensor by itself; what only one task
            trains then follows `w_k`.
        looks_back: Whether `look_back` wants to know the losses after the step, which takes one
            more forward pass.
        loss_weights: `w_k`, float32 (K,).

    Example:

    >>> @keras.saving.register_keras_serializable("my_package")
    ... class Inverse(Balancing):
    ...     def factors(self, losses, gradients):
    ...         return self.loss_weights / (losses + 0.01)
    >>> balancing = Inverse()
    >>> balancing.begin([1.0, 2.0], variables=[])
    >>> balancing.factors(np.array([0.09, 0.99]), None).numpy()
    array([10.,  2.], dtype=float32)
    """

    uses_gradients = False
    shared_only = False
    looks_back = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def begin(self, loss_weights: Sequence[float], variables: Sequence[Any]) -> None:
        """Creates the state.

        Args:
            loss_weights: `w_k` of the tasks.
            variables: The weights that the model trains.
        """
        self.loss_weights = tf.constant(loss_weights, tf.float32)
        self._inverse_weights = tf.constant([1 / w if w else 0.0 for w in loss_weights])
        self._places: Any = TaskGradients.places(variables) if self.uses_gradients else None
        self.build(len(loss_weights))

    def build(self, num_tasks: int) -> None:
        """Creates the weights.

        Args:
            num_tasks: `K`.
        """

    def factors(self, losses: Any, gradients: Any) -> Any:
        """How much each task counts in this step; also updates the state.

        Args:
            losses: `L_k`, float32 (K,), 0 for a task that is absent.
            gradients: The gradients of the `L_k`, a `TaskGradients`, where `uses_gradients`, else
                `None`.

        Returns:
            float32 (K,): takes the place of `w_k`.
        """
        raise TypeError(f"{type(self).__name__} does not say how much each task counts")

    def look_back(self, before: Any, after: Any) -> None:
        """Learns what a step did, where `looks_back`.

        Args:
            before: `L_k`, float32 (K,), as `factors` had them.
            after: The same after the step, of the same rows under the same dropout.
        """

    def losses_of(self, task_losses: Iterable[Any]) -> Any:
        """`L_k`, float32 (K,), without a gradient.

        Args:
            task_losses: `w_k L_k`, scalars.
        """
        return ops.stop_gradient(ops.stack(list(task_losses))) * self._inverse_weights

    def gradients(
        self,
        tape: tf.GradientTape,
        task_losses: Sequence[Any],
        other: Any,
        variables: Sequence[Any],
        scale: Any = 1.0,
    ) -> list[Any]:
        """The gradient that a step follows.

        Args:
            tape: A persistent tape that has recorded the losses.
            task_losses: `w_k L_k`, scalars.
            other: What else is minimized, a scalar.
            variables: The weights.
            scale: What the gradients are to be multiplied by. Defaults to 1.

        Returns:
            For each of the weights its gradient, `None` where nothing depends on it.
        """
        targets = [*task_losses, ops.convert_to_tensor(other, "float32")]
        scale = ops.convert_to_tensor(scale, "float32")
        gradients: Any = None
        if self.uses_gradients:
            gradients = TaskGradients(
                tape, task_losses, variables, scale, self._inverse_weights, self._places
            )
        factors = self.factors(self.losses_of(task_losses), gradients)
        counts = self.loss_weights if self.shared_only else factors
        scales = [*ops.unstack(counts * self._inverse_weights * scale), scale]
        total = tape.gradient(targets, variables, output_gradients=scales)
        if self.shared_only:
            total = gradients.added_to(total, factors - self.loss_weights)
        return total


def descend(
    optimizer: keras.optimizers.Optimizer, weights: keras.Variable, slopes: Any, present: Any
) -> None:
    """A step of the tasks that are present; of the others, nothing moves.

    An optimizer with moments would move a task without a slope too, by what is left of them.

    Args:
        optimizer: Built for these weights alone.
        weights: A number for each task, (K,).
        slopes: What to descend on, float (K,); those of absent tasks are no matter.
        present: Which tasks are present, bool (K,).

    Example:

    >>> sizes, adam = keras.Variable([1.0, 1.0]), keras.optimizers.Adam(0.1)
    >>> adam.build([sizes])
    >>> descend(adam, sizes, np.float32([1, 1]), np.array([True, False]))
    >>> sizes.numpy().round(3)
    array([0.9, 1. ], dtype=float32)
    """
    slots = [slot for slot in optimizer.variables if slot.shape == weights.shape]
    kept = [(variable, tf.convert_to_tensor(variable)) for variable in (weights, *slots)]
    optimizer.apply([slopes], [weights])
    for variable, old in kept:
        variable.assign(ops.where(present, tf.convert_to_tensor(variable), old))


def require_number(name: str, value: Any, *, zero: bool = False) -> None:
    """Refuses what is no finite number above 0.

    Args:
        name: What the argument is called.
        value: What was given.
        zero: Whether 0 will do. Defaults to `False`.

    Raises:
        ValueError: Names the argument and the value.
    """
    if isinstance(value, numbers.Real) and 0 <= float(value) < math.inf and (zero or value != 0):
        return
    expected = "a finite number, 0 or more" if zero else "a finite number above 0"
    raise ValueError(f"{name} must be {expected}. Received: {value!r}")
