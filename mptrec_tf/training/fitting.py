"""One training of one stage: its data, what it watches, its optimizer, its fit."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import keras

from mptrec_tf.cache import CachedRows, cache_rows, where_to_cache
from mptrec_tf.config import Cache, TrainingConfig
from mptrec_tf.data.encoded import EncodedRows
from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import SpecError
from mptrec_tf.models import MPTRec
from mptrec_tf.models.multi_task import MultiTaskModel
from mptrec_tf.models.objectives import metric_names
from mptrec_tf.optimizers import LazyAdagrad, LazyAdam, SplitOptimizer
from mptrec_tf.spec import Task
from mptrec_tf.spec.parsing import dump
from mptrec_tf.training.assignment import PeriodicAssignment
from mptrec_tf.training.checkpoint import ResumableEarlyStopping
from mptrec_tf.training.warm_start import WarmStart
from mptrec_tf.training.workers import chief_first

EVALUATION_BATCH = 4096
CACHE = "representations"
TABLE_OPTIMIZERS = {
    "adam": keras.optimizers.AdamW,
    "lazy_adam": LazyAdam,
    "adagrad": LazyAdagrad,
}

Model = TypeVar("Model", bound=MultiTaskModel)


class StageData(NamedTuple):
    """What a stage is trained on, encoded once for any number of trainings.

    Attributes:
        encoder: The encoder that made the rows.
        tasks: The tasks whose labels they have, those that are trained.
        train: The rows for training.
        validation: The rows that early stopping looks at.

    Example:

    ```python
    data = stage1_data(config, config.data.sources())
    model = MPTRec(data.encoder, data.tasks)
    model.compile("adam")
    model.fit(data.train.batches(512, shuffle=True), validation_data=data.validation.batches(4096))
    ```
    """

    encoder: FeatureEncoder
    tasks: tuple[Task, ...]
    train: EncodedRows
    validation: EncodedRows

    @property
    def identity(self) -> dict[str, str]:
        """What tells these rows apart from others, as plain data."""
        return {"rows": self.train.digest, "validation rows": self.validation.digest}


@dataclasses.dataclass(frozen=True)
class Trained(Generic[Model]):
    """A stage that is done.

    Attributes:
        model: The model, with the weights of its best epoch.
        epochs: Metrics and seconds of each epoch.
        best_epoch: Number of the best epoch, from 0.
        warm_start: What the model began with, where it began with an earlier one, else `None`.

    Example:

    ```python
    trained = pretrain(config, config.data.sources(), "runs/census")
    trained.epochs[trained.best_epoch]["val_mean_auc"]
    ```
    """

    model: Model
    epochs: list[dict[str, float]]
    best_epoch: int
    warm_start: WarmStart | None = None

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
    names = metric_names(tasks)
    monitor = training.monitor or ("mean_auc" if "mean_auc" in names else "loss")
    if monitor not in names:
        raise SpecError(
            f"monitor: the tasks {[task.name for task in tasks]} have no metric {monitor!r}; "
            f"theirs are {sorted(names)}"
        )
    return Objective(f"val_{monitor}", "min" if monitor.endswith(("loss", "rmse")) else "max")


def fit_stage(
    model: Model,
    training: TrainingConfig,
    data: StageData,
    directory: str | os.PathLike[str],
    *,
    identity: dict[str, Any],
    cache: Cache = "auto",
    cache_dtype: str | None = None,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Trained[Model]:
    """Compiles and trains a model with early stopping; goes on where an earlier call was cut off.

    In stage 2 of `MPTRec` the representations are computed once, where `cache` allows, see
    `with_cache`.
    With several workers, XLA and several steps in one call are left out: neither works there.

    Args:
        model: A model of several tasks, or one to which a task was just added.
        training: How it is trained.
        data: The rows.
        directory: Where the state of the training is kept; all workers need the same.
        identity: What is trained, as plain data, beyond training, rows and seed.
        cache: As in `Stage2Config`; files are in `representations` of the directory. Defaults to
            `"auto"`.
        cache_dtype: As in `Stage2Config`. Defaults to `None`.
        seed: Seed of the shuffle. Defaults to 0.
        verbose: As in `keras.Model.fit`. Defaults to `"auto"`.

    Raises:
        ModelError: If the directory holds the training or the representations of something else,
            or the data are cached representations by another backbone.
        SpecError: If early stopping is to watch a metric that the tasks do not have.
    """
    objective = objective_of(training, data.tasks)
    directory = pathlib.Path(directory)
    strategy = model.distribute_strategy
    with chief_first(strategy) if cache in ("auto", "disk") else contextlib.nullcontext():
        data = with_cache(
            model, data, cache, directory / CACHE, cache_dtype, progress=bool(verbose)
        )
    periodic = (
        isinstance(model, MPTRec)
        and model.tuned_task is None
        and model.adversary is not None
        and model.adversary.form == "periodic"
    )
    train = data.train.batches(
        training.batch_size, shuffle=True, seed=seed, with_example_ids=periodic
    )
    alone = strategy.num_replicas_in_sync == 1
    with strategy.scope():
        model.compile(
            optimizer_for(training, int(train.cardinality()) * training.epochs),
            jit_compile=training.jit_compile and alone,
            steps_per_execution=training.steps_per_execution if alone else 1,
            balancing=training.balancing,
        )
    checkpoint = ResumableEarlyStopping(
        directory,
        *objective,
        training.patience,
        identity=identity | {"training": dump(training), "seed": seed} | data.identity,
        dataset=train,
    )
    model.fit(
        train,
        validation_data=data.validation.batches(EVALUATION_BATCH),
        epochs=training.epochs,
        callbacks=[checkpoint, *([PeriodicAssignment(train, seed=seed)] if periodic else [])],
        verbose=verbose,
    )
    return Trained(model, checkpoint.epochs, checkpoint.best_epoch)


def with_cache(
    model: MultiTaskModel,
    data: StageData,
    cache: Cache,
    directory: str | os.PathLike[str],
    dtype: str | None = None,
    *,
    progress: bool = False,
) -> StageData:
    """The data of stage 2 with the representations that the frozen part of the model gives.

    Any number of trainings can share them: the modules may differ, the backbone may not.

    Args:
        model: The model, with the new task; of one in stage 1, or that is no `MPTRec`, the data are
            given back.
        data: The rows; those that are cached already are only checked.
        cache: As in `Stage2Config`.
        directory: Where files are written, if any.
        dtype: As `cache_dtype` in `Stage2Config`. Defaults to `None`.
        progress: Whether to show a progress bar. Defaults to `False`.

    Raises:
        ModelError: If the directory or the rows hold representations of something else.
    """
    if not isinstance(model, MPTRec):
        return data
    parts: dict[str, EncodedRows] = {"train": data.train, "validation": data.validation}
    for rows in parts.values():
        if isinstance(rows, CachedRows):
            rows.check(model)
    encoded = {name: rows for name, rows in parts.items() if not isinstance(rows, CachedRows)}
    where: str | None = None if model.tuned_task is None else cache
    if where == "auto":
        where = where_to_cache(model, encoded.values(), directory, dtype)
    if where is None:
        return data
    for name, rows in encoded.items():
        files = pathlib.Path(directory, name) if where == "disk" else None
        parts[name] = cache_rows(model, rows, files, dtype=dtype, progress=progress)
    return data._replace(train=parts["train"], validation=parts["validation"])


def optimizer_for(training: TrainingConfig, steps: int) -> keras.optimizers.Optimizer:
    """AdamW, and for the embedding tables what `training` says.

    Both have a linear warm-up and a cosine decay to 0 over all steps.

    Args:
        training: Optimizer of the tables, rates, warm-up and weight decay.
        steps: Optimizer steps in the whole training.

    Returns:
        A new optimizer: `AdamW`, or a `SplitOptimizer` where the tables have their own.

    Example:

    >>> type(optimizer_for(TrainingConfig(embedding_optimizer="lazy_adam"), steps=1000)).__name__
    'SplitOptimizer'
    """
    decay = training.weight_decay
    schedule = _schedule(training, training.learning_rate, steps)
    rest = keras.optimizers.AdamW(schedule, weight_decay=decay)
    if training.embedding_optimizer == "adam" and training.embedding_learning_rate is None:
        return rest
    rate = training.embedding_learning_rate or training.learning_rate
    tables = TABLE_OPTIMIZERS[training.embedding_optimizer](
        _schedule(training, rate, steps), weight_decay=decay
    )
    return SplitOptimizer(tables, rest)


def _schedule(
    training: TrainingConfig, rate: float, steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    warmup = int(training.warmup * steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else rate,
        max(steps - warmup, 1),
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
