"""What KerasTuner tunes: stage 1, or the prompt module of stage 2."""

import abc
import os
import pathlib
from typing import Any

import keras_tuner

from mptrec_tf.config import Config, Stage, Stage1Config, Stage2Config
from mptrec_tf.models import MPTRec, load_model
from mptrec_tf.spec.parsing import dump
from mptrec_tf.training.fitting import (
    CACHE,
    Objective,
    StageData,
    fit_stage,
    objective_of,
    with_cache,
)
from mptrec_tf.training.stages import add_module, stage1_identity, stage1_model, stage2_identity
from mptrec_tf.tuning.hyperparameters import (
    hyperparameter_values,
    space_of,
    with_hyperparameters,
)


class StageHyperModel(keras_tuner.HyperModel, abc.ABC):
    """A stage with the settings that a trial is to try; trained as a run trains it.

    Args:
        config: The configuration; `config.tuner` declares what may be tried.
        data: The rows, encoded once for all trials.
        seed: Seed of weights, dropout and shuffle, the same in every trial. Defaults to 0.

    Raises:
        SpecError: If no search space is declared for the stage, or the tasks lack the metric that
            early stopping is to watch.

    Example:

    ```python
    hypermodel = Stage1HyperModel(config, stage1_data(config, config.data.sources()))
    hp = keras_tuner.HyperParameters()  # the configuration's own values
    hypermodel.fit(hp, hypermodel.build(hp), directory="runs/trial")["val_mean_auc"]
    ```
    """

    stage: Stage

    def __init__(self, config: Config, data: StageData, seed: int = 0) -> None:
        super().__init__()
        self.space = space_of(config, self.stage)
        self.config = config
        self.data = data
        self.seed = seed
        self.objective: Objective = objective_of(self._settings(config).training, data.tasks)

    @property
    def identity(self) -> dict[str, Any]:
        """What is searched, as plain data."""
        return {
            **self._identity(),
            "training": dump(self._settings(self.config).training),
            "space": dump(self.space),
            "seed": self.seed,
            **self.data.identity,
        }

    def values(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """The settings that a trial tries, by name."""
        return hyperparameter_values(hp, self.config, self.stage)

    def configure(self, hp: keras_tuner.HyperParameters) -> Config:
        """The configuration of a trial."""
        return with_hyperparameters(self.config, self.stage, hp)

    def build(self, hp: keras_tuner.HyperParameters) -> MPTRec:
        """The model of a trial; `fit` compiles it."""
        return self._model(self.configure(hp))

    def prepare(self, model: MPTRec, directory: str | os.PathLike[str]) -> None:
        """Computes what trials share, once for all that follow. For stage 1 there is nothing.

        Args:
            model: What `build` gave for any of them.
            directory: Where files that a search keeps are.
        """

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: MPTRec,
        *,
        directory: str | os.PathLike[str],
        verbose: int | str = 0,
    ) -> dict[str, float]:
        """Trains a trial with early stopping; goes on where an earlier call was cut off.

        Args:
            hp: The hyper-parameters of the trial.
            model: What `build` gave for them.
            directory: Where the state of the training is kept.
            verbose: As in `keras.Model.fit`. Defaults to 0.

        Returns:
            The validation metrics of the best epoch, the number of `"epochs"`, the `"seconds"`.
        """
        trained = fit_stage(
            model,
            self._settings(self.configure(hp)).training,
            self.data,
            directory,
            identity={"trial": self.values(hp)},
            cache=self.config.stage2.cache,
            cache_dtype=self.config.stage2.cache_dtype,
            seed=self.seed,
            verbose=verbose,
        )
        best = trained.epochs[trained.best_epoch]
        return {
            **{name: value for name, value in best.items() if name.startswith("val_")},
            "epochs": len(trained.epochs),
            "seconds": trained.seconds,
        }

    def _settings(self, config: Config) -> Stage1Config | Stage2Config:
        return getattr(config, self.stage)

    @abc.abstractmethod
    def _identity(self) -> dict[str, Any]:
        """What the stage trains, beyond training and rows."""

    @abc.abstractmethod
    def _model(self, config: Config) -> MPTRec:
        """A new model for a trial."""


class Stage1HyperModel(StageHyperModel):
    """Stage 1: the settings of `ModelConfig` and `TrainingConfig`; see `StageHyperModel`.

    Example:

    ```python
    config = Config.from_yaml("config.yaml")
    hypermodel = Stage1HyperModel(config, stage1_data(config, config.data.sources()))
    ```
    """

    stage = "stage1"

    def _identity(self) -> dict[str, Any]:
        return stage1_identity(self.config)

    def _model(self, config: Config) -> MPTRec:
        return stage1_model(config, self.data.encoder, self.seed)


class Stage2HyperModel(StageHyperModel):
    """Stage 2: the settings of `ModuleConfig` and `TrainingConfig` for a new task.

    Args:
        config: The configuration; `config.tuner.stage2` declares what may be tried.
        model_file: The `.keras` file of the model that is to get the task; every trial begins with
            what it holds.
        task_name: The new task.
        data: The rows, encoded once for all trials.
        seed: Seed of weights, dropout and shuffle, the same in every trial. Defaults to 0.

    Raises:
        SpecError: As for `StageHyperModel`.
        ModelError: If the file holds no model.

    Example:

    ```python
    data = stage2_data(config, load_model("stage1.keras"), "education", config.data.sources())
    hypermodel = Stage2HyperModel(config, "stage1.keras", "education", data)
    ```
    """

    stage = "stage2"

    def __init__(
        self,
        config: Config,
        model_file: str | os.PathLike[str],
        task_name: str,
        data: StageData,
        seed: int = 0,
    ) -> None:
        super().__init__(config, data, seed)
        self.model_file = model_file
        self.task_name = task_name

    def _identity(self) -> dict[str, Any]:
        return stage2_identity(self.config, load_model(self.model_file), self.task_name)

    def prepare(self, model: MPTRec, directory: str | os.PathLike[str]) -> None:
        """Computes the representations that all modules read, as `config.stage2.cache` says.

        Args:
            model: What `build` gave for any trial.
            directory: Where files that a search keeps are.

        Raises:
            ModelError: If the directory holds the representations of something else.
        """
        stage2, files = self.config.stage2, pathlib.Path(directory, CACHE)
        self.data = with_cache(model, self.data, stage2.cache, files, stage2.cache_dtype)

    def _model(self, config: Config) -> MPTRec:
        model = load_model(self.model_file)
        add_module(config, model, self.task_name, self.seed)
        return model
