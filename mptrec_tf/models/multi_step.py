"""Many steps as one XLA computation."""

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mptrec_tf.data.datasets import RowsByNumber, without_autotuning
from mptrec_tf.models.labels import unpack


def can_run(model: keras.Model) -> bool:
    """Whether a compiled model can run several steps as one: XLA, no strategy, no eager mode."""
    return bool(
        model.jit_compile
        and model.steps_per_execution > 1
        and not model.run_eagerly
        and not tf.distribute.has_strategy()
        and model.distribute_strategy is tf.distribute.get_strategy()
    )


def can_gather() -> bool:
    """Whether rows are where the steps run, so that `in_blocks` costs no more than a copy."""
    return not tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")


class Block(NamedTuple):
    """The rows of a call.

    Attributes:
        batches: Those of the steps, one after another, filled up with rows that are not used.
        count: Of how many steps, int32 ().
        rest: Rows that are too few for a batch; none but at the end of an epoch.
    """

    batches: Any
    count: Any
    rest: Any


def in_blocks(rows: RowsByNumber, steps: int, tasks: Iterable[str]) -> tf.data.Dataset:
    """Rows gathered for many steps at once, while the steps before them run.

    Args:
        rows: The rows.
        steps: Steps in a call.
        tasks: Names of the model's tasks.

    Returns:
        A dataset of `Block`, with the cardinality of the batches, by which Keras counts the steps.
    """
    size, names = rows.batch_size, frozenset(tasks)

    def block(numbers: tf.Tensor) -> Block:
        count = tf.size(numbers) // size
        filled = tf.pad(numbers[: count * size], [[0, (steps - count) * size]])
        batches = tf.nest.map_structure(
            lambda part: tf.reshape(part, (steps, size, *part.shape[1:])), rows.gather(filled)
        )
        return Block(_of_tasks(batches, names), count, rows.gather(numbers[count * size :]))

    blocks = without_autotuning(rows.numbers(steps * size).map(block).prefetch(1))
    blocks.cardinality = lambda: -(-rows.rows // size)
    return blocks


class MultiStep:
    """Runs `steps_per_execution` training steps of a model in one call, as Keras calls it.

    Keras compiles one step with XLA and calls it in a loop, and each call costs as much as a small
    step: every variable is handed over, and results come back. Here the loop itself is compiled:
    weights and the optimizer's state stay where they are, and metrics are counted once for all
    steps. What is learned is the same. The batches of a call and of the next one are in memory.

    Rows that can be had by number come as `Block`s, ready to be run. Of other batches, those of the
    usual size are put together here. A batch of another size, as at the end of an epoch, runs by
    itself and without XLA, which would have to compile once more for it.

    Args:
        model: A `MultiTaskModel`.
        fallback: What Keras would call, for anything that is not a `tf.data` iterator.
    """

    def __init__(self, model: Any, fallback: Callable[[Any], dict[str, Any]]) -> None:
        self._fallback = fallback
        self._steps = steps = model.steps_per_execution
        names = {task.name for task in model.tasks}

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
            _, y, weights = unpack(block, names, axes=2)
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

        @tf.function(autograph=False)
        def pull(iterator: Any) -> tuple[list[tf.experimental.Optional], tf.Tensor]:
            batches = [iterator.get_next_as_optional() for _ in range(steps)]
            return batches, tf.stack([_rows(batch) for batch in batches])

        @tf.function(autograph=False)
        def stack(batches: list[tf.experimental.Optional]) -> Any:
            values = [batch.get_value() for batch in batches]
            return _of_tasks(tf.nest.map_structure(lambda *parts: tf.stack(parts), *values), names)

        self._run, self._alone, self._pull, self._stack = run, alone, pull, stack
        self._usual: int | None = None

    def __call__(self, iterator: Any) -> dict[str, Any]:
        if not isinstance(iterator, tf.data.Iterator):
            return self._fallback(iterator)
        if isinstance(iterator.element_spec, Block):
            return self._run_block(iterator.get_next())
        batches, rows = self._pull(iterator)
        sizes = [int(size) for size in rows.numpy() if size >= 0]
        if not sizes:
            raise tf.errors.OutOfRangeError(None, None, "no batch is left")
        most = statistics.mode(sizes)
        if self._usual is None or sizes.count(most) > 1:
            self._usual = most
        logs = dict[str, Any]()
        for size, group in itertools.groupby(zip(sizes, batches, strict=False), lambda b: b[0]):
            same = [batch for _, batch in group]
            if size == self._usual:
                # Filled up with a batch that is not run.
                filled = same + same[:1] * (self._steps - len(same))
                logs = self._run(self._stack(filled), tf.constant(len(same)))
            else:
                for batch in same:
                    logs = self._alone(batch.get_value())
        return logs

    def _run_block(self, block: Block) -> dict[str, Any]:
        logs = dict[str, Any]()
        if block.count:
            logs = self._run(block.batches, block.count)
        if len(tf.nest.flatten(block.rest)[0]):
            logs = self._alone(block.rest)
        return logs


def _of_tasks(batch: Any, names: Iterable[str]) -> Any:
    """A batch without labels and weights of anything but the tasks, such as texts.

    Weights without labels stay: they are a mistake, which the step tells.
    """
    x, y, *weights = batch
    others = set(y) - set(names) if isinstance(y, Mapping) else set[str]()
    return x, *(
        {name: part[name] for name in part if name not in others}
        if isinstance(part, Mapping)
        else part
        for part in (y, *weights)
    )


def _rows(batch: tf.experimental.Optional) -> tf.Tensor:
    """Rows of a batch, -1 for none."""
    return tf.cond(
        batch.has_value(),
        lambda: tf.shape(tf.nest.flatten(batch.get_value())[0])[0],
        lambda: tf.constant(-1),
    )


def _joined(part: tf.Tensor) -> tf.Tensor:
    """The steps' rows one after another."""
    return tf.reshape(part, (-1, *part.shape[2:]))
