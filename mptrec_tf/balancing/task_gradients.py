"""The gradients of several tasks, each by itself."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from mptrec_tf.errors import ModelError
from mptrec_tf.optimizers.duplicates import DuplicateSums


class Places(NamedTuple):
    """Where repeated ids of a variable are added up.

    Attributes:
        sums: What adds them up.
        numbers: By `id` of a variable, its number in `sums`.
    """

    sums: DuplicateSums
    numbers: dict[int, int]


class _Aligned(NamedTuple):
    """The gradients of all tasks for one variable, number by number beside each other.

    Attributes:
        values: Those of the numbers that more than one task trains, else 0, (K, ...).
        ids: The rows that were looked up, int (n,), or `None` for a dense gradient.
        slots: Where in `values` each of them is, int (n,).
        first: Whether each of them stands for its row, bool (n,).
    """

    values: tf.Tensor
    ids: tf.Tensor | None = None
    slots: tf.Tensor | None = None
    first: tf.Tensor | None = None


class TaskGradients:
    """What each task alone would have the weights do, `g_k`, the gradient of its unweighted loss.

    A number of a weight tensor counts as shared if more than one task gives it a gradient other
    than 0. So experts and towers that lie in one tensor (see `ExpertBank`) are told apart.
    Gradients of embedding tables stay sparse.

    Args:
        tape: A persistent tape that has recorded the losses.
        task_losses: `w_k L_k`, scalars.
        variables: The weights.
        scale: What gradients are multiplied by on their way, so that half precision can hold them.
        inverse_weights: `1 / w_k`, float32 (K,).
        places: What `places` gave for these weights.

    Example:

    >>> weight = keras.Variable([1.0, 2.0])
    >>> with tf.GradientTape(persistent=True) as tape:
    ...     losses = [ops.sum(weight), ops.sum(weight**2)]
    >>> places = TaskGradients.places([weight])
    >>> TaskGradients(tape, losses, [weight], 1.0, tf.ones(2), places).products().numpy()
    array([[ 2.,  6.],
           [ 6., 20.]], dtype=float32)
    """

    def __init__(
        self,
        tape: tf.GradientTape,
        task_losses: Sequence[Any],
        variables: Sequence[Any],
        scale: Any,
        inverse_weights: Any,
        places: Places,
    ) -> None:
        self._variables = variables
        self._scale = scale
        scales = tf.unstack(inverse_weights * scale)
        by_task = [
            tape.gradient(loss, variables, output_gradients=s)
            for loss, s in zip(task_losses, scales, strict=True)
        ]
        self._aligned: dict[int, _Aligned] = {}
        for number, variable in enumerate(variables):
            parts = [gradients[number] for gradients in by_task]
            if sum(part is not None for part in parts) > 1:
                self._aligned[number] = _align(parts, variable, places)

    @staticmethod
    def places(variables: Sequence[Any]) -> Places:
        """What the gradients of these weights need, made once.

        Args:
            variables: The weights.
        """
        return Places(DuplicateSums(variables), {id(v): i for i, v in enumerate(variables)})

    def products(self, paths: str = "") -> Any:
        """The inner products of the tasks' gradients over the shared weights, `g_i . g_j`.

        Args:
            paths: A regular expression: only weights in whose path it is found count. Defaults to
                all.

        Returns:
            float32 (K, K); zeros where half precision has overflowed, a step that is not taken.

        Raises:
            ModelError: If more than one task has a gradient for none of these weights.
        """
        found = [
            aligned.values
            for number, aligned in self._aligned.items()
            if re.search(paths, self._variables[number].path)
        ]
        if not found:
            raise ModelError(
                f"no weight whose path holds {paths!r} is trained by more than one task; "
                f"trained are {[variable.path for variable in self._variables]}"
            )
        products = tf.zeros((found[0].shape[0],) * 2)
        for values in found:
            flat = tf.cast(tf.reshape(values, (values.shape[0], -1)), tf.float32) / self._scale
            products += tf.matmul(flat, flat, transpose_b=True)
        return tf.where(tf.reduce_all(tf.math.is_finite(products)), products, 0.0)

    def added_to(self, gradients: Sequence[Any], factors: Any) -> list[Any]:
        """`gradient + sum_k factors_k g_k` over the shared weights; others keep their gradient.

        Args:
            gradients: A gradient for each of the weights, times the scale.
            factors: float32 (K,).
        """
        added = list(gradients)
        for number, aligned in self._aligned.items():
            change = tf.tensordot(tf.cast(factors, aligned.values.dtype), aligned.values, 1)
            if aligned.ids is not None:
                first = tf.reshape(aligned.first, (-1,) + (1,) * (change.shape.rank - 1))
                rows = tf.where(first, tf.gather(change, aligned.slots), 0.0)
                change = tf.IndexedSlices(rows, aligned.ids)
            added[number] = _sum(added[number], change)
        return added


def _align(parts: Sequence[Any], variable: Any, places: Places) -> _Aligned:
    if not all(part is None or isinstance(part, tf.IndexedSlices) for part in parts):
        shape = tf.shape(variable.value)
        dense = [
            tf.zeros(shape, variable.dtype) if part is None else tf.convert_to_tensor(part)
            for part in parts
        ]
        return _Aligned(_shared(tf.stack(dense)))
    ids = tf.concat([part.indices for part in parts if part is not None], axis=0)
    count = tf.shape(ids)[0]
    if id(variable) not in places.numbers:
        raise ModelError(
            f"{variable.path} was not trainable when the model was compiled; compile it again to "
            "balance the tasks over it"
        )
    leaders = places.sums.leaders(ids, places.numbers[id(variable)])
    first = leaders == tf.range(count)
    rows, known = variable.shape[0], ids.shape[0]
    # A sum for each row of a small table, a sum for each id that was looked up of a large one.
    small = known is not None and rows <= known
    slots, size = (tf.cast(ids, tf.int32), rows) if small else (leaders, count)
    values, start = [], 0
    for part in parts:
        if part is None:
            values.append(tf.zeros((size, *variable.shape[1:]), variable.dtype))
            continue
        stop = start + tf.shape(part.indices)[0]
        values.append(tf.math.unsorted_segment_sum(part.values, slots[start:stop], size))
        start = stop
    return _Aligned(_shared(tf.stack(values)), ids, slots, first)


def _shared(values: tf.Tensor) -> tf.Tensor:
    """The gradients (K, ...) with zeros in place of those that one task alone gives."""
    return tf.where(tf.math.count_nonzero(values, axis=0, keepdims=True) > 1, values, 0.0)


def _sum(gradient: Any, change: Any) -> Any:
    sparse = isinstance(gradient, tf.IndexedSlices)
    if sparse and isinstance(change, tf.IndexedSlices):
        return tf.IndexedSlices(
            tf.concat([gradient.values, tf.cast(change.values, gradient.values.dtype)], axis=0),
            tf.concat([gradient.indices, tf.cast(change.indices, gradient.indices.dtype)], axis=0),
            gradient.dense_shape,
        )
    return tf.convert_to_tensor(gradient) + tf.convert_to_tensor(change)
