"""The callback that tells a model how far its training is."""

import types

import pytest

from mptrec_tf.models.progress import TrainingProgress


class Model:
    """Notes what it is told; every epoch takes `steps` optimizer steps."""

    def __init__(self, iterations=0):
        self.optimizer = types.SimpleNamespace(
            iterations=iterations, gradient_accumulation_steps=None
        )
        self.told = []
        self.epochs = 0

    def begin_epoch(self, fraction_done, steps_left):
        self.told.append((fraction_done, steps_left))

    def count_epoch(self):
        self.epochs += 1


def run(model, epochs, steps, known=True, initial_epoch=0):
    callback = TrainingProgress()
    callback.set_model(model)
    callback.set_params({"epochs": epochs, "steps": steps if known else None})
    for epoch in range(initial_epoch, epochs):
        callback.on_epoch_begin(epoch)
        model.optimizer.iterations += steps
        callback.on_epoch_end(epoch)
    return model


def test_each_epoch_is_told():
    model = run(Model(), epochs=4, steps=10)

    assert model.told == [(0.0, 40), (0.25, 30), (0.5, 20), (0.75, 10)]
    assert model.epochs == 4


@pytest.mark.parametrize("iterations", [0, 1000])
def test_a_resumed_training_goes_on_where_it_was(iterations):
    model = run(Model(iterations), epochs=4, steps=10, initial_epoch=3)

    assert model.told == [(0.75, 10)]


def test_steps_of_a_stream_are_counted_in_the_first_epoch():
    model = run(Model(iterations=77), epochs=4, steps=10, known=False)

    assert model.told == [(0.0, None), (0.25, 30), (0.5, 20), (0.75, 10)]
