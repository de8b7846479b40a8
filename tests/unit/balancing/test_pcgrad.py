"""Projected gradients, against the algorithm of the paper on whole vectors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.balancing import PCGrad
from mptrec_tf.balancing.pcgrad import projected


def surgery(gradients, order):
    """Algorithm 1 as it is written."""
    left = []
    for i, gradient in enumerate(gradients):
        g = gradient.copy()
        for j in order[i]:
            if j != i and g @ gradients[j] < 0:
                g -= g @ gradients[j] / (gradients[j] @ gradients[j]) * gradients[j]
        left.append(g)
    return np.array(left)


def begun(loss_weights, variables, seed=0):
    balancing = PCGrad(seed)
    balancing.begin(loss_weights, variables)
    return balancing


@pytest.mark.parametrize("count", [2, 3, 5])
def test_combination_is_what_the_algorithm_leaves(count):
    rng = np.random.default_rng(count)
    gradients = rng.normal(size=(count, 4))
    order = np.array([rng.permutation(count) for _ in range(count)])
    left = projected(gradients @ gradients.T, order).numpy() @ gradients
    np.testing.assert_allclose(left, surgery(gradients, order), atol=1e-12)
    assert not np.allclose(left, gradients)


def test_a_gradient_of_zeros_harms_nobody():
    gradients = np.array([[1.0, 2.0], [0.0, 0.0]])
    factors = projected(gradients @ gradients.T, np.array([[0, 1], [1, 0]]))
    np.testing.assert_array_equal(factors, np.eye(2))


def test_two_opposed_tasks_by_hand(gradients_of):
    """Shared (1, 1) and (-2, 1): left are (1, 1) + (-2, 1) / 5 and (-2, 1) + (1, 1) / 2."""
    shared, own = keras.Variable([0.0, 0.0]), keras.Variable([0.0, 0.0])
    balancing = begun([1.0, 0.5], [shared, own])

    def losses():
        return [shared[0] + shared[1] + 3 * own[0], shared[1] - 2 * shared[0] - 2 * own[1]]

    found = gradients_of(balancing, losses, [shared, own])
    np.testing.assert_allclose(found[0], [0.6 - 1.5 / 2, 1.2 + 1.5 / 2], atol=1e-6)
    np.testing.assert_allclose(found[1], [3, -1], atol=1e-6)


def test_numbers_of_one_tensor_that_one_task_trains_stay_out_of_it(gradients_of):
    """As experts of several tasks in one kernel: only column 0 is shared."""
    kernel = keras.Variable([0.0, 0.0, 0.0])
    balancing = begun([1.0, 1.0], [kernel])
    found = gradients_of(
        balancing,
        lambda: [2 * kernel[0] + 5 * kernel[1], -kernel[0] + 7 * kernel[2]],
        [kernel],
    )
    # In one dimension nothing is left of two opposed gradients.
    np.testing.assert_allclose(found[0], [0, 5, 7], atol=1e-6)


def test_tasks_at_peace_follow_the_sum_to_the_bit(gradients_of):
    weight = keras.Variable([0.3, 0.7])
    balancing = begun([0.7, 0.9], [weight])

    def losses():
        return [tf.reduce_sum(weight**2), tf.reduce_sum(weight**3)]

    found = gradients_of(balancing, losses, [weight], other=lambda: weight[0] * 2)
    with tf.GradientTape() as tape:
        first, second = losses()
        total = np.float32(0.7) * first + np.float32(0.9) * second + weight[0] * 2
    np.testing.assert_array_equal(found[0], tape.gradient(total, weight.value))


@pytest.mark.parametrize("rows", [6, 40], ids=["small table", "large table"])
@pytest.mark.parametrize("known", [True, False], ids=["known size", "any size"])
def test_looked_up_rows_are_as_dense_ones(gradients_of, rows, known):
    """Ids repeat within and across the tasks; a gradient of looked up rows stays sparse."""
    rng = np.random.default_rng(1)
    ids = [np.array([0, 2, 2, 5, 0]), np.array([2, 0, 3, 2])]
    pulls = [
        np.float32(sign * rng.random((len(i), 3))) for i, sign in zip(ids, (1, -1), strict=True)
    ]
    table = keras.Variable(np.zeros((rows, 3), "float32"))
    balancing = begun([1.0, 2.0], [table])

    def looked_up(first, second):
        pairs = [(first, pulls[0]), (second, pulls[1])]
        (found,) = gradients_of(
            balancing,
            lambda: [tf.reduce_sum(tf.gather(table.value, i) * p) for i, p in pairs],
            [table],
        )
        return found

    if not known:
        looked_up = tf.function(
            looked_up, input_signature=[tf.TensorSpec((None,), tf.int32)] * 2, autograph=False
        )
    found = looked_up(*(tf.constant(i, tf.int32) for i in ids))
    assert isinstance(found, tf.IndexedSlices)

    dense = np.zeros((2, rows, 3))
    for task in range(2):
        np.add.at(dense[task], ids[task], pulls[task])
    shared = (dense != 0).all(axis=0)
    assert 0 < shared.sum() < (dense != 0).any(axis=0).sum()
    vectors = np.where(shared, dense, 0).reshape(2, -1)
    left = surgery(vectors, [[1], [0]])
    expected = left[0] + 2 * left[1] + (np.where(shared, 0, dense).reshape(2, -1).T @ [1, 2])
    np.testing.assert_allclose(tf.convert_to_tensor(found), expected.reshape(rows, 3), atol=1e-5)


def test_the_order_changes_from_step_to_step_and_comes_back_with_the_seed(gradients_of):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(4, 3)).astype("float32")
    weight = keras.Variable(np.zeros(3, "float32"))

    def steps(seed):
        balancing = begun([1.0] * 4, [weight], seed)
        losses = lambda: [tf.reduce_sum(weight * v) for v in vectors]  # noqa: E731
        return np.array([gradients_of(balancing, losses, [weight])[0] for _ in range(8)])

    first = steps(0)
    assert len(np.unique(first.round(5), axis=0)) > 1
    np.testing.assert_array_equal(first, steps(0))
    assert not np.allclose(first, steps(1))
