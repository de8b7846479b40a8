"""One YAML for a whole run: data, features, tasks, stage 1, stage 2, tuning, pipelines."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, cast

import keras
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from mptrec_tf.errors import SpecError
from mptrec_tf.models.arguments import check_own_embeddings
from mptrec_tf.pipeline_config import METRICS, PipelineConfig
from mptrec_tf.spec import CategoricalFeature, DataSpec, Feature, Task
from mptrec_tf.spec.features import Strings
from mptrec_tf.spec.parsing import STRICT, dump, load_yaml, parse
from mptrec_tf.spec.space import Parameter


def _check_activation(name: str) -> str:
    try:
        keras.activations.get(name)
    except ValueError as error:
        raise ValueError("must be an activation of Keras, such as 'relu' or 'gelu'") from error
    return name


Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Units = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
Activation = Annotated[str, AfterValidator(_check_activation)]
Cache = Literal["auto", "memory", "disk"] | None
Stage = Literal["stage1", "stage2"]
Files = str | Annotated[tuple[str, ...], Field(strict=False)]


class Sources(NamedTuple):
    """Where the rows for training, validation and test are."""

    train: str | Sequence[str]
    validation: str | Sequence[str]
    test: str | Sequence[str] | None


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Where the rows are: a known data set, or files.

    Args:
        dataset: `"census-income"`, downloaded where needed. Defaults to `None`.
        train: File, files or glob pattern (CSV, TSV, Parquet, TFRecord) with the training rows.
        validation: The same for the rows that early stopping looks at. May only be left out where
            `pipeline.split` parts the rows of `train`.
        test: The same for the rows that are scored once, at the end. Defaults to `None`.
        stream: Whether to read the files in every epoch instead of holding the encoded rows in
            memory. Defaults to `False`.
    """

    dataset: Literal["census-income"] | None = None
    train: Files | None = None
    validation: Files | None = None
    test: Files | None = None
    stream: bool = False

    @model_validator(mode="after")
    def _check_source(self) -> "DataConfig":
        files = [self.train, self.validation, self.test]
        if self.dataset is not None and any(part is not None for part in files):
            raise ValueError("give dataset, or train and validation, not both")
        if self.dataset is None and self.train is None:
            raise ValueError("give dataset, or train and validation")
        return self

    def sources(self) -> Sources:
        """The files; a known data set is downloaded first if it is not there yet."""
        if self.dataset is not None:
            from mptrec_tf.data import census_income

            return Sources(*map(str, census_income.get()))
        if self.validation is None:
            raise SpecError(
                "data.validation: needed here; only the pipelines part data.train themselves"
            )
        return Sources(cast(Files, self.train), self.validation, self.test)


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """How a stage is trained: AdamW, a linear warm-up and a cosine decay, early stopping.

    Args:
        epochs: Most epochs. Defaults to 12.
        batch_size: Rows in a batch. Defaults to 512.
        learning_rate: Highest learning rate. Defaults to 2e-3.
        warmup: Fraction of the steps in which the rate grows from 0. Defaults to 0.1.
        weight_decay: Of AdamW. Defaults to 0.004.
        embedding_optimizer: What trains the embedding tables: `"adam"` (default), AdamW as for all
            other weights; `"lazy_adam"` or `"adagrad"`, which touch only the rows that a batch
            looks up, for large vocabularies; see `mptrec_tf.optimizers`. Weight decay, warm-up and
            decay of the rate are the same for all. Stage 2 trains no tables.
        embedding_learning_rate: Highest learning rate of the embedding tables. Defaults to `None`:
            as `learning_rate`. Adagrad usually wants more, such as 0.05.
        patience: Epochs without a better validation metric before training stops. Defaults to 4.
        monitor: Metric that early stopping watches, such as `"income_auc"`. Defaults to `None`: the
            mean AUC of the binary tasks, or the loss where none is binary.
        balancing: How much each task counts: `"uncertainty"`, `"gradnorm"`, `"pcgrad"` or `"famo"`,
            see `mptrec_tf.balancing`. Defaults to `None`: each task's `loss_weight`. Has no effect
            in stage 2, which trains one task.
        jit_compile: Whether to compile with XLA. Defaults to `True`.
        steps_per_execution: Steps in one call of the graph. Defaults to 32.
    """

    epochs: Positive = 12
    batch_size: Positive = 512
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    warmup: Rate = 0.1
    weight_decay: NotNegative = 0.004
    embedding_optimizer: Literal["adam", "lazy_adam", "adagrad"] = "adam"
    embedding_learning_rate: Annotated[float, Field(gt=0)] | None = None
    patience: Positive = 4
    monitor: str | None = None
    balancing: Literal["uncertainty", "gradnorm", "pcgrad", "famo"] | None = None
    jit_compile: bool = True
    steps_per_execution: Positive = 32


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The arguments of `MPTRec`, with its meanings and defaults, except the dropout rates.

    Args:
        expert_dropout: Defaults to 0.3.
        tower_dropout: Defaults to 0.1.
    """

    embedding_dim: Positive = 8
    expert_units: Units = (256, 128)
    tower_units: Units = (64, 32)
    activation: Activation = "relu"
    expert_dropout: Rate = 0.3
    tower_dropout: Rate = 0.1
    generic_weight: NotNegative = 0.2
    adversarial: Literal["representations", "assigned", "periodic"] | None = "representations"
    adversarial_weight: NotNegative = 0.1
    l2_embedding: NotNegative = 0.0
    l2: NotNegative = 0.0


@dataclass(frozen=True, config=STRICT)
class ModuleConfig:
    """The arguments of `PromptModule`, with its meanings and defaults, except the dropout.

    Args:
        dropout: Defaults to 0.1.
    """

    attention: Literal["example", "embedding", "fixed"] = "example"
    representation: Literal["both", "specific", "shared"] = "both"
    query_units: Positive | None = None
    temperature: Annotated[float, Field(gt=0)] = 150.0
    input_projection: Annotated[int, Field(ge=0)] = 16
    embedding_dim: Annotated[int, Field(ge=0)] = 0
    embedding_features: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    tower_units: Units = (64, 32)
    dropout: Rate = 0.1
    l2: NotNegative = 0.0

    @model_validator(mode="after")
    def _check_embeddings(self) -> "ModuleConfig":
        check_own_embeddings(self.embedding_dim, self.input_projection, self.embedding_features)
        return self


@dataclass(frozen=True, config=STRICT)
class Stage1Config:
    """Stage 1: the tasks that are trained together.

    Args:
        tasks: Their names.
        model: The model.
        training: The training.
    """

    tasks: Annotated[Strings, Field(min_length=1)]
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()


@dataclass(frozen=True, config=STRICT)
class Stage2Config:
    """Stage 2: how each new task is added.

    Args:
        module: The prompt module.
        training: The training.
        cache: Where the representations that the frozen part gives are kept, so that they are
            computed once and not in every epoch: `"memory"`; `"disk"`, in files beside the state of
            the training; `None`, nowhere; or `"auto"` (default), in memory where they take at most
            a quarter of it, else in files where they take at most half of what is free, else
            nowhere. A row takes 4 bytes (2 in half precision) times the width of the input and of
            all experts' outputs, and 4 for each of its category ids. What is learned is the same up
            to rounding.
        cache_dtype: `"float16"` keeps them in half precision. Defaults to `None`, the model's own.
    """

    module: ModuleConfig = ModuleConfig()
    training: TrainingConfig = TrainingConfig()
    cache: Cache = "auto"
    cache_dtype: Literal["float16"] | None = None


def _check_space(settings: tuple[type, ...], space: dict[str, Parameter]) -> dict[str, Parameter]:
    """Refuses a key that is no setting of a stage, and a value that its setting does not allow."""
    owners = {field.name: cls for cls in settings for field in dataclasses.fields(cls)}
    del owners["monitor"]  # trials that watch different metrics cannot be compared
    owners.pop("embedding_features", None)  # a choice between features, not between numbers
    for key, parameter in space.items():
        if key not in owners:
            raise ValueError(f"{key!r} cannot be tuned; what can be is {sorted(owners)}")
        for value in parameter.extremes:
            try:
                owners[key](**{key: value})
            except ValidationError as error:
                allowed = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"{key!r} cannot be {value!r}: {allowed}") from error
    return space


def _space_of(*settings: type) -> AfterValidator:
    return AfterValidator(functools.partial(_check_space, settings))


@dataclass(frozen=True, config=STRICT)
class TunerConfig:
    """What `mptrec_tf.tuning` may try.

    Args:
        trials: Most trials of a search. Defaults to 20.
        stage1: By name of a setting of `ModelConfig` or `TrainingConfig`: what may be tried for it.
            All but `monitor` can be tuned. Defaults to nothing.
        stage2: The same for `ModuleConfig`, less `embedding_features`, or `TrainingConfig`.
            Defaults to nothing.

    Example:

    ```yaml
    tuner:
      trials: 20
      stage1:
        learning_rate: {kind: float, min: 1e-4, max: 1e-2, log: true}
        embedding_dim: {kind: int, min: 4, max: 16}
        expert_units: {kind: choice, values: [[256, 128], [128, 64]]}
    ```
    """

    trials: Positive = 20
    stage1: Annotated[dict[str, Parameter], _space_of(ModelConfig, TrainingConfig)] = Field(
        default_factory=dict
    )
    stage2: Annotated[dict[str, Parameter], _space_of(ModuleConfig, TrainingConfig)] = Field(
        default_factory=dict
    )


@dataclass(frozen=True, config=STRICT)
class Config:
    """Everything that a run needs.

    Args:
        data: Where the rows are.
        features: The features.
        tasks: The tasks of both stages.
        stage1: What is trained first.
        stage2: How new tasks are added.
        tuner: What tuning may try.
        pipeline: What the TFX pipelines need beyond that.

    Example:

    ```yaml
    data: {train: train.parquet, validation: validation.parquet}
    features:
      - {kind: numeric, name: age}
      - {kind: categorical, name: city}
    tasks:
      - {name: click, label: click}
      - {name: like, label: like}
    stage1: {tasks: [click]}
    ```
    """

    data: DataConfig
    features: Annotated[tuple[Feature, ...], Field(strict=False, min_length=1)]
    tasks: Annotated[tuple[Task, ...], Field(strict=False, min_length=1)]
    stage1: Stage1Config
    stage2: Stage2Config = Stage2Config()
    tuner: TunerConfig = TunerConfig()
    pipeline: PipelineConfig = PipelineConfig()

    @model_validator(mode="after")
    def _check_tasks(self) -> "Config":
        self.spec.with_tasks(*self.stage1.tasks)
        for threshold in self.pipeline.thresholds:
            task = self.spec.task(threshold.task)
            if threshold.metric not in METRICS[task.kind]:
                raise ValueError(
                    f"pipeline.thresholds: the {task.kind} task {task.name!r} has no metric "
                    f"{threshold.metric!r}; it has {list(METRICS[task.kind])}"
                )
        return self

    @model_validator(mode="after")
    def _check_module(self) -> "Config":
        module, space = self.stage2.module, self.tuner.stage2
        categorical = [f.name for f in self.features if isinstance(f, CategoricalFeature)]
        for name in module.embedding_features or ():
            if name not in categorical:
                raise ValueError(
                    f"stage2.module.embedding_features: {name!r} is none of the categorical "
                    f"features {categorical}"
                )
        dims, widths = (
            space[key].extremes if key in space else [getattr(module, key)]
            for key in ("embedding_dim", "input_projection")
        )
        for dim, width in itertools.product(dims, widths):
            try:
                check_own_embeddings(dim, width, module.embedding_features)
            except ValueError as error:
                raise ValueError(f"tuner.stage2: {error}") from error
        return self

    @model_validator(mode="after")
    def _check_parts(self) -> "Config":
        parted = self.data.dataset is not None or self.data.validation is not None
        if parted == (self.pipeline.split is not None):
            raise ValueError(
                "give data.validation, or pipeline.split to part the rows of data.train, not both"
                if parted
                else "give data.validation, or pipeline.split to part the rows of data.train"
            )
        if self.pipeline.split is not None and self.data.test is not None:
            raise ValueError(
                "data.test: pipeline.split parts the rows of data.train into test rows too; give "
                "data.validation and data.test, or pipeline.split, not both"
            )
        return self

    @property
    def spec(self) -> DataSpec:
        """The features and tasks."""
        return DataSpec(self.features, self.tasks)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> "Config":
        """Reads a configuration.

        Raises:
            SpecError: If anything does not fit; every problem is named with its key and value.
        """
        return parse(cls, load_yaml(path), str(path))


def parts_of(config: Config, stage: Stage) -> dict[str, Any]:
    """The parts of a stage whose settings can be tuned: its model or module, and its training."""
    names = ("model", "training") if stage == "stage1" else ("module", "training")
    return {name: getattr(getattr(config, stage), name) for name in names}


def with_settings(config: Config, stage: Stage, values: Mapping[str, Any]) -> Config:
    """A configuration with other settings of a stage's model or module and of its training.

    Args:
        config: The configuration.
        stage: `"stage1"` or `"stage2"`.
        values: By name of the setting.

    Raises:
        SpecError: If a value is not one that its setting allows.
    """
    part = getattr(config, stage)
    plain = dump(part)
    for name, settings in parts_of(config, stage).items():
        known = {field.name for field in dataclasses.fields(settings)}
        plain[name] = dump(settings) | {k: v for k, v in values.items() if k in known}
    chosen = parse(type(part), plain, f"the chosen settings of {stage}")
    return dataclasses.replace(config, **{stage: chosen})
