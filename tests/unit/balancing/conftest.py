"""Steps of a balancing on losses of a few variables, without a model."""

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
