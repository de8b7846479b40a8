"""The two stages as a run has them: from files and a configuration to saved models."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from mptrec_tf.config import Config, Sources
from mptrec_tf.data import FeatureEncoder, check_same_features
from mptrec_tf.data.datasets import encode_rows
from mptrec_tf.data.encoded import EncodedRows, RowsInFiles, RowsInMemory
from mptrec_tf.data.readers import Source
from mptrec_tf.errors import ModelError
from mptrec_tf.files import only_one
from mptrec_tf.models import MPTRec, load_model, save_model
from mptrec_tf.models.saving import saved_tasks
from mptrec_tf.spec import Task
from mptrec_tf.spec.parsing import dump
from mptrec_tf.training.fitting import StageData, Trained, fit_stage, objective_of
from mptrec_tf.training.warm_start import check_architecture, keep_bins, warm_start
from mptrec_tf.training.workers import is_chief

STAGE1_FILE = "stage1.keras"
MODEL_FILE = "model.keras"


def pretrain(
    config: Config,
    sources: Sources,
    directory: str | os.PathLike[str],
    *,
    earlier: MPTRec | str | os.PathLike[str] | None = None,
    seed: int = 0,
    verbose: int | str = "auto",
    strategy: tf.distribute.Strategy | None = None,
) -> Trained[MPTRec]:
    """Stage 1: learns the encoding, trains the tasks of `config.stage1`, writes `stage1.keras`.

    A run that was cut off goes on after its last finished epoch. Of several workers, one writes.

    Args:
        config: The configuration.
        sources: Training and validation rows.
        directory: Where the model and the training state are written.
        earlier: A model, or its `.keras` file, whose weights the new one begins with wherever they
            have a counterpart, see `warm_start`. The vocabularies are learned anew; the bins of
            numeric features that are defined as before are kept. Defaults to `None`.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        verbose: As in `keras.Model.fit`. Defaults to `"auto"`.
        strategy: What the model is trained with, such as a `MultiWorkerStrategy`. Defaults to
            `None`, the default strategy.

    Returns:
        The trained model and its history.

    Raises:
        ModelError: If the directory holds the training of another configuration, or the earlier
            model has another architecture, or another process works in the directory.
        SpecError: If early stopping is to watch a metric that the tasks do not have.
        DataError: If the data do not fit the spec.

    Example:

    ```python
    config = Config.from_yaml("configs/census_income.yaml")
    model = pretrain(config, config.data.sources(), "runs/census").model
    ```
    """
    directory = pathlib.Path(directory)
    if earlier is not None and not isinstance(earlier, MPTRec):
        earlier = load_model(earlier)
    if earlier is not None:
        check_architecture(dataclasses.asdict(config.stage1.model), earlier)
    data = stage1_data(config, sources, earlier=earlier, progress=bool(verbose))
    taken = None
    with (strategy or tf.distribute.get_strategy()).scope():
        model = stage1_model(config, data.encoder, seed)
        if earlier is not None:
            taken = warm_start(model, earlier)
    if taken is not None and verbose:
        print(taken)
    with _alone(directory, model):
        trained = fit_stage(
            model,
            config.stage1.training,
            data,
            directory / "stage1",
            identity=stage1_identity(config, earlier),
            seed=seed,
            verbose=verbose,
        )
        if is_chief(trained.model.distribute_strategy):
            save_model(trained.model, directory / STAGE1_FILE)
    return dataclasses.replace(trained, warm_start=taken)


def prompt_tune(
    config: Config,
    model: MPTRec,
    task_name: str,
    sources: Sources,
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    verbose: int | str = "auto",
    check: Callable[[Trained[MPTRec]], None] | None = None,
) -> Trained[MPTRec]:
    """Stage 2: adds a task of the configuration to a trained model, writes `model.keras`.

    What the frozen part of the model gives is computed once, as `config.stage2.cache` says. A run
    that was cut off goes on after its last finished epoch.

    Args:
        config: The configuration.
        model: The model of stage 1, or of an earlier stage 2. It is changed in place; where an
            error or Ctrl-C ends the training, the new task is taken off again.
        task_name: The new task.
        sources: Training and validation rows; they need not carry the older tasks' labels.
        directory: Where the model and the training state are written.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        verbose: As in `keras.Model.fit`. Defaults to `"auto"`.
        check: Is given the trained model before `model.keras` is written; where it raises, an older
            file stays. Of several workers, one calls it. Defaults to `None`.

    Returns:
        The trained model and its history.

    Raises:
        ModelError: If the model has that task already, the directory holds another training, its
            `model.keras` has tasks that the new model would lack, or another process works there.
        SpecError: If there is no such task or metric, or the model was made from other features.
        DataError: If the data do not fit the spec.

    Example:

    ```python
    model = load_model("runs/census/stage1.keras")
    prompt_tune(config, model, "education", config.data.sources(), "runs/census")
    ```
    """
    directory = pathlib.Path(directory)
    with _alone(directory, model):
        require_tasks_kept(model, task_name, directory)
        data = stage2_data(config, model, task_name, sources, progress=bool(verbose))
        identity = stage2_identity(config, model, task_name)
        add_module(config, model, task_name, seed)
        try:
            trained = fit_stage(
                model,
                config.stage2.training,
                data,
                directory / f"stage2-{task_name}",
                identity=identity,
                cache=config.stage2.cache,
                cache_dtype=config.stage2.cache_dtype,
                seed=seed,
                verbose=verbose,
            )
            if is_chief(trained.model.distribute_strategy):
                if check is not None:
                    check(trained)
                save_model(trained.model, directory / MODEL_FILE)
        except BaseException:
            model.drop_task(task_name)  # so that the same call goes on
            raise
    return trained


def require_tasks_kept(model: MPTRec, task_name: str, directory: str | os.PathLike[str]) -> None:
    """Refuses to write a model in the place of one with tasks that it would lack.

    Args:
        model: The model that is to get the task.
        task_name: The new task.
        directory: Where `model.keras` is to be written.

    Raises:
        ModelError: Names the file and the tasks.
    """
    file = pathlib.Path(directory) / MODEL_FILE
    if not file.exists():
        return
    kept = [task_name, *(task.name for task in model.tasks)]
    lost = [name for name in saved_tasks(file) if name not in kept]
    if lost:
        raise ModelError(
            f"{file} has the tasks {lost}, which the new model would lack; to keep them, add "
            f"{task_name!r} to that model (--model {file}), or write to another directory "
            "(--output)"
        )


def stage1_data(
    config: Config, sources: Sources, *, earlier: MPTRec | None = None, progress: bool = False
) -> StageData:
    """Learns the encoding from the training rows and reads what stage 1 is trained on.

    Args:
        config: The configuration.
        sources: Training and validation rows.
        earlier: A model whose bins are kept, see `keep_bins`. Defaults to `None`.
        progress: Whether to show progress bars. Defaults to `False`.

    Raises:
        SpecError: If early stopping is to watch a metric that the tasks do not have.
        DataError: If the data do not fit the spec.

    Example:

    ```python
    data = stage1_data(config, config.data.sources())
    tuner = StageTuner(Stage1HyperModel(config, data), "runs/tune-stage1")
    ```
    """
    tasks = config.spec.with_tasks(*config.stage1.tasks).tasks
    objective_of(config.stage1.training, tasks)
    encoder = FeatureEncoder(config.features).adapt(sources.train, progress=progress)
    if earlier is not None:
        encoder = keep_bins(encoder, earlier.encoder)
    return _read(config, sources, encoder, tasks, progress)


def stage2_data(
    config: Config, model: MPTRec, task_name: str, sources: Sources, *, progress: bool = False
) -> StageData:
    """Reads what a new task is trained on, as the model encodes it.

    Args:
        config: The configuration.
        model: The model that is to get the task.
        task_name: The new task.
        sources: Training and validation rows.
        progress: Whether to show progress bars. Defaults to `False`.

    Raises:
        ModelError: If the model has that task already.
        SpecError: If there is no such task or metric, or the model was made from other features.
        DataError: If the data do not fit the spec.

    Example:

    ```python
    model = load_model("runs/census/stage1.keras")
    data = stage2_data(config, model, "education", config.data.sources())
    ```
    """
    task = config.spec.task(task_name)
    objective_of(config.stage2.training, (task,))
    check_same_features(model.encoder, config.spec, "the model")
    if task_name in {known.name for known in model.tasks}:
        raise ModelError(f"the model already has a task {task_name!r}")
    return _read(config, sources, model.encoder, (task,), progress)


def stage1_model(config: Config, encoder: FeatureEncoder, seed: int = 0) -> MPTRec:
    """The model of `config.stage1`, initialized, not compiled.

    Args:
        config: The configuration.
        encoder: An adapted encoder of its features.
        seed: Seed of weights and dropout. Defaults to 0.
    """
    tasks = config.spec.with_tasks(*config.stage1.tasks).tasks
    keras.utils.set_random_seed(seed)
    return MPTRec(encoder, tasks, **dataclasses.asdict(config.stage1.model), seed=seed)


def add_module(config: Config, model: MPTRec, task_name: str, seed: int = 0) -> None:
    """Adds a task with the module of `config.stage2` to a trained model, in place.

    Args:
        config: The configuration.
        model: The model.
        task_name: The new task.
        seed: Seed of weights and dropout. Defaults to 0.

    Raises:
        ModelError: If the model has that task already, or was not trained.
    """
    keras.utils.set_random_seed(seed)
    module = dataclasses.asdict(config.stage2.module)
    model.add_task(config.spec.task(task_name), **module, seed=seed)


def stage1_identity(config: Config, earlier: MPTRec | None = None) -> dict[str, Any]:
    """What stage 1 trains, and from where it begins, as plain data, beyond training and rows."""
    identity = {
        "features": dump(config.features),
        "tasks": dump(config.spec.with_tasks(*config.stage1.tasks).tasks),
        "model": dump(config.stage1.model),
    }
    return identity if earlier is None else identity | {"earlier": earlier.fingerprint()}


def stage2_identity(config: Config, model: MPTRec, task_name: str) -> dict[str, Any]:
    """What stage 2 trains on top of a model, as plain data, beyond training and rows."""
    identity = {
        "base": model.fingerprint(),
        "task": dump(config.spec.task(task_name)),
        "module": dump(config.stage2.module),
    }
    dtype = config.stage2.cache_dtype
    return identity if dtype is None else identity | {"cache_dtype": dtype}


def _read(
    config: Config,
    sources: Sources,
    encoder: FeatureEncoder,
    tasks: tuple[Task, ...],
    progress: bool,
) -> StageData:
    def rows(source: Source, training: bool) -> EncodedRows:
        if config.data.stream:
            return RowsInFiles(source, encoder, tasks, training=training)
        arrays = encode_rows(source, encoder, tasks, training=training, progress=progress)
        return RowsInMemory(arrays)

    return StageData(encoder, tasks, rows(sources.train, True), rows(sources.validation, False))


def _alone(directory: pathlib.Path, model: MPTRec) -> contextlib.AbstractContextManager[None]:
    """Refuses a second training in a directory; of several workers the chief does, which writes."""
    chief = is_chief(model.distribute_strategy)
    return only_one(directory) if chief else contextlib.nullcontext()
