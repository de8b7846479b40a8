"""Pipelines of a few small components, with the artifact types of the real ones."""

import json
import logging
import os
import pathlib
import subprocess
import sys
import time

import absl.logging
import apache_beam as beam
from tfx import v1 as tfx
from tfx.types.standard_artifacts import (
    Examples,
    Model,
    ModelBlessing,
    ModelEvaluation,
    PushedModel,
    TransformGraph,
)
from tfx.v1.dsl.components import (
    BeamComponentParameter,
    InputArtifact,
    OutputArtifact,
    Parameter,
    component,
)

from mptrec_tf.errors import DataError, ModelError
from mptrec_tf.pipeline_config import PipelineConfig
from pipelines.metadata import connection
from pipelines.nodes import beam_arguments


@component
def Ingest(rows: Parameter[int], span: Parameter[int], examples: OutputArtifact[Examples]):  # noqa: N802
    pathlib.Path(examples.uri, "rows.txt").write_text("row\n" * rows)
    examples.split_names = '["train", "test"]'
    examples.span = span
    examples.set_string_custom_property("input_fingerprint", f"rows:{rows}")
    examples.set_int_custom_property("rows:train", rows - 1)
    examples.set_int_custom_property("rows:test", 1)


@component
def Transform(examples: InputArtifact[Examples], graph: OutputArtifact[TransformGraph]):  # noqa: N802
    pathlib.Path(graph.uri, "graph.txt").write_text("graph")


@component
def Trainer(  # noqa: N802
    examples: InputArtifact[Examples],
    graph: InputArtifact[TransformGraph],
    settings: Parameter[str],
    model: OutputArtifact[Model],
):
    print("Epoch 1/1")
    pathlib.Path(model.uri, "model.txt").write_text(settings)
    extra = pathlib.Path(model.uri, "Format-Serving", "assets.extra")
    extra.mkdir(parents=True)
    training = {
        "settings": {"model": {"expert_units": [8, 4]}, "training": {"learning_rate": 0.01}},
        "best_epoch": 1,
        "epochs": [{"val_auc": 0.5}, {"val_auc": 0.625}],
    }
    (extra / "training.json").write_text(json.dumps(training))


@component
def TaskTrainer(  # noqa: N802
    examples: InputArtifact[Examples],
    graph: InputArtifact[TransformGraph],
    base_model: InputArtifact[Model],
    settings: Parameter[str],
    model: OutputArtifact[Model],
):
    base = pathlib.Path(base_model.uri, "model.txt").read_text()
    pathlib.Path(model.uri, "model.txt").write_text(base + settings)


@component
def Evaluator(  # noqa: N802
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    evaluation: OutputArtifact[ModelEvaluation],
    blessing: OutputArtifact[ModelBlessing],
):
    evaluation.set_float_custom_property("auc", 0.75)
    blessing.set_int_custom_property("blessed", 1)


@component
def Pusher(  # noqa: N802
    model: InputArtifact[Model],
    model_blessing: InputArtifact[ModelBlessing],
    version: Parameter[int],
    base_directory: Parameter[str],
    pushed: Parameter[int],
    pushed_model: OutputArtifact[PushedModel],
):
    pushed_model.set_int_custom_property("pushed", pushed)
    if pushed:
        directory = pathlib.Path(base_directory, str(version))
        directory.mkdir(parents=True)
        pushed_model.set_string_custom_property("pushed_destination", str(directory))
        pushed_model.set_string_custom_property("pushed_version", str(version))


@component
def Noisy(examples: InputArtifact[Examples], model: OutputArtifact[Model]):  # noqa: N802
    absl.logging.info("a note of TFX")
    logging.getLogger("apache_beam").info("a note of Beam")
    print("a bar of tqdm", file=sys.stderr)
    os.write(2, b"a line of C++\n")
    print("Epoch 1/1")


@component
def Failing(  # noqa: N802
    examples: InputArtifact[Examples], kind: Parameter[str], model: OutputArtifact[Model]
):
    if kind == "ours":
        try:
            float("x")
        except ValueError as error:
            raise DataError("rows.csv: column 'age':\n  'x' is no number") from error
    elif kind == "hidden":
        try:
            raise ModelError("the model has no task 'buy'")
        except ModelError as error:
            raise RuntimeError("component failed") from error
    raise KeyError("absent")


def _check(row):
    raise DataError(f"rows.csv: column 'age': {row!r} is no number")


@component(use_beam=True)
def FailingInBeam(  # noqa: N802
    examples: InputArtifact[Examples],
    model: OutputArtifact[Model],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
):
    with beam_pipeline as root:
        root | beam.Create(["x"]) | "Check" >> beam.Map(_check)


@component
def Waiting(  # noqa: N802
    examples: InputArtifact[Examples], signal: Parameter[str], model: OutputArtifact[Model]
):
    """Waits while the file `signal` is there; `signal`.waiting tells that it does."""
    while pathlib.Path(signal).exists():
        pathlib.Path(f"{signal}.waiting").touch()
        time.sleep(0.05)


def pipeline(directory, components, name="tiny-pretrain", beam_args=("--runner=FnApiRunner",)):
    return tfx.dsl.Pipeline(
        name,
        str(pathlib.Path(directory, "artifacts")),
        components=components,
        metadata_connection_config=connection(PipelineConfig(), directory),
        enable_cache=True,
        beam_pipeline_args=beam_arguments(beam_args),
    )


def pretrain(
    directory, *, rows=3, version=1, pushed=1, name="tiny-pretrain", serving="serving/tiny"
):
    """Ingest, Transform, Trainer, Evaluator and Pusher."""
    ingest = Ingest(rows=rows, span=1)
    transform = Transform(examples=ingest.outputs["examples"])
    trainer = Trainer(
        examples=ingest.outputs["examples"],
        graph=transform.outputs["graph"],
        settings=json.dumps({"epochs": 2, "training": {"learning_rate": 0.01}}),
    )
    ingredients = [ingest, transform, trainer]
    return pipeline(
        directory, ingredients + _push(directory / serving, ingest, trainer, version, pushed), name
    )


def prompt_tune(directory, base, graph, *, version=2, name="tiny-buy", serving="serving/tiny"):
    """The same on a base model and its graph, both imported by their URIs."""
    importers = [
        tfx.dsl.Importer(source_uri=artifact.uri, artifact_type=kind).with_id(node)
        for artifact, kind, node in (
            (base, Model, "BaseModel"),
            (graph, TransformGraph, "BaseGraph"),
        )
    ]
    ingest = Ingest(rows=5, span=2)
    trainer = TaskTrainer(
        examples=ingest.outputs["examples"],
        graph=importers[1].outputs["result"],
        base_model=importers[0].outputs["result"],
        settings=json.dumps({"epochs": 1}),
    )
    return pipeline(
        directory,
        [*importers, ingest, trainer, *_push(directory / serving, ingest, trainer, version, 1)],
        name,
    )


def _push(serving, ingest, trainer, version, pushed):
    evaluator = Evaluator(examples=ingest.outputs["examples"], model=trainer.outputs["model"])
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        version=version,
        base_directory=str(serving),
        pushed=pushed,
    )
    return [evaluator, pusher]


WAITING = """\
import signal
import sys
import tiny_pipelines as tiny
from pipelines.runners.local import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in background
directory, marker = sys.argv[1:]
ingest = tiny.Ingest(rows=3, span=1)
waiting = tiny.Waiting(examples=ingest.outputs["examples"], signal=marker)
run(tiny.pipeline(directory, [ingest, waiting]), log_file=directory + "/run.log")
"""


def waiting_run(directory):
    """A run in a process of its own, in the middle of its second component."""
    marker = directory / "signal"
    marker.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(directory), str(marker)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not pathlib.Path(f"{marker}.waiting").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return process, marker
