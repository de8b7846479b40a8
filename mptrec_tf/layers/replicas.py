"""What the replicas of a strategy count together."""

from typing import Any

import tensorflow as tf


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
