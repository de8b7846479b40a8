"""The reference code's periodic assignment of examples to tasks, for comparison."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mptrec_tf.data.datasets import EXAMPLE_ID
from mptrec_tf.models.adversary import assign_lowest_loss
from mptrec_tf.models.mptrec import AssignedTasks


class PeriodicAssignment(keras.callbacks.Callback):
    """Assigns each example at random first, then every few epochs to the task of lowest loss.

    For `MPTRec(adversarial="periodic")`. Examples are known by their row number, so the data may be
    shuffled, but must be in memory and the same in every epoch; `adversarial="assigned"` has no
    such bounds.

    Args:
        dataset: The training data, made with `with_example_ids=True`.
        every: Epochs between two assignments. Defaults to 2, as published.
        seed: Seed of the first, random assignment. Defaults to 0.

    Example:

    ```python
    train = make_dataset(rows, encoder, tasks, shuffle=True, with_example_ids=True)
    model.fit(train, epochs=30, callbacks=[PeriodicAssignment(train)])
    ```

    Reference: arXiv:2408.17214, section 3.
    """

    def __init__(self, dataset: tf.data.Dataset, every: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.dataset = dataset
        self.every = every
        self.seed = seed
        self._begun = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        begun = self._begun
        if not begun:
            rows = sum(len(x[EXAMPLE_ID]) for x, *_ in self.dataset.as_numpy_iterator())
            drawn = np.random.default_rng(self.seed).integers(
                len(self.model.stage1_tasks), size=rows
            )
            if self.model.assignments is None:
                self.model.assignments = AssignedTasks(drawn)
            else:  # of another training, whose graph may hold the variable
                self.model.assignments.assign(drawn)
            self._begun = True
        if epoch >= self.every and (epoch % self.every == 0 or not begun):
            self.model.assignments.assign(self._lowest_losses())

    def _lowest_losses(self) -> np.ndarray:
        parts = [
            (x[EXAMPLE_ID].numpy(), assign_lowest_loss(self.model.example_losses(x, y)).numpy())
            for x, y, *_ in self.dataset
        ]
        ids, tasks = (np.concatenate(part) for part in zip(*parts, strict=True))
        assignment = np.empty(len(ids), np.int32)
        assignment[ids] = tasks
        return assignment
