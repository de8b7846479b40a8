"""A run of a pipeline on this machine: from a configuration to a pushed version, or why not."""

import glob
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tfx import v1 as tfx

import mptrec_tf
from mptrec_tf.config import Config
from mptrec_tf.data import check_same_features, read_chunks
from mptrec_tf.data.readers import expand_paths
from mptrec_tf.errors import PipelineError
from mptrec_tf.models import load_model
from mptrec_tf.serving import Manifest
from mptrec_tf.spec import CategoricalFeature, Task
from mptrec_tf.spec.parsing import dump
from pipelines import pretrain, prompt_tune
from pipelines.example_gen import choose_span, find_files, local_copy
from pipelines.examples import TEST, TRAIN, VALIDATION
from pipelines.metadata import Artifact, Execution, Store, connection, push_directory
from pipelines.preprocessing import read_encoder
from pipelines.prompt_tune import Base
from pipelines.report import write_report
from pipelines.runners import local
from pipelines.schema import check_schema_file
from pipelines.trainer import base_model_file, check_graph
from pipelines.verdict import refusals

SERVING_DIRECTORY = "Format-Serving"


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Args:
        version: The version that serves the model, pushed by this run or, where nothing has
            changed, by an earlier one; `None` if it was refused.
        directory: Where it is served from.
        reasons: Why it was refused.
        notes: What one should know before serving it.
        result: What the components did.
        report: File of the report, `None` if it could not be written.
    """

    version: int | None
    directory: str | None
    reasons: list[str]
    notes: list[str]
    result: local.RunResult
    report: str | None


def run_pretrain(
    config: Config,
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    span: int | None = None,
    progress: bool = True,
) -> Outcome:
    """Runs the pipeline of stage 1.

    A run that was cut off goes on with what was finished; one in which nothing has changed since
    the last push does nothing anew.

    Args:
        config: The configuration.
        output: Directory of artifacts, metadata, logs, and (unless `pipeline.push_to` says
            otherwise) served versions.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        span: The span of the data. Defaults to `None`: the latest.
        progress: Whether to show the progress on stderr. Defaults to `True`.

    Raises:
        PipelineError: If `pipeline.push_to` is remote.
        MPTRecError: If a component fails; the message names it and the cause.
    """
    place = _Place(config, output, pretrain.NAME)
    sources = sources_of(config)
    tasks = config.spec.with_tasks(*config.stage1.tasks).tasks
    chosen = check_sources(config, sources, tasks, span)
    record = place.record(chosen, seed, span)
    store = place.store()
    if not record.same and store is not None:
        last = store.pushed_models(place.push_to)
        if last:
            record.values["baseline"] = last[-1].model.uri
            record.values["baseline_tasks"] = _served_tasks(last[-1].model)
    pipeline = pretrain.create_pipeline(
        config,
        sources=sources,
        root=place.root,
        push_to=place.push_to,
        metadata=place.connection,
        schema=curated_schema(config),
        baseline=record.values.get("baseline"),
        baseline_tasks=[
            name for name in record.values.get("baseline_tasks", []) if name in config.stage1.tasks
        ],
        seed=seed,
        span=span,
    )
    lost = set(record.values.get("baseline_tasks", [])) - set(config.stage1.tasks)
    notes = []
    if lost:
        notes.append(
            f"the version before also served {sorted(lost)}: run prompt_tune for each of them "
            "before this one is promoted"
        )
    return place.run(pipeline, record, notes, progress)


def run_prompt_tune(
    config: Config,
    task: str,
    output: str | os.PathLike[str],
    *,
    base: str | None = None,
    seed: int = 0,
    span: int | None = None,
    progress: bool = True,
) -> Outcome:
    """Runs the pipeline of a new task.

    Args:
        config: The configuration.
        task: Name of the new task.
        output: The directory of the run of stage 1.
        base: The model to build on: a version, `id:` and the number of an artifact, or a URI.
            Defaults to `None`: what was pushed last.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        span: The span of the data. Defaults to `None`: the latest.
        progress: Whether to show the progress on stderr. Defaults to `True`.

    Raises:
        PipelineError: If there is no base model yet, its parts do not belong together, or
            `pipeline.push_to` is remote.
        SpecError: If there is no such task, or the base was made from another spec.
        MPTRecError: If a component fails; the message names it and the cause.
    """
    new = config.spec.task(task)
    if task == pretrain.NAME:
        raise PipelineError(f"a task of stage 2 cannot be called {task!r}, as stage 1 is")
    place = _Place(config, output, task)
    sources = sources_of(config)
    chosen = check_sources(config, sources, (new,), span)
    record = place.record(chosen, seed, span, base)
    if not record.same:
        store = place.store()
        if store is None:
            raise PipelineError(
                f"{place.directory}: no base model yet; run the stage pretrain there first"
            )
        model = (
            store.last_pushed(place.push_to).model
            if base is None
            else store.find_model(base, place.push_to)
        )
        found = base_of(store, model)
        record.values["base"] = found._asdict()
        record.values["labelled_tasks"] = check_base(config, task, found, chosen)
    pipeline = prompt_tune.create_pipeline(
        config,
        task,
        Base(**record.values["base"]),
        sources=sources,
        labelled_tasks=record.values["labelled_tasks"],
        root=place.root,
        push_to=place.push_to,
        metadata=place.connection,
        seed=seed,
        span=span,
        base_is_pinned=base is not None,
    )
    return place.run(pipeline, record, [], progress)


def sources_of(config: Config) -> dict[str, str]:
    """Path or glob pattern of the raw rows by split.

    Raises:
        PipelineError: If a part is missing or is more than one path or pattern.
    """
    if config.data.dataset is not None:
        paths = dict(zip((TRAIN, VALIDATION, TEST), config.data.sources(), strict=True))
    else:
        paths = {TRAIN: config.data.train}
        if config.pipeline.split is None:
            paths |= {VALIDATION: config.data.validation, TEST: config.data.test}
    sources = {}
    for split, path in paths.items():
        if isinstance(path, tuple) and len(path) == 1:
            (path,) = path
        if not isinstance(path, str):
            raise PipelineError(
                f"data.{split}: the pipelines need one path or glob pattern, got "
                f"{'nothing' if path is None else list(path)}"
            )
        sources[split] = path if "://" in path else os.path.abspath(path)
    return sources


def check_sources(
    config: Config, sources: Mapping[str, str], tasks: Sequence[Task], span: int | None = None
) -> dict[str, str]:
    """Refuses files that are not there, or lack a column, before any work is done.

    The first file of each pattern is looked at, unless it is in a remote file system.

    Args:
        config: The configuration.
        sources: What `sources_of` gives.
        tasks: The tasks whose labels are read.
        span: The span of the data. Defaults to `None`: the latest.

    Returns:
        The sources, the span filled in.

    Raises:
        DataError: Names the file and the column, or the span.
    """
    chosen = choose_span(sources, span)
    others = [*config.pipeline.slice_columns]
    if config.pipeline.split is not None:
        others.append(config.pipeline.split.column)
    for path in chosen.values():
        if "://" not in path:
            first = expand_paths(path)[0]
            next(read_chunks(first, [*config.features, *map(CategoricalFeature, others)], tasks))
    return chosen


def curated_schema(config: Config) -> str | None:
    """Text of the curated schema, if the configuration names one.

    Raises:
        PipelineError: If it cannot be read, or does not know a feature.
    """
    file = config.pipeline.schema
    return None if file is None else check_schema_file(file, config.features, config.stage1.tasks)


def base_of(store: Store, model: Artifact) -> Base:
    """What a model was made with, followed upward in ML Metadata.

    Raises:
        PipelineError: If the model was not made by these pipelines.
    """
    trainer = store.producers(model)[0]
    graph, schema = _input(trainer, "transform_graph"), _input(trainer, "schema")
    transform = store.producers(graph)[0]
    (statistics,) = [
        execution.outputs["statistics"][0]
        for execution in store.consumers(_input(transform, "examples"))
        if execution.component == "StatisticsGen" and execution.outputs.get("statistics")
    ][-1:]
    return Base(model.uri, graph.uri, schema.uri, statistics.uri)


def check_base(config: Config, task: str, base: Base, sources: Mapping[str, str]) -> list[str]:
    """Refuses a base that cannot get the task.

    Args:
        config: The configuration.
        task: The new task.
        base: The base.
        sources: The rows of the new task, as `check_sources` gives them.

    Returns:
        The base's tasks whose labels these rows have.

    Raises:
        SpecError: If the base was made from other features, or a task is defined otherwise.
        PipelineError: If the graph does not belong to the model, or the task is there already.
    """
    model = load_model(base_model_file(os.path.join(base.model, SERVING_DIRECTORY)))
    check_same_features(model.encoder, config.spec, base.model)
    check_graph(model, read_encoder(base.transform_graph), base.transform_graph)
    names = [known.name for known in model.tasks]
    if task in names:
        raise PipelineError(
            f"the base {base.model} already has the task {task!r}; to train it anew, choose an "
            "older base"
        )
    ours = {known.name: known for known in config.tasks}
    for known in model.tasks:
        if known.name not in ours:
            raise PipelineError(f"tasks: the base has a task {known.name!r}, which is not in them")
        if ours[known.name] != known:
            raise PipelineError(
                f"tasks: {known.name!r} is {dump(known)} in the base and "
                f"{dump(ours[known.name])} in the configuration"
            )
    columns = []
    for path in sources.values():
        with local_copy(find_files(path)[0]) as file:
            columns.append(set(next(read_chunks(file)).table.column_names))
    return [
        known.name for known in model.tasks if all(set(known.columns) <= found for found in columns)
    ]


@dataclass
class _Record:
    """What the last run of a pipeline that pushed was given, kept beside its metadata.

    A run with the same key is given the same base and baseline again, so that all of it is found
    in the cache: the newest version would be its own.
    """

    file: pathlib.Path
    key: str
    same: bool
    values: dict[str, Any]

    def write(self, version: int, directory: str) -> None:
        text = json.dumps(
            {**self.values, "key": self.key, "version": version, "directory": directory}, indent=1
        )
        partial = self.file.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self.file)


class _Place:
    """The output directory of a configuration."""

    def __init__(self, config: Config, output: str | os.PathLike[str], stage: str) -> None:
        self.directory = os.path.abspath(output)
        self.root = os.path.join(self.directory, "artifacts")
        self.push_to = push_directory(config.pipeline, self.directory)
        if "://" in self.push_to:
            raise PipelineError(
                f"pipeline.push_to: {self.push_to} is remote; a version is published by renaming a "
                "directory, so give one of this machine and copy the version from there"
            )
        self.log_file = os.path.join(self.directory, "logs", f"{stage}.log")
        self.connection = connection(config.pipeline, self.directory)
        self._config, self._stage = config, stage
        os.makedirs(self.directory, exist_ok=True)

    def store(self) -> Store | None:
        """ML Metadata, or `None` if there is nothing yet."""
        sqlite = self.connection.HasField("sqlite")
        if sqlite and not os.path.exists(self.connection.sqlite.filename_uri):
            return None
        return Store(self.connection)

    def record(
        self, sources: Mapping[str, str], seed: int, span: int | None, base: str | None = None
    ) -> _Record:
        identity = {
            "config": dump(self._config),
            "sources": {split: _files(path) for split, path in sources.items()},
            "seed": seed,
            "span": span,
            "base": base,
            "push_to": self.push_to,
            "version": mptrec_tf.__version__,
        }
        text = json.dumps(identity, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        file = pathlib.Path(self.directory, f"last-{self._stage}.json")
        last = json.loads(file.read_text()) if file.is_file() else {}
        same = last.get("key") == key and os.path.isdir(last["directory"])
        return _Record(file, key, same, last if same else {})

    def run(
        self, pipeline: tfx.dsl.Pipeline, record: _Record, notes: list[str], progress: bool
    ) -> Outcome:
        """Runs a pipeline and writes its report, also of a run that failed."""
        begun = datetime.now().astimezone()
        try:
            result = local.run(
                pipeline, log_file=self.log_file, progress=progress, directory=self.directory
            )
        except Exception as error:
            name = pipeline.pipeline_info.pipeline_name
            self._report_failure(name, begun, str(error))
            raise
        try:
            report = self._report(Store(self.connection), result.run_id, notes=notes)
        except Exception as error:  # the model is pushed: a page less is no failure
            report = None
            notes = [*notes, f"the report could not be written: {error}"]
        return self._finish(result, record, notes, report)

    def _report_failure(self, pipeline: str, begun: datetime, cause: str) -> None:
        try:
            store = Store(self.connection)
            for run in store.runs():
                if run.pipeline == pipeline and run.started >= begun:
                    self._report(store, run.run_id, cause=cause)
        except Exception:  # it must not hide what stopped the run
            logging.getLogger(__name__).exception("the report could not be written")

    def _report(
        self, store: Store, run_id: str, cause: str | None = None, notes: Sequence[str] = ()
    ) -> str:
        (name,) = {execution.pipeline for execution in store.executions_of_run(run_id)}
        file = os.path.join(self.directory, "reports", f"{name}-{run_id.replace(':', '')}.html")
        write_report(store, run_id, file, cause=cause, outcome_notes=notes)
        return file

    def _finish(
        self, result: local.RunResult, record: _Record, notes: list[str], report: str | None
    ) -> Outcome:
        pushed = result.executions["Pusher"].outputs["pushed_model"][0].properties
        if pushed.get("pushed") == 1:
            version, directory = int(pushed["pushed_version"]), pushed["pushed_destination"]
            record.write(version, directory)
            return Outcome(version, directory, [], notes, result, report)
        evaluation = result.executions["Evaluator"].outputs["evaluation"][0].uri
        gate = result.executions.get("FrozenTaskGate")
        blessing = None if gate is None else gate.outputs["blessing"][0].uri
        reasons = refusals(evaluation, blessing)
        return Outcome(None, None, reasons, notes, result, report)


def _input(execution: Execution, key: str) -> Artifact:
    if key not in execution.inputs:
        raise PipelineError(
            f"{execution.component} of {execution.pipeline} was not given {key}: the model was "
            "not made by these pipelines"
        )
    return execution.inputs[key][0]


def _served_tasks(model: Artifact) -> list[str]:
    manifest = Manifest.read(pathlib.Path(model.uri, SERVING_DIRECTORY))
    return [*manifest.stage1_tasks, *manifest.added_tasks]


def _files(pattern: str) -> list[Any]:
    """The files of a pattern, with what changes when their content does."""
    if "://" in pattern:
        return [pattern]
    found = []
    for file in sorted(glob.glob(pattern)):
        status = os.stat(file)
        found.append([file, status.st_size, status.st_mtime_ns])
    return found
