"""Weights from learned uncertainty."""

import keras
import numpy as np
import pytest
import scipy.optimize

from mptrec_tf.balancing import Uncertainty


def begun(loss_weights=(1.0, 1.0), **settings):
    balancing = Uncertainty(**settings)
    balancing.begin(loss_weights, [])
    return balancing


def test_begins_as_without_balancing():
    factors = begun((1.0, 0.5)).factors(np.float32([0.3, 7]))
    np.testing.assert_array_equal(factors, [1, 0.5])


def test_weights_become_one_over_the_loss():
    balancing = begun((1.0, 0.5), learning_rate=0.2)
    losses = np.float32([0.25, 4])
    for _ in range(120):
        factors = balancing.factors(losses)
    np.testing.assert_allclose(factors, [4, 0.5 / 4], rtol=0.03)


def test_finds_the_joint_optimum_of_weights_and_uncertainties(gradients_of):
    """With the `s_k` at their optimum, what is minimized is the sum of the logarithms."""
    theta = keras.Variable(0.0)
    balancing = begun(learning_rate=0.1)
    optimizer = keras.optimizers.SGD(0.1)

    def losses():
        return [(theta - 1) ** 2 + 0.25, (theta + 1) ** 2 + 4]

    for _ in range(120):
        optimizer.apply(gradients_of(balancing, losses, [theta]), [theta])

    expected = scipy.optimize.minimize_scalar(
        lambda t: np.log((t - 1) ** 2 + 0.25) + np.log((t + 1) ** 2 + 4)
    )
    assert float(theta) == pytest.approx(expected.x, abs=5e-3)
    np.testing.assert_allclose(
        np.exp(balancing.log_variances), [float(loss) for loss in losses()], rtol=0.01
    )


def test_a_task_without_labels_keeps_its_uncertainty():
    balancing = begun()
    for _ in range(5):
        balancing.factors(np.float32([3, 0]))
    first, second = balancing.log_variances.numpy()
    assert first > 0
    assert second == 0


def test_a_task_that_was_there_before_keeps_its_uncertainty_too(numpy_adam):
    balancing, adam = begun(learning_rate=0.05), numpy_adam(0.05, 2)
    expected, kept = np.zeros(2), None
    for losses in np.float32([[3, 2]] * 4 + [[2, 0]] * 5 + [[3, 0.5]] * 3):
        balancing.factors(losses)
        expected = adam(expected, 1 - np.exp(-expected) * losses, losses > 0)
        np.testing.assert_allclose(balancing.log_variances, expected, rtol=1e-4)
        if losses[1] == 2:
            kept = balancing.log_variances.numpy()[1]
        elif losses[1] == 0:
            assert balancing.log_variances.numpy()[1] == kept > 0.1
