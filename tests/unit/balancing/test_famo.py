"""Losses that fall at one rate, against a NumPy run of the algorithm."""

import keras
import numpy as np
import pytest

from mptrec_tf.balancing import FAMO

RATE = 0.02


def begun(loss_weights=(1.0, 1.0), **settings):
    balancing = FAMO(**settings)
    balancing.begin(loss_weights, [])
    return balancing


def test_begins_with_weights_that_make_equal_relative_steps():
    factors = begun((1.0, 0.5)).factors(np.float32([0.5, 2])).numpy()
    np.testing.assert_allclose(factors, np.array([1.6, 0.4]) * [1, 0.5], rtol=1e-6)


def numpy_run(pulls, levels, steps, rate, decay):
    """Algorithm 1 on `(theta - pull)^2 + level`, with Adam for xi."""
    theta, xi, moment, square, weights = 0.0, np.zeros(2), np.zeros(2), np.zeros(2), None

    def losses():
        return (theta - pulls) ** 2 + levels

    for step in range(1, steps + 1):
        before = losses()
        z = np.exp(xi) / np.exp(xi).sum()
        weights = 2 * (z / before) / (z / before).sum()
        theta -= RATE * (weights * 2 * (theta - pulls)).sum()
        fell = np.log(before) - np.log(losses())
        jacobian = np.diag(z) - np.outer(z, z)
        slope = jacobian @ fell + decay * xi
        moment = 0.9 * moment + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        corrected = moment / (1 - 0.9**step), square / (1 - 0.999**step)
        xi = xi - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-7)
    return theta, xi, weights


def test_steps_are_those_of_the_algorithm(gradients_of):
    pulls, levels = np.array([1.0, 0.5]), np.array([0.1, 3.0])
    theta = keras.Variable(0.0)
    balancing = begun(learning_rate=0.05, decay=0.01)

    def losses():
        return list((theta - np.float32(pulls)) ** 2 + np.float32(levels))

    for _ in range(25):
        before = balancing.losses_of(losses())
        (gradient,) = gradients_of(balancing, losses, [theta])
        theta.assign_sub(RATE * gradient)
        balancing.look_back(before, balancing.losses_of(losses()))

    expected = numpy_run(pulls, levels, 25, 0.05, 0.01)
    np.testing.assert_allclose(theta, expected[0], rtol=1e-4)
    np.testing.assert_allclose(balancing.logits, expected[1], rtol=2e-3)
    assert expected[1][1] > expected[1][0] + 0.1, "the task that falls more slowly gains"


def test_a_task_without_labels_neither_counts_nor_learns():
    balancing = begun()
    np.testing.assert_allclose(balancing.factors(np.float32([0.5, 0])), [1, 0])
    np.testing.assert_array_equal(balancing.factors(np.float32([0, 0])), [0, 0])
    balancing.look_back(np.float32([0.5, 0]), np.float32([0.5, 0]))
    np.testing.assert_array_equal(balancing.logits, [0, 0])


@pytest.mark.parametrize("absent", [0, 1])
def test_a_task_without_labels_gains_nothing_while_the_other_falls(absent):
    balancing = begun()
    before, after = np.full((2, 2), [[0.5], [0.4]], np.float32)
    before[absent] = after[absent] = 0
    for _ in range(5):
        balancing.look_back(before, after)
    np.testing.assert_array_equal(balancing.logits, [0, 0])


def test_a_task_that_was_there_before_keeps_its_share_of_the_softmax(numpy_adam):
    balancing, adam = begun((1.0, 1.0, 1.0), learning_rate=0.1, decay=0.05), numpy_adam(0.1, 3)
    before = np.float32([0.5, 0.8, 1.0])
    after = np.float32([0.3, 0.79, 0.9])
    xi, kept = np.zeros(3), None
    for there in [1] * 4 + [0] * 6 + [1] * 3:
        present = np.array([True, True, there == 1])
        balancing.look_back(before * present, after * present)

        z = np.exp(xi) * present / np.exp(xi[present]).sum()
        fell = np.where(present, np.log(before) - np.log(after), 0)
        jacobian = np.diag(z) - np.outer(z, z)
        moved = adam(xi, jacobian @ fell + 0.05 * xi, present)
        if not there:
            moved[:2] += np.log(np.exp(xi[:2]).sum() / np.exp(moved[:2]).sum())
        xi = moved
        logits = balancing.logits.numpy()
        np.testing.assert_allclose(logits, xi, rtol=1e-3)
        share = np.exp(logits[2]) / np.exp(logits).sum()
        if there:
            kept = logits[2], share
        else:
            assert logits[2] == kept[0]
            assert share == pytest.approx(kept[1], rel=1e-5)
    assert xi[0] < xi[1] - 0.5, "the tasks that are there go on"
