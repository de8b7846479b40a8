"""Early stopping that survives a crash."""

import json
import math
import os
import pathlib
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mptrec_tf.errors import ModelError
from mptrec_tf.files import write_json, written_whole
from mptrec_tf.training.workers import (
    is_chief,
    number_of_workers,
    sum_of_workers,
    wait_for_workers,
)

STATE = "state.json"


class ResumableEarlyStopping(keras.callbacks.Callback):
    """Stops when a validation metric no longer improves, keeps the best weights, and resumes.

    After each epoch the whole training state is on disk: weights, optimizer, state of the dropout,
    epoch, history, the best value so far and its weights. Files are written beside and renamed, and
    the state is switched last, so a process that is killed at any moment leaves the last finished
    epoch intact. The next `fit` with the same directory goes on from there; where the training was
    over, it only puts the best weights back.

    Beyond `keras.callbacks.BackupAndRestore`, it remembers what early stopping knew, and where
    dropout and shuffle were: given the dataset, a resumed training learns, to the bit, what an
    undisturbed one would have learned (not with the adversarial form `"periodic"`, which assigns
    the tasks anew).

    An epoch in which the metric is NaN is no improvement; if it is the first one, that is an error.

    With several workers the chief writes, and all read: the directory is on a disk that they share.

    Args:
        directory: Where the state is kept.
        monitor: Metric, such as `"val_mean_auc"`.
        mode: `"max"` or `"min"`. Defaults to `"max"`.
        patience: Epochs without improvement before training stops, 1 or more. Defaults to 4.
        identity: What is trained, as plain data. A directory that holds the training of something
            else is refused. Defaults to `None`.
        dataset: The training data, shuffled with a seed, of a known number of batches, all of which
            are an epoch (no `steps_per_epoch`). To resume where an epoch was cut off, make it anew.
            Defaults to `None`: a resumed training sees the rows in the order of the first epochs
            again.

    Example:

    ```python
    model.fit(train, validation_data=validation, epochs=30,
              callbacks=[ResumableEarlyStopping("runs/stage1", "val_mean_auc")])
    ```
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        monitor: str,
        mode: str = "max",
        patience: int = 4,
        identity: Any = None,
        dataset: tf.data.Dataset | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be max or min. Received: {mode!r}")
        if patience < 1:
            raise ValueError(f"patience must be 1 epoch or more. Received: {patience!r}")
        self.directory = pathlib.Path(directory)
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.identity = json.loads(json.dumps(identity))
        self.dataset = dataset
        self.epochs: list[dict[str, float]] = []
        self.best_epoch = 0
        self.initial_epoch = 0
        self.stopped = False
        self._begun = 0.0

    @property
    def best(self) -> float:
        """The best value of the metric so far."""
        return self.epochs[self.best_epoch][self.monitor]

    @property
    def resumes(self) -> bool:
        """Whether `fit` will go on with a training, or put its best weights back."""
        return (self.directory / STATE).is_file()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._check_batches()
        state = self._read()
        if state is None:
            self.model._initial_epoch = None  # an interrupted `fit` of Keras leaves its own
            return
        if state["identity"] != self.identity:
            raise ModelError(
                f"{self.directory} holds the training of another configuration or other rows "
                f"(what differs: {', '.join(_differences(state['identity'], self.identity))}); "
                "give another directory, or delete this one"
            )
        self.epochs, self.best_epoch = state["epochs"], state["best_epoch"]
        self.initial_epoch = state.get("initial_epoch", 0)
        self.stopped = state["stopped"]
        if not self.model.optimizer.built:
            with self.model.distribute_strategy.scope():
                self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(self.directory / state["last"])
        for generator, value in zip(_generators(self.model), state["generators"], strict=True):
            generator.assign(value)
        epochs = self.params["epochs"]
        following = epochs if self.stopped else self.initial_epoch + len(self.epochs)
        if self.dataset is not None and following < epochs:
            self._skip_iterations(self.dataset, state.get("iterations") or 2 * len(self.epochs))
        self.model._initial_epoch = following

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch == 0:
            self._count_iteration()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {name: float(value) for name, value in (logs or {}).items()}
        logs["seconds"] = time.perf_counter() - self._begun
        self._count_iteration()  # Keras begins one more after the last batch
        if self.monitor not in logs:
            raise ModelError(
                f"early stopping watches {self.monitor!r}; the metrics are {sorted(logs)}"
            )
        value = logs[self.monitor]
        if math.isnan(value) and not self.epochs:
            raise ModelError(
                f"early stopping watches {self.monitor!r}, which is NaN after the first epoch: "
                "either the rows that it is of do not define it (an AUC needs labels of both "
                f"kinds), or the training has diverged. The metrics are {logs}"
            )
        if not self.epochs:
            self.initial_epoch = epoch
        self.epochs.append(logs)
        last = len(self.epochs) - 1
        sign = 1 if self.mode == "max" else -1
        values = [sign * entry[self.monitor] for entry in self.epochs]
        improved = len(values) == 1 or values[-1] > values[self.best_epoch]  # NaN never is
        if improved:
            self.best_epoch = last
        self.stopped = last - self.best_epoch >= self.patience
        if is_chief(self.model.distribute_strategy):
            self._save()
        self.model.stop_training = self.model.stop_training or self.stopped

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch = 0
        wait_for_workers(
            self.model.distribute_strategy
        )  # until the chief has written the last epoch
        if self.epochs:
            self.model.load_weights(self.directory / _weights_name(self.best_epoch))

    def _read(self) -> dict[str, Any] | None:
        """The state on disk, if there is one; all workers must see the same."""
        strategy = self.model.distribute_strategy
        if tf.distribute.has_strategy() and number_of_workers(strategy.cluster_resolver) > 1:
            # There saving makes variables, for which the chief would wait for the others.
            raise ModelError("make the model under strategy.scope(), and call fit outside of it")
        if is_chief(strategy):
            self.directory.mkdir(parents=True, exist_ok=True)
        wait_for_workers(strategy)
        file = self.directory / STATE
        state = json.loads(file.read_text()) if file.is_file() else None
        done = len(state["epochs"]) if state else 0
        everyone = sum_of_workers(strategy, done)
        if not self.directory.is_dir() or everyone != done * strategy.num_replicas_in_sync:
            raise ModelError(
                f"{self.directory} is not the same on every worker (here it holds {done} epochs); "
                "give a directory on a disk that all workers share"
            )
        return state

    def _check_batches(self) -> None:
        if self.dataset is None:
            return
        batches, steps = int(self.dataset.cardinality()), self.params.get("steps")
        if batches < 0 or steps not in (None, batches):
            raise ModelError(
                "dataset= needs a known number of batches, all of which are an epoch; leave out "
                "steps_per_epoch, or dataset=. Received: "
                f"{'an unknown number of' if batches < 0 else batches} batches, {steps} an epoch"
            )

    def _count_iteration(self) -> None:
        if self.dataset is not None:
            self.dataset.iterations_begun = _iterations_begun(self.dataset) + 1

    def _skip_iterations(self, dataset: tf.data.Dataset, number: int) -> None:
        """Each iteration of a dataset shuffles anew, also one that is not read."""
        begun = _iterations_begun(dataset)
        if begun > number:
            raise ModelError(
                f"the dataset was read beyond what {self.directory} holds ({len(self.epochs)} "
                "epochs), so its rows would come in another order; make it anew"
            )
        for _ in range(number - begun):
            iter(dataset)
        dataset.iterations_begun = number

    def _save(self) -> None:
        last = self.directory / _weights_name(len(self.epochs) - 1)
        with written_whole(last) as partial:
            self.model.save_weights(partial, overwrite=True)
        state = {
            "identity": self.identity,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "initial_epoch": self.initial_epoch,
            "iterations": _iterations_begun(self.dataset),
            "stopped": self.stopped,
            "last": last.name,
            "generators": [np.array(state).tolist() for state in _generators(self.model)],
        }
        write_json(self.directory / STATE, state, indent=1)
        kept = {last.name, _weights_name(self.best_epoch)}
        for file in self.directory.glob("epoch-*.weights.h5"):
            if file.name not in kept:
                file.unlink()


def _differences(before: Any, now: Any, path: str = "identity") -> list[str]:
    """The keys, those of nested mappings after a dot, whose values differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [path.removeprefix("identity.")]
    parts = ((before.get(key), now.get(key), f"{path}.{key}") for key in before | now)
    return [name for part in parts for name in _differences(*part)]


def _generators(model: keras.Model) -> list[keras.Variable]:
    """The states of random generators, which Keras does not save with the weights."""
    return [variable for variable in model.variables if "seed_generator" in variable.path]


def _iterations_begun(dataset: Any) -> int:
    """How many iterations trainings have begun, which outlive a callback."""
    return getattr(dataset, "iterations_begun", 0)


def _weights_name(epoch: int) -> str:
    return f"epoch-{epoch + 1:03d}.weights.h5"
