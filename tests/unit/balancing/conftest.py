"""Steps of a balancing on losses of a few variables, without a model."""

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture
def gradients_of():
    """Gives what a balancing makes of the gradients of `losses()`, a list, over some variables."""

    def gradients(balancing, losses, variables, **options):
        with tf.GradientTape(persistent=True) as tape:
            task_losses = [
                weight * loss
                for weight, loss in zip(balancing.loss_weights.numpy(), losses(), strict=True)
            ]
            other = options.pop("other", lambda: 0.0)()
        return balancing.gradients(tape, task_losses, other, variables, **options)

    return gradients


@pytest.fixture
def numpy_adam():
    """Adam in NumPy, of which a number that is absent from a step sees nothing."""

    def begun(rate, count):
        moment, square, steps = np.zeros(count), np.zeros(count), 0

        def moved(values, slopes, present):
            nonlocal moment, square, steps
            steps += 1
            moment = np.where(present, 0.9 * moment + 0.1 * slopes, moment)
            square = np.where(present, 0.999 * square + 0.001 * slopes**2, square)
            corrected = moment / (1 - 0.9**steps), square / (1 - 0.999**steps)
            return np.where(
                present, values - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-7), values
            )

        return moved

    return begun
