"""The two stages as a run has them: from files and a configuration to saved models."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from mptrec_tf.config import Config, Sources, TrainingConfig
from mptrec_tf.data import FeatureEncoder, check_same_features, make_dataset
from mptrec_tf.data.datasets import (
    Rows,
    dataset_of_arrays,
    encode_rows,
    read_through,
    summarize,
    with_ids,
)
from mptrec_tf.data.readers import Source
from mptrec_tf.errors import SpecError
from mptrec_tf.models import MPTRec, save_model
from mptrec_tf.models.objectives import TaskMetrics
from mptrec_tf.spec import Task
from mptrec_tf.spec.parsing import dump
from mptrec_tf.training.assignment import PeriodicAssignment
from mptrec_tf.training.checkpoint import ResumableEarlyStopping

STAGE1_FILE = "stage1.keras"
MODEL_FILE = "model.keras"
EVALUATION_BATCH = 4096


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


def pretrain(
    config: Config,
    sources: Sources,
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Trained:
    """Stage 1: learns the encoding, trains the tasks of `config.stage1`, writes `stage1.keras`.

    A run that was cut off goes on after its last finished epoch.

    Args:
        config: The configuration.
        sources: Training and validation rows.
        directory: Where the model and the training state are written.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        verbose: As in `keras.Model.fit`. Defaults to `"auto"`.

    Returns:
        The trained model and its history.

    Raises:
        ModelError: If the directory holds the training of another configuration.
        SpecError: If early stopping is to watch a metric that the tasks do not have.
        DataError: If the data do not fit the spec.
    """
    directory = pathlib.Path(directory)
    tasks = config.spec.with_tasks(*config.stage1.tasks).tasks
    monitor = _monitor(config.stage1.training, tasks)
    encoder = FeatureEncoder(config.features).adapt(sources.train, progress=bool(verbose))
    keras.utils.set_random_seed(seed)
    model = MPTRec(encoder, tasks, **dataclasses.asdict(config.stage1.model), seed=seed)
    identity = {
        "features": dump(config.features),
        "tasks": dump(tasks),
        "model": dump(config.stage1.model),
    }
    trained = _train(
        model, tasks, config, config.stage1.training, monitor, sources, directory / "stage1",
        identity, seed, verbose,
    )  # fmt: skip
    save_model(trained.model, directory / STAGE1_FILE)
    return trained


def prompt_tune(
    config: Config,
    model: MPTRec,
    task_name: str,
    sources: Sources,
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Trained:
    """Stage 2: adds a task of the configuration to a trained model, writes `model.keras`.

    A run that was cut off goes on after its last finished epoch.

    Args:
        config: The configuration.
        model: The model of stage 1, or of an earlier stage 2. It is changed in place.
        task_name: The new task.
        sources: Training and validation rows; they need not carry the older tasks' labels.
        directory: Where the model and the training state are written.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        verbose: As in `keras.Model.fit`. Defaults to `"auto"`.

    Returns:
        The trained model and its history.

    Raises:
        ModelError: If the model has that task already, or the directory holds another training.
        SpecError: If there is no such task or metric, or the model was made from other features.
        DataError: If the data do not fit the spec.
    """
    directory = pathlib.Path(directory)
    task = config.spec.task(task_name)
    monitor = _monitor(config.stage2.training, (task,))
    check_same_features(model.encoder, config.spec, "the model")
    identity = {
        "base": model.fingerprint(),
        "task": dump(task),
        "module": dump(config.stage2.module),
    }
    keras.utils.set_random_seed(seed)
    model.add_task(task, **dataclasses.asdict(config.stage2.module), seed=seed)
    trained = _train(
        model, (task,), config, config.stage2.training, monitor, sources,
        directory / f"stage2-{task_name}", identity, seed, verbose,
    )  # fmt: skip
    save_model(trained.model, directory / MODEL_FILE)
    return trained


def _monitor(training: TrainingConfig, tasks: Sequence[Task]) -> str:
    """The metric that early stopping watches, refused before any work if the tasks lack it."""
    names = [metric.name for metric in TaskMetrics(list(tasks)).all]
    if any(task.kind == "binary" for task in tasks):
        names.append("mean_auc")
    if training.monitor is None:
        return "mean_auc" if "mean_auc" in names else "loss"
    if training.monitor not in names:
        raise SpecError(
            f"monitor: the tasks {[task.name for task in tasks]} have no metric "
            f"{training.monitor!r}; theirs are {sorted(names)}"
        )
    return training.monitor


def _train(
    model: MPTRec,
    tasks: Sequence[Task],
    config: Config,
    training: TrainingConfig,
    monitor: str,
    sources: Sources,
    directory: pathlib.Path,
    identity: dict[str, Any],
    seed: int,
    verbose: int | str,
) -> Trained:
    periodic = model.tuned_task is None and config.stage1.model.adversarial == "periodic"
    (train, rows), (validation, validation_rows) = (
        _dataset(part, model, tasks, config, size, shuffle, seed, shuffle and periodic, verbose)
        for part, size, shuffle in (
            (sources.train, training.batch_size, True),
            (sources.validation, EVALUATION_BATCH, False),
        )
    )
    steps = int(train.cardinality())
    model.compile(
        optimizer_for(training, steps * training.epochs),
        jit_compile=training.jit_compile,
        steps_per_execution=training.steps_per_execution,
    )
    checkpoint = ResumableEarlyStopping(
        directory,
        f"val_{monitor}",
        "min" if monitor.endswith(("loss", "rmse")) else "max",
        training.patience,
        identity=identity
        | {
            "training": dump(training),
            "seed": seed,
            "rows": rows.digest,
            "validation rows": validation_rows.digest,
        },
    )
    model.fit(
        train,
        validation_data=validation,
        epochs=training.epochs,
        callbacks=[checkpoint, *([PeriodicAssignment(train, seed=seed)] if periodic else [])],
        verbose=verbose,
    )
    return Trained(model, checkpoint.epochs, checkpoint.best_epoch)


def _dataset(
    source: Source,
    model: MPTRec,
    tasks: Sequence[Task],
    config: Config,
    batch_size: int,
    shuffle: bool,
    seed: int,
    with_example_ids: bool,
    verbose: int | str,
) -> tuple[tf.data.Dataset, Rows]:
    if not config.data.stream:
        arrays = encode_rows(source, model.encoder, tasks, progress=bool(verbose))
        rows = summarize([arrays])
        arrays = with_ids(arrays) if with_example_ids else arrays
        return dataset_of_arrays(arrays, batch_size=batch_size, shuffle=shuffle, seed=seed), rows
    # Checked as a whole first: an error in the last file should not cost the epoch before it.
    rows = read_through(source, model.encoder, tasks)
    dataset = make_dataset(
        source, model.encoder, tasks, batch_size=batch_size, shuffle=shuffle, seed=seed, stream=True
    )
    batches = -(-rows.number // batch_size)
    return dataset.apply(tf.data.experimental.assert_cardinality(batches)), rows


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
