"""Transform encodes as a notebook does: the same rows give the same ids and numbers."""

import pathlib

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils
from tfx_bsl.public import tfxio

from mptrec_tf.config import Config
from mptrec_tf.data import FeatureEncoder, encode_labels, read_chunks
from mptrec_tf.errors import PipelineError
from mptrec_tf.spec import (
    CategoricalFeature,
    DataSpec,
    MultiValuedFeature,
    NumericFeature,
    Task,
)
from mptrec_tf.spec.parsing import dump
from pipelines.components.encoding import EncodeFile
from pipelines.components.preprocessing import preprocessing_fn, read_encoder
from pipelines.examples import (
    LEAST,
    open_writer,
    parse_encoded,
    raw_examples,
    read_records,
    split_files,
)

ROOT = pathlib.Path(__file__).parents[2]
CENSUS = Config.from_yaml(ROOT / "configs/census_income.yaml")

ROWS = {
    "age": [31.5, None, 45.0, 31.5, 1e6],
    "height": [1.0, 2.0, 2.5, -1.0, 0.1],
    "city": ["Oslo", "Rome", None, "Oslo", "?"],
    "user": [17, 18, 19, 17, None],
    "tags": ["a|b", "", "b|c|d|a", None, "b"],
    "known": ["x", "y", "z", "x", ""],
    "click": [0, 1, None, 1, 0],
    "stars": [1.5, None, 3.0, 2.0, 5.0],
    "trust": [1.0, 2.0, 0.5, 0.0, 3.0],
}
SPEC = DataSpec(
    features=[
        CategoricalFeature("city", missing_values=("?",)),
        NumericFeature("age", missing=-1.0, bins=3),
        CategoricalFeature("user", hash_buckets=50),
        NumericFeature("height", encoding="standardize"),
        MultiValuedFeature("tags", max_length=3),
        CategoricalFeature("known", vocabulary=("x", "y")),
    ],
    tasks=[
        Task("click", label="click"),
        Task("stars", label="stars", kind="regression", weight="trust"),
    ],
)


def write_raw(source, spec, directory):
    with open_writer(str(directory / "Split-train"), 0) as writer:
        for chunk in read_chunks(source, spec.features, spec.tasks):
            for example in raw_examples(chunk, spec.features, spec.tasks):
                writer.write(example)
    return split_files(str(directory), "train")


def analyze(files, spec, directory, feature_spec=None):
    """Runs Transform's analysis for real and writes the graph as the component does."""
    kinds = {f.name: tf.float32 if f.kind == "numeric" else tf.string for f in spec.features}
    kinds |= {p + t.name: tf.float32 for t in spec.tasks for p in ("label:", "weight:")}
    feature_spec = {name: tf.io.VarLenFeature(kind) for name, kind in kinds.items()} | (
        feature_spec or {}
    )
    schema = schema_utils.schema_from_feature_spec(feature_spec)
    source = tfxio.TFExampleRecord(files, schema=schema, telemetry_descriptors=["test"])
    config = {"features": [dump(f) for f in spec.features], "tasks": [t.name for t in spec.tasks]}
    options = beam.options.pipeline_options.PipelineOptions(["--runner=FnApiRunner"])
    with (
        beam.Pipeline(options=options) as pipeline,
        tft_beam.Context(temp_dir=str(directory / "temp")),
    ):
        raw = pipeline | source.BeamSource()
        transform = (raw, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, config)
        )
        _ = transform | tft_beam.WriteTransformFn(str(directory / "graph"))
        _ = dataset_metadata.DatasetMetadata(schema) | tft_beam.WriteMetadata(
            str(directory / "graph" / "metadata"), pipeline
        )
    return str(directory / "graph")


def transformed(graph, files, spec):
    """What the graph makes of raw examples."""
    output = tft.TFTransformOutput(graph)
    layer = output.transform_features_layer()
    parts = [
        layer(tf.io.parse_example(batch, output.raw_feature_spec()))
        for batch in read_records(files)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_encoded_equal(ours, expected):
    assert set(expected) <= set(ours)
    for name, values in expected.items():
        assert ours[name].dtype == (np.int64 if values.dtype == np.int32 else values.dtype)
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    files = write_raw(ROWS, SPEC, directory)
    return analyze(files, SPEC, directory), files


def test_all_kinds_of_features_and_missing_cells(small):
    graph, files = small
    encoder = FeatureEncoder(SPEC.features).adapt(ROWS)
    assert read_encoder(graph).to_json() == encoder.to_json()
    assert_encoded_equal(transformed(graph, files, SPEC), encoder.encode(ROWS))


def test_labels_go_along_and_a_row_without_a_label_weighs_nothing(small):
    graph, files = small
    encoded = transformed(graph, files, SPEC)
    np.testing.assert_array_equal(encoded["label:click"], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(encoded["weight:click"], [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(encoded["label:stars"], [1.5, 0, 3, 2, 5])
    np.testing.assert_array_equal(encoded["weight:stars"], [1, 0, 0.5, LEAST, 3])


def test_rows_that_were_not_learned_from_become_unknown(small, tmp_path):
    graph, _ = small
    rows = {**ROWS, "city": ["Paris", "Oslo", "", "?", "Lyon"], "tags": ["z", "a|z", "b", "", "c"]}
    encoder = FeatureEncoder(SPEC.features).adapt(ROWS)
    files = write_raw(rows, SPEC, tmp_path)
    expected = encoder.encode(rows)
    assert_encoded_equal(transformed(graph, files, SPEC), expected)
    city = expected["categorical"][:, 0]
    np.testing.assert_array_equal(city, [1, encoder.vocabulary("city").index("Oslo") + 2, 0, 0, 1])


def test_a_new_task_is_encoded_by_the_graph_of_the_old_ones(small, tmp_path):
    graph, _ = small
    task = Task("fast", label="seconds", above=10)
    rows = {
        **{n: ROWS[n] for n in (f.name for f in SPEC.features)},
        "seconds": [5, 20, None, 11, 0],
    }
    spec = DataSpec(SPEC.features, [task])
    (file,) = write_raw(rows, spec, tmp_path)
    encode = EncodeFile(graph, str(tmp_path / "encoded"), "fast")
    encode.setup()
    assert list(encode.process(("train", 0, file))) == []
    encoder = FeatureEncoder(SPEC.features).adapt(ROWS)
    (batch,) = read_records(split_files(str(tmp_path / "encoded"), "train"))
    x, y = parse_encoded(batch, encoder, [task])
    for name, values in encoder.encode(rows).items():
        assert x[name].dtype == values.dtype
        np.testing.assert_array_equal(x[name], values)
    np.testing.assert_array_equal(y["fast"], [0, 1, np.nan, 1, 0])


def test_a_spec_of_numbers_alone_with_a_curated_schema(tmp_path):
    spec = DataSpec([NumericFeature("height")], SPEC.tasks)
    files = write_raw(ROWS, spec, tmp_path)
    graph = analyze(files, spec, tmp_path, {"height": tf.io.FixedLenFeature((), tf.float32)})
    encoder = FeatureEncoder(spec.features).adapt(ROWS)
    assert read_encoder(graph).to_json() == encoder.to_json()
    assert_encoded_equal(transformed(graph, files, spec), encoder.encode(ROWS))


def test_a_graph_of_something_else_is_refused(tmp_path):
    (tmp_path / "transform_fn").mkdir()
    with pytest.raises(PipelineError, match="not of these pipelines"):
        read_encoder(str(tmp_path))


@pytest.mark.long
def test_every_census_row_is_encoded_as_in_a_notebook(tmp_path):
    sources = CENSUS.data.sources()
    spec = CENSUS.spec
    files = write_raw(sources.train, spec, tmp_path)
    graph = analyze(files, spec, tmp_path)
    encoder = FeatureEncoder(spec.features).adapt(sources.train)
    assert read_encoder(graph).to_json() == encoder.to_json()
    rows = 0
    for source in sources:
        files = write_raw(source, spec, tmp_path / pathlib.Path(source).stem)
        encoded = transformed(graph, files, spec)
        assert_encoded_equal(encoded, encoder.encode(source))
        labels = [encode_labels(spec.tasks, c)[0] for c in read_chunks(source, (), spec.tasks)]
        for task in spec.tasks:
            expected = np.concatenate([part[task.name] for part in labels])
            np.testing.assert_array_equal(encoded[f"label:{task.name}"], expected)
        rows += len(expected)
    assert rows == 299_285
