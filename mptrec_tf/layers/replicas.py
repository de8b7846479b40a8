"""What the replicas of a strategy count together."""

from typing import Any

import tensorflow as tf
from keras import ops


def over_replicas(op: tf.distribute.ReduceOp, values: Any) -> Any:
    """Tensors reduced over the replicas that train in step; as they are where there is only one.

    Args:
        op: How they are reduced.
        values: Tensors of one replica, nested as `tf.nest` knows it.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values
    return replica.all_reduce(op, values)


def counted_mean(values: Any, counted: Any) -> Any:
    """The sum of the values that are counted, over their number; 0 of none.

    With several replicas the number is the mean over them, so that the mean of what they have is
    that of the whole batch, however its rows are spread.

    Args:
        values: float32, of any shape.
        counted: bool, of the same shape.
    """
    count = ops.sum(ops.cast(counted, "float32"))
    count = over_replicas(tf.distribute.ReduceOp.MEAN, count)
    return ops.sum(ops.where(counted, values, 0.0)) / ops.where(count > 0, count, 1.0)
