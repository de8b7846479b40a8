"""A run of a pipeline on this machine: from a configuration to a pushed version, or why not."""

import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tfx import v1 as tfx

import mptrec_tf
from mptrec_tf.config import Config
from mptrec_tf.errors import PipelineError
from mptrec_tf.files import write_json
from mptrec_tf.spec.parsing import dump
from pipelines import pretrain, prompt_tune
from pipelines.base import Base, base_of, check_base, served_tasks, why_incomparable
from pipelines.metadata import Artifact, Store, connection, push_directory
from pipelines.reporting.report import write_report
from pipelines.reporting.verdict import refusals
from pipelines.runners import local
from pipelines.sources import check_sources, curated_schema, sources_of, state_of


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
        report: File of the report. Defaults to `None`: it could not be written.
    """

    version: int | None
    directory: str | None
    reasons: list[str]
    notes: list[str]
    result: local.RunResult
    report: str | None = None


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
        PipelineError: If the output or `pipeline.push_to` is remote.
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
            record.values |= _baseline(config, last[-1].model)
    served = record.values.get("baseline_tasks", [])
    pipeline = pretrain.create_pipeline(
        config,
        sources=sources,
        root=place.root,
        push_to=place.push_to,
        metadata=place.connection,
        schema=curated_schema(config),
        baseline=record.values.get("baseline"),
        baseline_tasks=served,
        seed=seed,
        span=span,
    )
    lost = set(served) - set(config.stage1.tasks)
    notes = [*record.values.get("notes", [])]
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
        PipelineError: If there is no base model yet, its parts do not belong together, or the
            output or `pipeline.push_to` is remote.
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


def _baseline(config: Config, model: Artifact) -> dict[str, Any]:
    """What to compare with, if it can be: the model that was pushed last, and its tasks."""
    why = why_incomparable(config, model)
    if why is None:
        return {"baseline": model.uri, "baseline_tasks": served_tasks(model)}
    if all(threshold.worse_by is None for threshold in config.pipeline.thresholds):
        return {}
    return {"notes": [f"worse_by was not applied: the version before {why}"]}


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
        record = {**self.values, "key": self.key, "version": version, "directory": directory}
        write_json(self.file, record, indent=1)


class _Place:
    """The output directory of a configuration."""

    def __init__(self, config: Config, output: str | os.PathLike[str], stage: str) -> None:
        if "://" in os.fspath(output):
            raise PipelineError(
                f"{output}: the output of a run is a directory of this machine; for artifacts in "
                "remote storage, compile the pipeline for Kubeflow or Vertex"
            )
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
            "sources": {split: state_of(path) for split, path in sources.items()},
            "seed": seed,
            "span": span,
            "base": base,
            "push_to": self.push_to,
            "version": mptrec_tf.__version__,
        }
        text = json.dumps(identity, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        file = pathlib.Path(self.directory, f"last-{self._config.pipeline.name}-{self._stage}.json")
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
        outcome = self._outcome(result, record, notes)
        try:
            report = self._report(Store(self.connection), result.run_id, notes=notes)
        except Exception as error:  # the model is pushed: a page less is no failure
            missing = f"the report could not be written: {error}"
            return replace(outcome, notes=[*notes, missing])
        return replace(outcome, report=report)

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

    def _outcome(self, result: local.RunResult, record: _Record, notes: list[str]) -> Outcome:
        """What a run came to, its report aside; a push is noted down at once."""
        pushed = result.executions["Pusher"].outputs["pushed_model"][0].properties
        if pushed.get("pushed") == 1:
            version, directory = int(pushed["pushed_version"]), pushed["pushed_destination"]
            record.write(version, directory)
            return Outcome(version, directory, [], notes, result)
        evaluation = result.executions["Evaluator"].outputs["evaluation"][0].uri
        gate = result.executions.get("FrozenTaskGate")
        blessing = None if gate is None else gate.outputs["blessing"][0].uri
        reasons = refusals(evaluation, blessing)
        return Outcome(None, None, reasons, notes, result)
