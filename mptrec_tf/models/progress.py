"""Tells a model how far its training is."""

from typing import Any

import keras


class TrainingProgress(keras.callbacks.Callback):
    """Keeps the progress that the adversarial strength depends on.

    `MultiTaskModel.fit` installs one where none is given. The progress is taken from the epoch's
    number at each epoch's begin, so it is right at once after a training is resumed, and moves with
    every optimizer step within the epoch. Where the number of steps in an epoch is unknown at first
    (a stream), it moves within epochs from the second one on.

    Example:

    ```python
    # Given by hand, it comes before callbacks that read what it keeps.
    model.fit(train, epochs=10, callbacks=[TrainingProgress(), my_callback])
    ```
    """

    def __init__(self) -> None:
        super().__init__()
        self._counted_steps = 0
        self._first_step = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        epochs, batches = self.params["epochs"], self.params["steps"]
        left = epochs - epoch
        if batches:
            steps = batches * left // _batches_of_a_step(self.model.optimizer)
        else:
            steps = self._counted_steps * left
        self.model.begin_epoch(epoch / epochs, steps or None)
        self._first_step = self._iterations()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._counted_steps = self._iterations() - self._first_step
        self.model.count_epoch()

    def _iterations(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))


def _batches_of_a_step(optimizer: Any) -> int:
    """Of how many batches the optimizer adds up the gradients before it takes a step."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # where the loss is scaled
    return inner.gradient_accumulation_steps or 1
