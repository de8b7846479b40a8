"""One training of one stage: its data, what it watches, its optimizer, its fit."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from mptrec_tf.config import TrainingConfig
from mptrec_tf.data.encoded import EncodedRows
from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import SpecError
from mptrec_tf.models import MPTRec
from mptrec_tf.models.objectives import TaskMetrics
from mptrec_tf.spec import Task
from mptrec_tf.spec.parsing import dump
from mptrec_tf.training.assignment import PeriodicAssignment
from mptrec_tf.training.checkpoint import ResumableEarlyStopping

EVALUATION_BATCH = 4096


class StageData(NamedTuple):
    """What a stage is trained on, encoded once for any number of trainings.

    Attributes:
        encoder: The encoder that made the rows.
        tasks: The tasks whose labels they have, those that are trained.
        train: The rows for training.
        validation: The rows that early stopping looks at.
    """

    encoder: FeatureEncoder
    tasks: tuple[Task, ...]
    train: EncodedRows
    validation: EncodedRows

    @property
    def identity(self) -> dict[str, str]:
        """What tells these rows apart from others, as plain data."""
        return {"rows": self.train.digest, "validation rows": self.validation.digest}


class Trained(NamedTuple):
    """A stage that is done.

    Attributes:
        model: The model, with the weights of its best epoch.
        epochs: Metrics and seconds of each epoch.
        best_epoch: Number of the best epoch, from 0.
    """

    model: MPTRec
    epochs: list[dict[str, float]]
    best_epoch: int

    @property
    def seconds(self) -> float:
        """How long the epochs took, those of an interrupted run included."""
        return sum(epoch["seconds"] for epoch in self.epochs)


class Objective(NamedTuple):
    """What a training is judged by.

    Attributes:
        metric: A metric of the validation rows, such as `"val_mean_auc"`.
        mode: `"max"` or `"min"`.
    """

    metric: str
    mode: str


def objective_of(training: TrainingConfig, tasks: Sequence[Task]) -> Objective:
    """What early stopping watches.

    Args:
        training: The training.
        tasks: The tasks that are trained.

    Raises:
        SpecError: If the tasks lack the metric that `training.monitor` names.
    """
    names = [metric.name for metric in TaskMetrics(list(tasks)).all]
    if any(task.kind == "binary" for task in tasks):
        names.append("mean_auc")
    monitor = training.monitor or ("mean_auc" if "mean_auc" in names else "loss")
    if monitor not in names:
        raise SpecError(
            f"monitor: the tasks {[task.name for task in tasks]} have no metric {monitor!r}; "
            f"theirs are {sorted(names)}"
        )
    return Objective(f"val_{monitor}", "min" if monitor.endswith(("loss", "rmse")) else "max")


def fit_stage(
    model: MPTRec,
    training: TrainingConfig,
    data: StageData,
    directory: str | os.PathLike[str],
    *,
    identity: dict[str, Any],
    seed: int = 0,
    verbose: int | str = "auto",
) -> Trained:
    """Compiles and trains a model with early stopping; goes on where an earlier call was cut off.

    Args:
        model: A model of stage 1, or one to which the task of stage 2 was just added.
        training: How it is trained.
        data: The rows.
        directory: Where the state of the training is kept.
        identity: What is trained, as plain data, beyond training, rows and seed.
        seed: Seed of the shuffle. Defaults to 0.
        verbose: As in `keras.Model.fit`. Defaults to `"auto"`.

    Raises:
        ModelError: If the directory holds the training of something else.
        SpecError: If early stopping is to watch a metric that the tasks do not have.
    """
    objective = objective_of(training, data.tasks)
    periodic = (
        model.tuned_task is None
        and model.adversary is not None
        and model.adversary.form == "periodic"
    )
    train = data.train.batches(
        training.batch_size, shuffle=True, seed=seed, with_example_ids=periodic
    )
    model.compile(
        optimizer_for(training, int(train.cardinality()) * training.epochs),
        jit_compile=training.jit_compile,
        steps_per_execution=training.steps_per_execution,
    )
    checkpoint = ResumableEarlyStopping(
        pathlib.Path(directory),
        *objective,
        training.patience,
        identity=identity | {"training": dump(training), "seed": seed} | data.identity,
    )
    model.fit(
        train,
        validation_data=data.validation.batches(EVALUATION_BATCH),
        epochs=training.epochs,
        callbacks=[checkpoint, *([PeriodicAssignment(train, seed=seed)] if periodic else [])],
        verbose=verbose,
    )
    return Trained(model, checkpoint.epochs, checkpoint.best_epoch)


def optimizer_for(training: TrainingConfig, steps: int) -> keras.optimizers.Optimizer:
    """AdamW with a linear warm-up and a cosine decay to 0 over all steps.

    Args:
        training: Rate, warm-up and weight decay.
        steps: Optimizer steps in the whole training.

    Returns:
        A new optimizer.
    """
    warmup = int(training.warmup * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else training.learning_rate,
        max(steps - warmup, 1),
        warmup_target=training.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=training.weight_decay)
