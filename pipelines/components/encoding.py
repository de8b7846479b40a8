"""Encode: the Transform graph of a base model over the rows of a new task.

Nothing is learned anew: a vocabulary of other rows would give other ids than the frozen model has.
The labels of the new task, which the graph has never heard of, go along unchanged.
"""

import os
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx.dsl.component.experimental.annotations import BeamComponentParameter
from tfx.types import artifact_utils

from mptrec_tf.data import FeatureEncoder
from mptrec_tf.errors import PipelineError
from pipelines.components.preprocessing import read_encoder
from pipelines.examples import (
    LABEL,
    WEIGHT,
    encoded_examples,
    open_writer,
    read_records,
    split_files,
)

Examples = tfx.types.standard_artifacts.Examples


@tfx.dsl.components.component(use_beam=True)
def Encode(  # noqa: N802
    examples: tfx.dsl.components.InputArtifact[Examples],
    transform_graph: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.TransformGraph],
    encoded: tfx.dsl.components.OutputArtifact[Examples],
    task: tfx.dsl.components.Parameter[str],
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Encodes raw examples as a base model expects them.

    Args:
        examples: Raw examples with the label of the task.
        transform_graph: The graph that the base model was trained with.
        encoded: The encoded examples, in the same splits.
        task: The new task.
        beam_pipeline: Given by TFX.

    Raises:
        PipelineError: If the graph is not of these pipelines.
    """
    read_encoder(transform_graph.uri)  # refused here, not by each worker
    encoded.split_names = examples.split_names
    files = [
        (split, number, file)
        for split in artifact_utils.decode_split_names(examples.split_names)
        for number, file in enumerate(split_files(examples.uri, split))
    ]
    with beam_pipeline as pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create(files, reshuffle=len(files) > 1)
            | "Encode" >> beam.ParDo(EncodeFile(transform_graph.uri, encoded.uri, task))
        )


class EncodeFile(beam.DoFn):
    """Encodes one file batch by batch.

    Args:
        transform_graph: URI of the graph.
        encoded: URI of the encoded examples.
        task: The new task.
    """

    def __init__(self, transform_graph: str, encoded: str, task: str) -> None:
        self._graph, self._encoded, self._task = transform_graph, encoded, task

    def setup(self) -> None:
        output = tft.TFTransformOutput(self._graph)
        encoder = read_encoder(self._graph)
        self._transform = _graph_of(output, encoder, self._task)

    def process(self, element: tuple[str, int, str]) -> Iterator[None]:
        split, number, file = element
        with open_writer(os.path.join(self._encoded, f"Split-{split}"), number) as writer:
            for batch in read_records([file]):
                columns = {name: values.numpy() for name, values in self._transform(batch).items()}
                for example in encoded_examples(columns):
                    writer.write(example)
        yield from ()


def _graph_of(output: tft.TFTransformOutput, encoder: FeatureEncoder, task: str) -> Any:
    """A function of serialized raw examples."""
    names = {feature.name for feature in encoder.features}
    specs = {name: spec for name, spec in output.raw_feature_spec().items() if name in names}
    absent = sorted(names - specs.keys())
    if absent:
        raise PipelineError(f"the Transform graph does not read the features {absent}")
    labels = {LABEL + task, WEIGHT + task}
    layer = output.transform_features_layer()

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def transform(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(
            serialized, specs | {name: tf.io.FixedLenFeature((), tf.float32) for name in labels}
        )
        encoded = layer({name: parsed[name] for name in names})
        return {**encoded, **{name: parsed[name] for name in labels}}

    return transform
