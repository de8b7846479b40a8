"""Transform: the library's encoding, learned by Beam and applied by a graph.

The library's own sketches count the rows and its own `FeatureEncoder` encodes them, so a notebook
and a pipeline that see the same rows get the same ids and numbers.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam

from mptrec_tf.data import FeatureEncoder
from mptrec_tf.data.encoding import EncodingSketches
from mptrec_tf.errors import PipelineError
from mptrec_tf.spec import DataSpec, Feature, MultiValuedFeature, NumericFeature
from mptrec_tf.spec.parsing import parse
from pipelines.examples import LABEL, WEIGHT

NUMERIC = "numeric"
ENCODER = "encoder.json"
"""Name of the asset of a Transform graph that tells its encoding."""


def preprocessing_fn(
    inputs: Mapping[str, Any], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """What Transform applies; see `tfx.v1.components.Transform`.

    Args:
        inputs: Raw columns by name, as the schema says.
        custom_config: `"features"`: the features as plain data; `"tasks"`: names of the tasks.

    Returns:
        The inputs of the model, and label and weight of each task.
    """
    features = parse(
        DataSpec, {"features": custom_config["features"]}, "the features of the pipeline"
    ).features
    columns = {feature.name: _dense(feature, inputs[feature.name]) for feature in features}
    (file,) = tft.experimental.ptransform_analyzer(
        [_counted(columns[feature.name]) for feature in features],
        LearnEncoding(features),
        output_dtypes=[tf.string],
        output_shapes=[[]],
        output_asset_default_values=[b""],
        name="learn_encoding",
    )
    parts: dict[str, tf.Tensor] = {}

    def encode(rows: tf.Tensor, asset: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope():  # the lookup tables are made once, not with every batch
            encoder = _encoder_of_asset(features, asset)
        parts.update(encoder(columns))
        ids = [tf.cast(values, tf.int64) for name, values in parts.items() if name != NUMERIC]
        return tf.concat([tf.reshape(rows, [-1, 1])[:, :0], *ids], axis=-1), tf.constant(
            0, tf.int64
        )

    # Its hook for a lookup of one's own is what Transform offers to use an asset in a graph.
    rows = tf.zeros([_rows(columns[features[0].name])], tf.int64)
    ids = tft.apply_vocabulary(rows, file, lookup_fn=encode)
    outputs, start = {}, 0
    for name, values in parts.items():
        if name == NUMERIC:  # joined with nothing, so that it too hangs on the asset
            outputs[name] = tf.concat([values, tf.cast(ids[:, :0], tf.float32)], axis=-1)
        else:
            outputs[name] = ids[:, start : start + values.shape[1]]
            start += values.shape[1]
    for task in custom_config["tasks"]:
        for name in (LABEL + task, WEIGHT + task):
            outputs[name] = _one(inputs[name], 0.0)
    return outputs


def read_encoder(transform_graph: str) -> FeatureEncoder:
    """The encoder that a Transform graph applies.

    Args:
        transform_graph: URI of the artifact.

    Raises:
        PipelineError: If the graph was not made by these pipelines.
    """
    directory = tft.TFTransformOutput(transform_graph).transform_savedmodel_dir
    file = f"{directory}/assets/{ENCODER}"
    if not tf.io.gfile.exists(file):
        raise PipelineError(f"{transform_graph}: this Transform graph is not of these pipelines")
    with tf.io.gfile.GFile(file, "r") as opened:
        return FeatureEncoder.from_json(opened.read())


def _encoder_of_asset(features: Sequence[Feature], asset: tf.Tensor) -> FeatureEncoder:
    """The encoder that was learned, or one of no rows where nothing was learned yet."""
    text = b"" if tf.is_symbolic_tensor(asset) else tf.io.read_file(asset).numpy()
    if text:
        return FeatureEncoder.from_json(text.decode())
    return FeatureEncoder(features).take(EncodingSketches(features))


def _dense(feature: Feature, values: Any) -> Any:
    if isinstance(feature, NumericFeature):
        return _one(values, float("nan"))
    if isinstance(feature, MultiValuedFeature):
        return tf.RaggedTensor.from_sparse(values) if _is_sparse(values) else values
    return _one(values, "")


def _one(values: Any, default: float | str) -> tf.Tensor:
    """The first value of each row."""
    if _is_sparse(values):
        rows = values.dense_shape[0]
        first = tf.equal(values.indices[:, 1], 0)
        filled = tf.fill([rows], tf.constant(default, values.dtype))
        return tf.tensor_scatter_nd_update(
            filled,
            tf.boolean_mask(values.indices[:, :1], first),
            tf.boolean_mask(values.values, first),
        )
    return tf.reshape(values, [-1])


def _is_sparse(values: Any) -> bool:
    return isinstance(values, tf.SparseTensor)


def _rows(column: Any) -> tf.Tensor:
    return column.nrows() if isinstance(column, tf.RaggedTensor) else tf.shape(column)[0]


def _counted(values: Any) -> tf.Tensor:
    """A column as the analyzer takes it: a multi-valued one flat."""
    return values.flat_values if isinstance(values, tf.RaggedTensor) else tf.reshape(values, [-1])


class LearnEncoding(tft_beam.experimental.PTransformAnalyzer):
    """Counts all columns and writes what the encoding is.

    Args:
        features: The features.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__()
        self._features = tuple(features)

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        directory = self.base_temp_dir
        return (
            batches
            | "Count" >> beam.CombineGlobally(CountColumns(self._features))
            | "Write" >> beam.Map(_write_asset, directory)
        )


class CountColumns(beam.CombineFn):
    """Sketches of all columns, over batches of columns.

    Args:
        features: The features, in the order of the columns.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)

    def create_accumulator(self) -> EncodingSketches:
        return EncodingSketches(self._features)

    def add_input(
        self, sketches: EncodingSketches, columns: tuple[np.ndarray, ...]
    ) -> EncodingSketches:
        for feature, values in zip(self._features, columns, strict=True):
            name = feature.name
            if isinstance(feature, NumericFeature):
                if feature.missing is not None:
                    values = np.where(np.isnan(values), np.float32(feature.missing), values)
                sketches.numbers[name].update(values)
            elif name in sketches.categories:
                sketches.categories[name].update(pa.array(values, pa.binary()).cast(pa.string()))
        return sketches

    def merge_accumulators(self, parts: Any) -> EncodingSketches:
        merged = self.create_accumulator()
        for part in parts:
            merged.merge(part)
        return merged

    def extract_output(self, sketches: EncodingSketches) -> str:
        return FeatureEncoder(self._features).take(sketches).to_json()


def _write_asset(encoding: str, directory: str) -> np.ndarray:
    file = os.path.join(directory, ENCODER)
    tf.io.gfile.makedirs(directory)
    with tf.io.gfile.GFile(file, "w") as opened:
        opened.write(encoding)
    return np.array(file)
