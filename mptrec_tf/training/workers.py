"""One model trained by several processes, on one machine or on many."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from mptrec_tf.errors import ModelError

AUTO = tf.data.experimental.AutoShardPolicy.AUTO
DATA = tf.data.experimental.AutoShardPolicy.DATA


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """`tf.distribute.MultiWorkerMirroredStrategy` with which Keras 3 can train.

    The same program runs in every process; `TF_CONFIG` tells each of them where the others are, and
    which one it is. Each holds the whole model, trains on its part of every batch, and all apply
    the same sum of the gradients. Without `TF_CONFIG` there is one worker, this process, with all
    of its GPUs.

    What it adds: `reduce` takes a dict, and an `axis` for scalars. Keras 3 asks for both (as of
    3.15), and TensorFlow refuses (TensorFlow issue 72388). A dataset is divided batch by batch, and
    never by files, so that each step sees the rows that it would see with one worker.

    Create it before anything else of TensorFlow runs, and the model, or what reads it from a file,
    under its `scope()`. XLA on CPUs, and `steps_per_execution` above 1, do not work with several
    workers.

    Args:
        **kwargs: Arguments of `tf.distribute.MultiWorkerMirroredStrategy`.

    Example:

    ```python
    strategy = MultiWorkerStrategy()
    train = make_dataset("train.parquet", encoder, tasks, batch_size=512, shuffle=True)
    with strategy.scope():
        model = MPTRec(encoder, tasks)
        model.compile("adam")
    model.fit(train, epochs=10)  # 512 rows a step, over all workers
    ```
    """

    def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
        """The values of all replicas as one; see `tf.distribute.Strategy.reduce`.

        Args:
            reduce_op: `"SUM"` or `"MEAN"`.
            value: A nest of what `run` gave.
            axis: Axis to reduce as well, of those parts that have one. Defaults to `None`.

        Returns:
            A nest of tensors.
        """

        def reduce(part: Any) -> Any:
            shape = getattr(part, "shape", None)
            whole = None if shape is not None and shape.rank == 0 else axis
            return super(MultiWorkerStrategy, self).reduce(reduce_op, part, whole)

        return tf.nest.map_structure(reduce, value)

    def experimental_distribute_dataset(
        self, dataset: tf.data.Dataset, options: tf.distribute.InputOptions | None = None
    ) -> Any:
        """Gives each worker its part of every batch, see `tf.distribute.Strategy`.

        Args:
            dataset: Batches of all workers' rows, in the same order on each of them.
            options: As there. Defaults to `None`.
        """
        policy = tf.data.Options()
        if dataset.options().experimental_distribute.auto_shard_policy == AUTO:
            policy.experimental_distribute.auto_shard_policy = DATA
        return super().experimental_distribute_dataset(dataset.with_options(policy), options)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this worker is the one that writes files; without several workers it is.

    Args:
        strategy: The strategy of a model, `model.distribute_strategy`.
    """
    return bool(strategy.extended.should_checkpoint)


def sum_of_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    """The sum of what each replica brings, known to all once the last one has brought it.

    Args:
        strategy: The strategy of a model, `model.distribute_strategy`.
        value: What each replica of this worker brings.
    """
    values = strategy.run(lambda: tf.constant(value, tf.float32))
    return float(strategy.reduce("SUM", values, axis=None))


def wait_for_workers(strategy: tf.distribute.Strategy) -> None:
    """Returns when every worker has called it."""
    sum_of_workers(strategy, 0.0)


@contextlib.contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """The others run the block when the chief is through, and read what it wrote.

    Args:
        strategy: The strategy of a model, `model.distribute_strategy`.
    """
    chief = is_chief(strategy)
    if not chief:
        wait_for_workers(strategy)
    yield
    if chief:
        wait_for_workers(strategy)


def number_of_workers(resolver: tf.distribute.cluster_resolver.ClusterResolver | None) -> int:
    """How many processes train together.

    Args:
        resolver: The `cluster_resolver` of a strategy; `None` is one process.
    """
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    return max(1, sum(len(cluster.get(job, ())) for job in ("chief", "worker")))


@contextlib.contextmanager
def training_workers() -> Iterator[tf.distribute.Strategy]:
    """What commands train with: several workers where `TF_CONFIG` names them, else one as ever.

    To be entered before anything else of TensorFlow runs. No worker leaves the block before the
    last one is through: the others would take it for dead.

    Yields:
        A `MultiWorkerStrategy`, or the default strategy. Its scope is for making models only: there
        Keras makes variables while it saves, for which the chief would wait for the others.

    Raises:
        ModelError: If `TF_CONFIG` is no JSON, or does not tell which of the workers this one is.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    try:
        workers = number_of_workers(resolver)
    except json.JSONDecodeError as error:
        raise ModelError(f"TF_CONFIG is no JSON: {error}") from error
    if workers == 1:
        yield tf.distribute.get_strategy()
        return
    jobs, job, number = resolver.cluster_spec().as_dict(), resolver.task_type, resolver.task_id
    if job not in ("chief", "worker") or number not in range(len(jobs.get(job, ()))):
        raise ModelError(
            "TF_CONFIG: task must have type and index of a chief or worker of the cluster, such as "
            f'{{"type": "worker", "index": 0}}; the cluster is {jobs}. Received: type {job!r}, '
            f"index {number!r}"
        )
    strategy = MultiWorkerStrategy()
    yield strategy
    wait_for_workers(strategy)
