"""Many steps as one XLA computation."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def can_run(model: keras.Model) -> bool:
    """Whether a compiled model can run several steps as one: XLA, one device, no eager mode."""
    return bool(
        model.jit_compile
        and model.steps_per_execution > 1
        and not model.run_eagerly
        and model.distribute_strategy.num_replicas_in_sync == 1
        and not tf.distribute.has_strategy()
    )


class MultiStep:
    """Runs `steps_per_execution` training steps of a model in one call, as Keras calls it.

    Keras compiles one step with XLA and calls it in a loop, and each call costs as much as a small
    step: every variable is handed over, and results come back. Here the loop itself is compiled:
    weights and the optimizer's state stay where they are, and metrics are counted once for all
    steps. What is learned is the same. The batches of a call are in memory together.

    Batches of one size run together. A batch of another size, as at the end of an epoch, runs by
    itself and without XLA, which would have to compile once more for it.

    Args:
        model: A `MultiTaskModel`.
        fallback: What Keras would call, for anything that is not a `tf.data` iterator.
    """

    def __init__(self, model: Any, fallback: Callable[[Any], dict[str, Any]]) -> None:
        self._fallback = fallback
        self._steps = steps = model.steps_per_execution

        @tf.function(jit_compile=True, autograph=False)
        def run(block: Any, count: tf.Tensor) -> dict[str, Any]:
            def one(number: tf.Tensor, outcomes: Any) -> tuple[tf.Tensor, Any]:
                outcome = model.learn(tf.nest.map_structure(lambda part: part[number], block))
                return number + 1, tf.nest.map_structure(
                    lambda array, part: array.write(number, part), outcomes, outcome
                )

            rows = tf.nest.flatten(block)[0].shape[1]
            outcomes = tf.nest.map_structure(
                lambda shape: tf.TensorArray(tf.float32, steps, element_shape=shape),
                model.outcome_shapes(rows),
            )
            _, outcomes = tf.while_loop(lambda number, _: number < count, one, (0, outcomes))
            outcome = tf.nest.map_structure(lambda array: array.stack(), outcomes)
            done = tf.range(steps) < count
            _, y, weights = keras.utils.unpack_x_y_sample_weight(block)
            y = tf.nest.map_structure(
                lambda labels: tf.where(done[:, None], tf.cast(labels, tf.float32), np.nan), y
            )
            joined = tf.nest.map_structure(
                _joined, (y, weights or {}, outcome.logits, outcome.losses)
            )
            return model.count(*joined, outcome.loss, tf.where(done, float(rows), 0.0))

        @tf.function(autograph=False)
        def alone(batch: Any) -> dict[str, Any]:
            return model.counted(batch, model.learn(batch))

        self._run, self._alone = run, alone
        self._collect = tf.function(
            lambda iterator, most: _collect(iterator, most, steps), autograph=False
        )

    def __call__(self, iterator: Any) -> dict[str, Any]:
        if not isinstance(iterator, tf.data.Iterator):
            return self._fallback(iterator)
        done, logs = 0, dict[str, Any]()
        while done < self._steps:
            try:
                block, count, other = self._collect(iterator, tf.constant(self._steps - done))
            except tf.errors.OutOfRangeError:
                if not logs:
                    raise
                break
            logs = self._run(block, count)
            done += int(count)
            if other.has_value():
                logs = self._alone(other.get_value())
                done += 1
        return logs


def _collect(iterator: Any, most: tf.Tensor, steps: int) -> tuple[Any, tf.Tensor, Any]:
    """The next batches of one size, stacked and filled up to `steps`; their number; the one after.

    The one after, a `tf.experimental.Optional`, is a batch of another size where that is what ended
    them.
    """

    def rows(batch: Any) -> tf.Tensor:
        return tf.shape(tf.nest.flatten(batch)[0])[0]

    first = iterator.get_next()
    none = tf.experimental.Optional.empty(iterator.element_spec)
    arrays = tf.nest.map_structure(
        lambda part: tf.TensorArray(part.dtype, 1, dynamic_size=True).write(0, part), first
    )

    def following(count: tf.Tensor) -> Any:
        return tf.cond(count < most, iterator.get_next_as_optional, lambda: none)

    def fits(count: tf.Tensor, candidate: Any, arrays: Any) -> tf.Tensor:
        return tf.cond(
            candidate.has_value(),
            lambda: rows(candidate.get_value()) == rows(first),
            lambda: tf.constant(False),
        )

    def add(count: tf.Tensor, candidate: Any, arrays: Any) -> Any:
        written = tf.nest.map_structure(
            lambda array, part: array.write(count, part), arrays, candidate.get_value()
        )
        return count + 1, following(count + 1), written

    one = tf.constant(1)
    count, other, arrays = tf.while_loop(fits, add, (one, following(one), arrays))

    def filled(array: tf.TensorArray) -> tf.Tensor:
        stacked = array.stack()
        padding = tf.concat(
            [[[0, steps - count]], tf.zeros((tf.rank(stacked) - 1, 2), tf.int32)], axis=0
        )
        return tf.cond(count < steps, lambda: tf.pad(stacked, padding), lambda: stacked)

    return tf.nest.map_structure(filled, arrays), count, other


def _joined(part: tf.Tensor) -> tf.Tensor:
    """The steps' rows one after another."""
    return tf.reshape(part, (-1, *part.shape[2:]))
