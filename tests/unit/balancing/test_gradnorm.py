"""Weights from gradient norms, against a NumPy run of the algorithm and known balances."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import ModelError
from mptrec_tf.balancing import GradNorm

PULLS = np.float32([[3, 4], [0.6, -0.8]])  # gradients of norm 5 and 1


def begun(variables, loss_weights=(1.0, 1.0), **settings):
    balancing = GradNorm(**settings)
    balancing.begin(loss_weights, variables)
    return balancing


def test_gradients_become_of_one_size(gradients_of):
    weight = keras.Variable([1.0, 1.0])
    balancing = begun([weight], (1.0, 2.0), alpha=0.0, learning_rate=0.02)

    def losses():
        return [tf.reduce_sum(weight * pull) + 3 for pull in PULLS]

    for _ in range(60):
        (found,) = gradients_of(balancing, losses, [weight])
    # v_1 * 5 = v_2 * 1 and v_1 + v_2 = 2; the sign of the slope makes them tremble by a step.
    np.testing.assert_allclose(balancing.task_weights, [1 / 3, 5 / 3], atol=0.03)
    expected = np.float32([1, 2]) * balancing.task_weights @ PULLS
    np.testing.assert_allclose(found, expected, atol=0.2)


def numpy_run(losses, norms, alpha, rate):
    """Algorithm 1 with Adam, as the paper and the textbook have them."""
    weights, first, moment, square = np.ones(2), losses[0], np.zeros(2), np.zeros(2)
    for step, loss in enumerate(losses, 1):
        left = loss / first
        sizes = weights * norms
        targets = sizes.mean() * (left / left.mean()) ** alpha
        slope = np.sign(sizes - targets) * norms
        moment = 0.9 * moment + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        corrected = moment / (1 - 0.9**step), square / (1 - 0.999**step)
        weights = weights - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-7)
        weights = 2 * weights / weights.sum()
    return weights


def test_steps_are_those_of_the_algorithm(gradients_of):
    weight = keras.Variable([0.0, 0.0])
    balancing = begun([weight], alpha=1.5, learning_rate=0.1)
    levels = np.array([[4.0, 1.0], [1.0, 0.9], [0.2, 0.9], [0.1, 0.9]])
    for level in levels:
        gradients_of(
            balancing,
            lambda level=level: [
                tf.reduce_sum(weight * pull) + np.float32(value)
                for pull, value in zip(PULLS, level, strict=True)
            ],
            [weight],
        )
    expected = numpy_run(levels, np.array([5.0, 1.0]), 1.5, 0.1)
    np.testing.assert_allclose(balancing.task_weights, expected, rtol=1e-4)
    assert expected[1] > 1.1, "the task that lags behind gains"


def test_a_task_without_labels_keeps_its_first_loss_for_later(gradients_of):
    weight = keras.Variable([0.0, 0.0])
    balancing = begun([weight])
    (before,) = gradients_of(
        balancing, lambda: [tf.reduce_sum(weight * PULLS[0]) + 2, 0 * weight[0]], [weight]
    )
    np.testing.assert_array_equal(before, PULLS[0])
    np.testing.assert_array_equal(balancing.first_losses, [2, 0])
    np.testing.assert_array_equal(balancing.task_weights, [1, 1])


def test_some_weights_decide_for_all(gradients_of):
    deep = keras.Variable([1.0, 1.0], name="deep")
    last = keras.Variable([1.0, 1.0], name="last")
    chosen, alone = begun([deep, last], weights="last"), begun([last])

    def losses(with_deep=True):
        return [
            tf.reduce_sum(last * pull) + 9 + (tf.reduce_sum(deep * pull) if with_deep else 0)
            for pull in 2 * PULLS[::-1]
        ]

    for _ in range(3):
        found = gradients_of(chosen, losses, [deep, last])
        gradients_of(alone, losses, [last])
    np.testing.assert_array_equal(chosen.task_weights, alone.task_weights)
    np.testing.assert_array_equal(found[0], found[1])

    with pytest.raises(ModelError, match=r"'middle'.*deep.*last"):
        gradients_of(begun([deep, last], weights="middle"), losses, [deep, last])


def test_an_overflow_leaves_the_weights_as_they_are(gradients_of):
    weight = keras.Variable([1.0, 1.0])
    balancing = begun([weight])

    def losses(size=1e30):
        return [size * (tf.reduce_sum(weight * pull) + 1) for pull in PULLS]

    def overflow():
        (found,) = gradients_of(balancing, losses, [weight], scale=1e30)
        assert not np.isfinite(found).any()
        return balancing.task_weights.numpy()

    np.testing.assert_array_equal(overflow(), [1, 1])
    for _ in range(3):
        gradients_of(balancing, lambda: losses(1.0), [weight])
    learned = balancing.task_weights.numpy()
    assert (learned != 1).all()
    np.testing.assert_array_equal(overflow(), learned)


def test_a_task_that_was_there_before_keeps_its_weight(gradients_of, numpy_adam):
    weight = keras.Variable([0.0, 0.0])
    pulls = np.float32([[3, 4], [0.6, -0.8], [1.2, 1.6]])
    norms = np.array([5.0, 1.0, 2.0])
    balancing = begun([weight], (1.0, 1.0, 1.0), learning_rate=0.05)
    adam, expected, kept = numpy_adam(0.05, 3), np.ones(3), None
    for there in [1] * 4 + [0] * 6 + [1] * 3:
        present = np.array([True, True, there == 1])
        levels = np.float32([4, 1, 2]) * present

        def losses(levels=levels):
            return [
                tf.reduce_sum(weight * pull) * (level > 0) + level
                for pull, level in zip(pulls, levels, strict=True)
            ]

        gradients_of(balancing, losses, [weight])
        # Of no task is less left than of the others, so all gradients shall be of one size.
        sizes = expected * norms
        moved = adam(expected, np.sign(sizes - sizes[present].mean()) * norms, present)
        moved[present] *= expected[present].sum() / moved[present].sum()
        expected = moved
        weights = balancing.task_weights.numpy()
        np.testing.assert_allclose(weights, expected, rtol=1e-4)
        if there:
            kept = weights
        else:
            assert weights[2] == kept[2] != 1
            assert weights[:2].sum() == pytest.approx(kept[:2].sum(), rel=1e-6)
            assert weights[1] > kept[1], "the tasks that are there go on"
