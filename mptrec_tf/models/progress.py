"""Tells a model how far its training is."""

from typing import Any

import keras


class TrainingProgress(keras.callbacks.Callback):
    """Keeps the progress that the adversarial strength depends on; `MPTRec.fit` installs it.

    The progress is taken from the epoch's number at each epoch's begin, so it is right at once
    after a training is resumed, and moves with every optimizer step within the epoch. Where the
    number of steps in an epoch is unknown at first (a stream), it moves within epochs from the
    second one on.

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
        epochs, steps = self.params["epochs"], self.params["steps"] or self._counted_steps
        left = epochs - epoch
        self.model.begin_epoch(epoch / epochs, steps * left if steps else None)
        self._first_step = self._iterations()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._counted_steps = self._iterations() - self._first_step
        self.model.count_epoch()

    def _iterations(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
