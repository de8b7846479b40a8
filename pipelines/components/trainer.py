"""What the Trainer runs: the library's own training and export, for both stages."""

import atexit
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras_tuner
import tensorflow as tf

from mptrec_tf.config import Config, Stage, Stage1Config, Stage2Config
from mptrec_tf.data import FeatureEncoder
from mptrec_tf.data.datasets import (
    EXAMPLE_ID,
    SHUFFLE_BUFFER,
    Rows,
    summarize,
    without_autotuning,
)
from mptrec_tf.data.encoded import RowsInMemory
from mptrec_tf.data.examples import COMPRESSION
from mptrec_tf.errors import PipelineError
from mptrec_tf.models import MPTRec, load_model, save_model
from mptrec_tf.models.objectives import QUALITIES
from mptrec_tf.models.parameters import count_parameters
from mptrec_tf.serving import write_version
from mptrec_tf.serving.manifest import plain_metrics
from mptrec_tf.spec import Task
from mptrec_tf.spec.parsing import dump, parse
from mptrec_tf.training.fitting import StageData, Trained, fit_stage
from mptrec_tf.training.stages import (
    add_module,
    stage1_identity,
    stage1_model,
    stage2_identity,
)
from mptrec_tf.tuning.hyperparameters import with_hyperparameters
from pipelines.components.preprocessing import read_encoder
from pipelines.examples import parse_encoded, read_records
from pipelines.files import local_copy, written_locally
from pipelines.layout import MODEL_FILE, TRAINING_FILE


@dataclasses.dataclass(frozen=True)
class StageRun:
    """What Trainer and Tuner are told, beside their artifacts.

    Args:
        config: The configuration.
        task: The new task, or `None` in stage 1.
        seed: Seed of weights, dropout and shuffle.
        state: Directory in which trainings and searches keep their state, so that one that was cut
            off goes on where it was.
    """

    config: Config
    task: str | None
    seed: int
    state: str

    @property
    def stage(self) -> Stage:
        """Name of the stage's section of the configuration."""
        return "stage1" if self.task is None else "stage2"

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for `custom_config`: what a training depends on and nothing else.

        So a change elsewhere, such as another task for later, trains nothing anew.
        """
        config = self.config
        names = [*config.stage1.tasks, *([self.task] if self.task else [])]
        plain = dump(config) | {
            "tasks": dump(config.spec.with_tasks(*names).tasks),
            "data": {"train": "", "validation": "", "stream": config.data.stream},
            "pipeline": {"name": config.pipeline.name},
        }
        tuner = plain.pop("tuner", {})
        if config.pipeline.tune:
            plain["tuner"] = {key: tuner[key] for key in ("trials", self.stage) if key in tuner}
        if self.task is None:
            plain.pop("stage2", None)
        return {
            "config": json.dumps(plain),
            "task": self.task or "",
            "seed": self.seed,
            "state": self.state,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "StageRun":
        """The inverse of `to_dict`."""
        config = parse(Config, json.loads(plain["config"]), "the configuration")
        return cls(config, plain["task"] or None, plain["seed"], plain["state"])

    def state_of(self, what: str, identity: Any) -> pathlib.Path:
        """Where the state of a training or a search is kept, the same in each try of it.

        Args:
            what: `"train"` or `"tune"`.
            identity: What tells it apart from others, as plain data.
        """
        key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
        root = self.state
        if "://" in root:  # it cannot be appended to and renamed in: there a try begins anew
            root = tempfile.mkdtemp()
            atexit.register(shutil.rmtree, root, ignore_errors=True)
        return pathlib.Path(root, f"{what}-{key.hexdigest()[:16]}")


class Prepared(NamedTuple):
    """What a stage begins with.

    Attributes:
        run: What is trained.
        data: The rows.
        base: The model that gets a task, with `base_file`; `None` in stage 1.
        base_file: Its file, on this machine.
    """

    run: StageRun
    data: StageData
    base: MPTRec | None
    base_file: str | None


def prepare(fn_args: Any) -> Prepared:
    """Reads what Trainer and Tuner are given.

    Args:
        fn_args: `tfx.v1.components.FnArgs`.

    Raises:
        PipelineError: If stage 2 has no base model, or the graph does not belong to it.
        SpecError: If the model was made from other features.
    """
    run = StageRun.from_dict(fn_args.custom_config)
    encoder = read_encoder(fn_args.transform_graph_path)
    config, base, base_file = run.config, None, None
    if run.task is None:
        tasks = config.spec.with_tasks(*config.stage1.tasks).tasks
    else:
        base_file = base_model_file(fn_args.base_model)
        base = load_model(base_file)
        check_graph(base, encoder, fn_args.transform_graph_path)
        tasks = (config.spec.task(run.task),)
    read = StreamedExamples if config.data.stream else _in_memory
    train, validation = (
        read(_files(patterns), encoder, tasks)
        for patterns in (fn_args.train_files, fn_args.eval_files)
    )
    return Prepared(run, StageData(encoder, tasks, train, validation), base, base_file)


def run_fn(fn_args: Any) -> None:
    """Trains a stage and writes the version that is served; see `tfx.v1.components.Trainer`.

    A training that was cut off goes on after its last finished epoch. Its state is removed when the
    model is written.

    Args:
        fn_args: `tfx.v1.components.FnArgs`.
    """
    prepared = prepare(fn_args)
    run, config = prepared.run, prepared.run.config
    if fn_args.hyperparameters:
        hyperparameters = keras_tuner.HyperParameters.from_config(fn_args.hyperparameters)
        config = with_hyperparameters(config, run.stage, hyperparameters)
    settings: Stage1Config | Stage2Config = getattr(config, run.stage)
    if prepared.base is None or run.task is None:
        model = stage1_model(config, prepared.data.encoder, run.seed)
        identity = stage1_identity(config)
    else:
        model = prepared.base
        identity = stage2_identity(config, model, run.task)
        add_module(config, model, run.task, run.seed)
    state = run.state_of("train", [identity, prepared.data.identity, dump(settings), run.seed])
    trained = fit_stage(
        model,
        settings.training,
        prepared.data,
        state,
        identity=identity,
        seed=run.seed,
        cache=config.stage2.cache,
        cache_dtype=config.stage2.cache_dtype,
        verbose=2,
    )
    write_model(trained, settings, fn_args.serving_model_dir, config.pipeline.name)
    remove_state(state)


def remove_state(state: pathlib.Path) -> None:
    """Removes the state of a training; where that is cut off, no half of it is gone on with.

    Args:
        state: Its directory.
    """
    removed = state.with_suffix(".removed")
    shutil.rmtree(removed, ignore_errors=True)
    state.rename(removed)
    shutil.rmtree(removed)


def write_model(trained: Trained, settings: Any, directory: str, name: str) -> None:
    """Writes the SavedModel that is served, and beside it the Keras model and its training.

    Args:
        trained: The trained model.
        settings: The stage's section of the configuration, as it was used.
        directory: Where to; it may be remote.
        name: Name that the model is served under.
    """
    best = trained.epochs[trained.best_epoch]
    metrics = {
        task.name: {
            kind: best[f"val_{task.name}_{kind}"] for kind in ("loss", QUALITIES[task.kind][0])
        }
        for task in trained.model.trained_tasks
    }
    write_version(trained.model, directory, name=name, metrics=metrics)
    with written_locally(os.path.join(directory, MODEL_FILE)) as file:
        save_model(trained.model, file)
    parameters = count_parameters(trained.model)
    training = {
        "settings": dump(settings),
        "best_epoch": trained.best_epoch,
        "epochs": plain_metrics(trained.epochs),
        "parameters": parameters.total,
        "trained_parameters": parameters.trained,
    }
    with tf.io.gfile.GFile(os.path.join(directory, TRAINING_FILE), "w") as opened:
        opened.write(json.dumps(training, indent=1, allow_nan=False))


def base_model_file(serving_model: str | None) -> str:
    """The Keras model beside a SavedModel, on this machine.

    Of a remote one, a copy that goes with the process: every trial of a search reads it.

    Args:
        serving_model: Directory of the SavedModel, as the Trainer is given it.

    Raises:
        PipelineError: If there is none.
    """
    if not serving_model:
        raise PipelineError("stage 2 was given no base model")
    file = os.path.join(serving_model, MODEL_FILE)
    if not tf.io.gfile.exists(file):
        raise PipelineError(f"{serving_model} has no {MODEL_FILE}: not a model of these pipelines")
    kept = contextlib.ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(local_copy(file))


def check_graph(model: MPTRec, encoder: FeatureEncoder, graph: str) -> None:
    """Refuses a Transform graph that encodes otherwise than a model expects.

    Raises:
        PipelineError: If it does.
    """
    if encoder.to_json() != model.encoder.to_json():
        raise PipelineError(
            f"{graph}: this Transform graph does not belong to the base model: it encodes rows "
            "otherwise than the model was trained with"
        )


def _files(patterns: Sequence[str]) -> list[str]:
    return [file for pattern in patterns for file in sorted(tf.io.gfile.glob(pattern))]


def _in_memory(
    files: Sequence[str], encoder: FeatureEncoder, tasks: Sequence[Task]
) -> RowsInMemory:
    batches = _batches(files, encoder, tasks)
    columns: list[list[tf.Tensor]] = [[] for _ in tf.nest.flatten(batches.element_spec)]
    for batch in batches:
        for column, part in zip(columns, tf.nest.flatten(batch), strict=True):
            column.append(part)
    whole = []
    for column in columns:  # a column's parts are let go before the next one is put together
        whole.append(tf.concat(column, axis=0))
        column.clear()
    return RowsInMemory(tf.nest.pack_sequence_as(batches.element_spec, whole))


def _batches(
    files: Sequence[str], encoder: FeatureEncoder, tasks: Sequence[Task]
) -> tf.data.Dataset:
    dataset = read_records(files).map(lambda batch: parse_encoded(batch, encoder, tasks))
    return dataset.prefetch(tf.data.AUTOTUNE)


class StreamedExamples:
    """Encoded examples that are read in every epoch; all are read once at first.

    Args:
        files: The files.
        encoder: The encoder that made them.
        tasks: The tasks whose labels are read.
    """

    def __init__(
        self, files: Sequence[str], encoder: FeatureEncoder, tasks: Sequence[Task]
    ) -> None:
        self._rows: Rows = summarize(_batches(files, encoder, tasks))
        self.digest = self._rows.digest
        self._files, self._encoder, self._tasks = list(files), encoder, tuple(tasks)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        with_example_ids: bool = False,
    ) -> tf.data.Dataset:
        """See `EncodedRows.batches`.

        Raises:
            ValueError: If the numbers of the rows are asked for.
        """
        if with_example_ids:
            raise ValueError(f"{EXAMPLE_ID} needs the rows in memory, not data.stream")
        records = tf.data.TFRecordDataset(self._files, COMPRESSION)
        if shuffle:
            records = records.shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=True)
        dataset = records.batch(batch_size).map(
            lambda batch: parse_encoded(batch, self._encoder, self._tasks),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        count = -(-self._rows.number // batch_size)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
        return without_autotuning(dataset.prefetch(tf.data.AUTOTUNE))
