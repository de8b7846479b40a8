"""What ML Metadata knows: how its store is reached, and the questions that are asked of it.

Needs ml-metadata, but neither TFX nor TensorFlow.
"""

import collections
import contextlib
import dataclasses
import json
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import ml_metadata
from ml_metadata.proto import metadata_store_pb2

from mptrec_tf.errors import PipelineError
from mptrec_tf.pipeline_config import PipelineConfig
from pipelines.runners.lock import Holder

FILE = "metadata.sqlite"
PORTS = {"mysql": 3306, "postgresql": 5432}
OUTPUTS = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
INPUTS = (metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.DECLARED_INPUT)
FINISHED = ("complete", "cached")


def connection(
    config: PipelineConfig, directory: str | os.PathLike[str]
) -> metadata_store_pb2.ConnectionConfig:
    """How ML Metadata is reached.

    Args:
        config: The section `pipeline`, of which `metadata` counts.
        directory: The output directory; without `metadata`, its `metadata.sqlite` is used.

    Returns:
        The connection, as TFX's pipelines take it.

    Raises:
        PipelineError: If the URL lacks its host or database.
    """
    result = metadata_store_pb2.ConnectionConfig()
    if config.metadata is None:
        result.sqlite.filename_uri = absolute(os.path.join(directory, FILE))
        result.sqlite.connection_mode = result.sqlite.READWRITE_OPENCREATE
        return result
    url = urllib.parse.urlsplit(config.metadata)
    database = url.path.removeprefix("/")
    if not url.hostname or not database:
        raise PipelineError(
            f"pipeline.metadata: should be {url.scheme}://USER:PASSWORD@HOST:PORT/DATABASE, has "
            f"the host {url.hostname!r} and the database {database!r}"
        )
    user, password = (urllib.parse.unquote(part or "") for part in (url.username, url.password))
    port = url.port or PORTS[url.scheme]
    if url.scheme == "mysql":
        result.mysql.host, result.mysql.port, result.mysql.database = url.hostname, port, database
        result.mysql.user, result.mysql.password = user, password
    else:
        server = result.postgresql
        server.host, server.port, server.dbname = url.hostname, str(port), database
        server.user, server.password = user, password
    return result


def push_directory(config: PipelineConfig, directory: str | os.PathLike[str]) -> str:
    """Directory of the served versions: `push_to`, or `serving/NAME` in the output directory."""
    return absolute(config.push_to or os.path.join(directory, "serving", config.name))


def absolute(uri: str) -> str:
    """A path from the root; the URI of a remote store as it is."""
    return uri.rstrip("/") if "://" in uri else os.path.abspath(uri)


@dataclass(frozen=True)
class Artifact:
    """Something that a component made.

    Args:
        id: Its number in the store.
        type: Such as `"Model"`.
        uri: Where it is.
        created: When it was made.
        properties: Everything else that is known of it.
    """

    id: int
    type: str
    uri: str
    created: datetime
    properties: dict[str, Any]


Artifacts = Mapping[str, tuple[Artifact, ...]]
"""By key."""


@dataclass(frozen=True)
class Execution:
    """One component in one run.

    Args:
        id: Its number in the store.
        component: Name of the component.
        pipeline: Name of the pipeline.
        run_id: The run.
        state: `"complete"`, `"cached"`, `"failed"`, `"running"`, `"interrupted"` or `"canceled"`.
        started: When it began.
        seconds: How long it took; `None` where it has not ended.
        properties: What it was called with.
        inputs: What it read.
        outputs: What it made, or found in the cache.
    """

    id: int
    component: str
    pipeline: str
    run_id: str
    state: str
    started: datetime
    seconds: float | None
    properties: dict[str, Any]
    inputs: Artifacts
    outputs: Artifacts


@dataclass(frozen=True)
class Run:
    """One run of a pipeline.

    Args:
        run_id: The run.
        pipeline: Name of the pipeline.
        executions: Its components, in the order in which they began.
    """

    run_id: str
    pipeline: str
    executions: tuple[Execution, ...]

    @property
    def started(self) -> datetime:
        """When it began."""
        return self.executions[0].started

    @property
    def state(self) -> str:
        """That of the component that stopped it, else `"running"` or `"complete"`.

        A run that was cut off between two components counts as complete.
        """
        states = [execution.state for execution in self.executions]
        return next((state for state in states if state not in FINISHED), "complete")

    @property
    def seconds(self) -> float:
        """From the first component's begin to the last end that is known."""
        ends = [e.started.timestamp() + (e.seconds or 0) for e in self.executions]
        return max(ends) - self.started.timestamp()


@dataclass(frozen=True)
class PushedModel:
    """A version that was blessed and handed over for serving.

    Args:
        version: Its number.
        directory: Where it is served from.
        pushed: When.
        pipeline: Name of the pipeline that pushed it.
        model: What the Trainer made.
        artifact: What the Pusher made.
    """

    version: int
    directory: str
    pushed: datetime
    pipeline: str
    model: Artifact
    artifact: Artifact

    @property
    def push_to(self) -> str:
        """Directory of the served versions."""
        return absolute(os.path.dirname(self.directory.rstrip("/")))


class Store:
    """Read-only questions to ML Metadata.

    Args:
        config: How it is reached, as `connection` gives it.

    Raises:
        PipelineError: If there is no SQLite file yet, or the server does not answer.
    """

    def __init__(self, config: metadata_store_pb2.ConnectionConfig):
        readonly = metadata_store_pb2.ConnectionConfig()
        readonly.CopyFrom(config)
        self.place = _place(config)
        if config.HasField("sqlite"):
            if not os.path.exists(self.place):
                raise PipelineError(f"{self.place}: not there; no pipeline has run yet")
            readonly.sqlite.connection_mode = readonly.sqlite.READONLY
        try:
            self._store = ml_metadata.MetadataStore(readonly)
        except Exception as error:
            raise PipelineError(f"{self.place}: cannot be opened: {error}") from error

    def runs(self, holder: Holder | None = None) -> list[Run]:
        """All runs, the oldest first.

        Args:
            holder: Who is at work now, as `lock.holder` tells. Whatever else has not ended was
                interrupted. Defaults to `None`: nobody.
        """
        contexts = self._store.get_contexts_by_type("pipeline_run")
        runs = [self._run(context, holder) for context in contexts]
        return sorted((run for run in runs if run is not None), key=lambda run: run.started)

    def executions_of_run(self, run_id: str) -> tuple[Execution, ...]:
        """The components of one run, in the order in which they began.

        Raises:
            PipelineError: If there is no such run.
        """
        context = self._store.get_context_by_type_and_name("pipeline_run", run_id)
        run = self._run(context, None) if context is not None else None
        if run is None:
            raise PipelineError(f"{self.place}: no run {run_id!r}")
        return run.executions

    def artifact(self, artifact_id: int) -> Artifact:
        """An artifact by its number.

        Raises:
            PipelineError: If there is none.
        """
        found = self._store.get_artifacts_by_id([artifact_id])
        if not found:
            raise PipelineError(f"{self.place}: no artifact with the id {artifact_id}")
        return _artifact(found[0])

    def model_by_id(self, artifact_id: int) -> Artifact:
        """A model by its number.

        Raises:
            PipelineError: If there is none, or the artifact is no model.
        """
        artifact = self.artifact(artifact_id)
        if artifact.type != "Model":
            raise PipelineError(
                f"{self.place}: the artifact {artifact_id} is no Model, but {artifact.type}"
            )
        return artifact

    def producers(self, artifact: Artifact) -> tuple[Execution, ...]:
        """The executions that gave an artifact, its maker first.

        Later ones found it in the cache or imported it.
        """
        return self._of_events(artifact, OUTPUTS)

    def consumers(self, artifact: Artifact) -> tuple[Execution, ...]:
        """The executions that read an artifact, the oldest first."""
        return self._of_events(artifact, INPUTS)

    def pushed_models(self, push_to: str | None = None) -> list[PushedModel]:
        """All versions that were pushed, the oldest first.

        Args:
            push_to: Directory of the served versions. Defaults to `None`: any.
        """
        pushed = []
        for found in self._store.get_artifacts_by_type("PushedModel"):
            artifact = _artifact(found)
            if artifact.properties.get("pushed") != 1:
                continue
            pusher = self.producers(artifact)[0]
            model = PushedModel(
                version=int(artifact.properties["pushed_version"]),
                directory=artifact.properties["pushed_destination"],
                pushed=artifact.created,
                pipeline=pusher.pipeline,
                model=pusher.inputs["model"][0],
                artifact=artifact,
            )
            if push_to is None or model.push_to == absolute(push_to):
                pushed.append(model)
        return sorted(pushed, key=lambda model: (model.pushed, model.artifact.id))

    def pushed_version(self, version: int, push_to: str | None = None) -> PushedModel:
        """A pushed version by its number.

        Args:
            version: The number.
            push_to: Directory of the served versions. Defaults to `None`: any.

        Raises:
            PipelineError: If it was not pushed, or to several directories.
        """
        models = self.pushed_models(push_to)
        found = [model for model in models if model.version == version]
        if not found:
            versions = sorted({model.version for model in models})
            raise PipelineError(
                f"{self.place}: no version {version} was pushed; "
                + (f"there are {versions}" if versions else "none has been pushed yet")
            )
        places = sorted({model.push_to for model in found})
        if len(places) > 1:
            raise PipelineError(
                f"{self.place}: a version {version} was pushed to each of {places}; "
                "give the configuration of the one that is meant"
            )
        return found[-1]

    def last_pushed(self, push_to: str) -> PushedModel:
        """The version that was pushed last, made sure to be there still.

        Args:
            push_to: Directory of the served versions.

        Raises:
            PipelineError: If none was pushed, or its files were deleted.
        """
        models = self.pushed_models(push_to)
        if not models:
            raise PipelineError(
                f"{self.place}: no model has been pushed to {push_to} yet; run the stage pretrain "
                "first"
            )
        last = models[-1]
        for uri in (last.directory, last.model.uri):
            if not is_there(uri):
                raise PipelineError(
                    f"version {last.version} was pushed last to {push_to}, but {uri} is not there "
                    "any more; bring it back, choose another base, or push a new version"
                )
        return last

    def find_model(self, reference: str, push_to: str) -> Artifact:
        """The model that a text stands for.

        Args:
            reference: The number of a pushed version such as `"3"`, `"id:"` with the number of a
                Model artifact, or the URI of one.
            push_to: Directory of the served versions, to which versions belong.

        Raises:
            PipelineError: If there is no such model, or its files were deleted.
        """
        if reference.isdecimal():
            model = self.pushed_version(int(reference), push_to).model
        elif reference.removeprefix("id:").isdecimal():
            model = self.model_by_id(int(reference.removeprefix("id:")))
        else:
            found = self._store.get_artifacts_by_uri(absolute(reference))
            models = [_artifact(artifact) for artifact in found if artifact.type == "Model"]
            if not models:
                raise PipelineError(
                    f"{reference}: no model of {self.place} is there; give the number of a pushed "
                    "version, id:NUMBER, or the URI of a Model artifact"
                )
            model = models[-1]
        if not is_there(model.uri):
            raise PipelineError(f"model {reference}: {model.uri} is not there any more")
        return model

    def _run(self, context: Any, holder: Holder | None) -> Run | None:
        executions = self._executions(self._store.get_executions_by_context(context.id))
        if not executions:  # cut off before its first component
            return None
        at_work = holder is not None and executions[0].started >= holder.since
        if not at_work:
            executions = [
                dataclasses.replace(e, state="interrupted") if e.state == "running" else e
                for e in executions
            ]
        return Run(context.name, executions[0].pipeline, tuple(executions))

    def _of_events(self, artifact: Artifact, types: Sequence[int]) -> tuple[Execution, ...]:
        events = self._store.get_events_by_artifact_ids([artifact.id])
        ids = {event.execution_id for event in events if event.type in types}
        return tuple(self._executions(self._store.get_executions_by_id(sorted(ids))))

    def _executions(self, found: Iterable[Any]) -> list[Execution]:
        by_id = {execution.id: execution for execution in found}
        events = self._store.get_events_by_execution_ids(sorted(by_id)) if by_id else []
        ids = sorted({event.artifact_id for event in events})
        artifacts = {a.id: _artifact(a) for a in self._store.get_artifacts_by_id(ids)}
        return sorted(
            (self._execution(execution, events, artifacts) for execution in by_id.values()),
            key=lambda execution: (execution.started, execution.id),
        )

    def _execution(
        self, found: Any, events: Iterable[Any], artifacts: Mapping[int, Artifact]
    ) -> Execution:
        names = {c.type: c.name for c in self._store.get_contexts_by_execution(found.id)}
        ours = [event for event in events if event.execution_id == found.id]
        state = metadata_store_pb2.Execution.State.Name(found.last_known_state).lower()
        ended = state not in ("new", "running")
        milliseconds = found.last_update_time_since_epoch - found.create_time_since_epoch
        return Execution(
            id=found.id,
            component=names["node"].removeprefix(f"{names['pipeline']}."),
            pipeline=names["pipeline"],
            run_id=names["pipeline_run"],
            state=state if ended else "running",
            started=_time(found.create_time_since_epoch),
            seconds=milliseconds / 1000 if ended else None,
            properties=_properties(found),
            inputs=_by_key(ours, INPUTS, artifacts),
            outputs=_by_key(ours, OUTPUTS, artifacts),
        )


def _by_key(
    events: Iterable[Any], types: Sequence[int], artifacts: Mapping[int, Artifact]
) -> Artifacts:
    result: dict[str, list[tuple[int, Artifact]]] = collections.defaultdict(list)
    for event in events:
        if event.type in types:
            key, index = (step for step in event.path.steps)
            result[key.key].append((index.index, artifacts[event.artifact_id]))
    return {
        key: tuple(artifact for _, artifact in sorted(pairs, key=lambda pair: pair[0]))
        for key, pairs in sorted(result.items())
    }


def _artifact(found: Any) -> Artifact:
    return Artifact(
        found.id, found.type, found.uri, _time(found.create_time_since_epoch), _properties(found)
    )


def _properties(found: Any) -> dict[str, Any]:
    """Both kinds of properties; texts of JSON as what they say."""
    result = {}
    for name, value in [*found.properties.items(), *found.custom_properties.items()]:
        plain = getattr(value, value.WhichOneof("value") or "string_value")
        if isinstance(plain, str) and plain[:1] in ("{", "["):
            with contextlib.suppress(ValueError):
                plain = json.loads(plain)
        result[name] = plain
    return dict(sorted(result.items()))


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000).astimezone()


def _place(config: metadata_store_pb2.ConnectionConfig) -> str:
    """Where the store is, without the password."""
    if config.HasField("mysql"):
        return f"mysql://{config.mysql.host}:{config.mysql.port}/{config.mysql.database}"
    if config.HasField("postgresql"):
        server = config.postgresql
        return f"postgresql://{server.host}:{server.port}/{server.dbname}"
    return str(config.sqlite.filename_uri)


def is_there(uri: str) -> bool:
    """Whether the directory of an artifact is still there."""
    if "://" not in uri:
        return os.path.isdir(uri)
    from tfx.dsl.io import fileio

    return bool(fileio.isdir(uri))
