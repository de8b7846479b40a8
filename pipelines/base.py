"""The model that a new task is built on: found, and checked to fit, before any work is done."""

import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from mptrec_tf.config import Config
from mptrec_tf.data import check_same_features, check_same_tasks
from mptrec_tf.errors import PipelineError
from mptrec_tf.models import load_model
from mptrec_tf.serving import Manifest
from mptrec_tf.spec.parsing import dump
from pipelines.components.preprocessing import read_encoder
from pipelines.components.trainer import base_model_file, check_graph
from pipelines.layout import SERVING_DIRECTORY
from pipelines.metadata import Artifact, Execution, Store, is_there
from pipelines.sources import labelled


class Base(NamedTuple):
    """What a new task is built on, by URI.

    Attributes:
        model: The model, blessed and pushed.
        transform_graph: The graph that encodes its rows.
        schema: The schema of the rows of stage 1.
        statistics: The statistics of the rows of stage 1.
    """

    model: str
    transform_graph: str
    schema: str
    statistics: str


def base_of(store: Store, model: Artifact) -> Base:
    """What a model was made with, followed upward in ML Metadata.

    Raises:
        PipelineError: If the model was not made by these pipelines.
    """
    trainer = store.producers(model)[0]
    graph, schema = _input(trainer, "transform_graph"), _input(trainer, "schema")
    transform = store.producers(graph)[0]
    statistics = [
        execution.outputs["statistics"][0]
        for execution in store.consumers(_input(transform, "examples"))
        if execution.component == "StatisticsGen" and execution.outputs.get("statistics")
    ]
    if not statistics:
        raise PipelineError(f"{model.uri}: no statistics of its rows: not made by these pipelines")
    return Base(model.uri, graph.uri, schema.uri, statistics[-1].uri)


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
        PipelineError: If the graph does not belong to the model, the task is there already, or the
            configuration lacks a task of the base.
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
    check_same_tasks(model.tasks, config.spec, base.model)
    lacking = [name for name in names if name not in {known.name for known in config.tasks}]
    if lacking:
        raise PipelineError(f"tasks: the base has a task {lacking[0]!r}, which is not in them")
    return labelled(model.tasks, sources)


def served_tasks(model: Artifact) -> list[str]:
    """Names of the tasks of a model.

    Args:
        model: What the Trainer made.
    """
    manifest = Manifest.read(pathlib.Path(model.uri, SERVING_DIRECTORY))
    return [*manifest.stage1_tasks, *manifest.added_tasks]


def why_incomparable(config: Config, model: Artifact) -> str | None:
    """Why a model cannot score the rows of a configuration, `None` if it can.

    Args:
        config: The configuration.
        model: What the Trainer made.
    """
    if not is_there(model.uri):
        return f"({model.uri}) is no longer there"
    spec = Manifest.read(pathlib.Path(model.uri, SERVING_DIRECTORY)).spec
    if spec["features"] != dump(config.spec)["features"]:
        return f"({model.uri}) has other features"
    return None


def _input(execution: Execution, key: str) -> Artifact:
    if key not in execution.inputs:
        raise PipelineError(
            f"{execution.component} of {execution.pipeline} was not given {key}: the model was "
            "not made by these pipelines"
        )
    return execution.inputs[key][0]
