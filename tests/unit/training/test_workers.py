"""What several workers share, as far as one process can tell; see tests/e2e/test_workers.py."""

import json

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import ModelError
from mptrec_tf.training import MultiWorkerStrategy
from mptrec_tf.training.workers import (
    chief_first,
    is_chief,
    number_of_workers,
    sum_of_workers,
    training_workers,
)


@pytest.fixture(scope="module")
def strategy():
    """One worker with one replica."""
    return MultiWorkerStrategy()


def test_reduce_takes_a_nest_of_scalars_and_arrays(strategy):
    values = strategy.run(lambda: {"loss": tf.constant(2.0), "rows": tf.constant([1.0, 5.0])})
    with strategy.scope():
        means = strategy.reduce("MEAN", values, axis=0)
        sums = strategy.reduce("SUM", values, axis=None)
    assert (float(means["loss"]), float(means["rows"])) == (2.0, 3.0)
    np.testing.assert_array_equal(sums["rows"], [1.0, 5.0])


def test_a_dataset_is_divided_by_rows_unless_it_says_otherwise(strategy, tmp_path):
    off = tf.data.Options()
    off.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    batches = tf.data.Dataset.range(6).batch(4)
    for dataset in (batches, batches.with_options(off)):
        distributed = strategy.experimental_distribute_dataset(dataset)
        rows = [np.asarray(strategy.experimental_local_results(part)[0]) for part in distributed]
        assert [list(row) for row in rows] == [[0, 1, 2, 3], [4, 5]]


def test_one_worker_is_the_chief_and_waits_for_nobody(strategy):
    for alone in (strategy, tf.distribute.get_strategy()):
        assert is_chief(alone)
        assert sum_of_workers(alone, 3.0) == 3.0
        with chief_first(alone):
            pass
        assert number_of_workers(alone.cluster_resolver) == 1


def test_workers_are_counted_with_their_chief():
    cluster = tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster)
    assert number_of_workers(resolver) == 3


@pytest.mark.parametrize("config", [{}, {"cluster": {"worker": ["localhost:1"]}}])
def test_commands_run_as_ever_where_there_is_one_worker(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with training_workers() as strategy:
        assert strategy is tf.distribute.get_strategy()
        assert not tf.distribute.has_strategy()


@pytest.mark.parametrize(
    ("task", "received"),
    [
        ({}, "type None, index None"),
        ({"task": {"type": "worker", "index": 2}}, "type 'worker', index 2"),
        ({"task": {"type": "evaluator", "index": 0}}, "type 'evaluator', index 0"),
    ],
)
def test_a_worker_that_is_not_of_the_cluster_is_refused(task, received, monkeypatch):
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"], "evaluator": ["localhost:3"]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster | task))
    with pytest.raises(ModelError, match=f"TF_CONFIG: task must .* {received}"), training_workers():
        pass


def test_a_broken_environment_is_named(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{cluster")
    with pytest.raises(ModelError, match="TF_CONFIG is no JSON"), training_workers():
        pass
