"""The schema of the raw rows: learned from them, or a curated file."""

import json
from collections.abc import Sequence
from typing import TypeAlias

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.components.schema_gen.executor import DEFAULT_FILE_NAME
from tfx.types import Artifact, artifact_utils
from tfx.v1.dsl.components import InputArtifact, OutputArtifact, Parameter, component
from tfx.v1.dsl.io import fileio
from tfx.v1.types.standard_artifacts import ExampleStatistics, Schema

from mptrec_tf.errors import PipelineError
from mptrec_tf.spec.features import Feature
from pipelines.examples import LABEL, WEIGHT

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList

MAX_CATEGORIES = 100
"""A column with more categories gets no list of known ones: new ones are its nature."""


def feature_kinds(features: Sequence[Feature]) -> str:
    """The features as a parameter of a component: JSON of kinds by name."""
    return json.dumps({feature.name: feature.kind for feature in features})


def read_statistics(artifact: Artifact, split: str) -> Statistics:
    """Statistics of a split, also of an artifact imported by its URI alone."""
    return tfdv.load_stats_binary(f"{artifact.uri}/Split-{split}/FeatureStats.pb")


def category_counts(statistics: Statistics, name: str) -> dict[str, float]:
    """How often each category of a column occurs, of the 1,000 most frequent ones."""
    return {
        bucket.label: bucket.sample_count
        for column in statistics.datasets[0].features
        if column.path.step == [name]
        for bucket in column.string_stats.rank_histogram.buckets
    }


@component
def LearnedSchema(  # noqa: N802 (TFX names the component after it)
    statistics: InputArtifact[ExampleStatistics],
    schema: OutputArtifact[Schema],
    features: Parameter[str],
) -> None:
    """The schema that the rows of all splits fit.

    As the stock SchemaGen, with what the library knows of its features: texts of digits are
    categories too (SchemaGen takes them for integers, of which any may come), and a multi-valued
    feature may have any number of values. Columns of one value are never of fixed shape, so a
    missing cell stays a matter of `max_missing`.

    Args:
        statistics: Statistics of the rows.
        schema: The schema, out.
        features: See `feature_kinds`.
    """
    splits = [
        split
        for name in artifact_utils.decode_split_names(statistics.split_names)
        if (split := read_statistics(statistics, name)).datasets[0].num_examples
    ]
    learned = schema_pb2.Schema()
    for i, split in enumerate(splits):
        if i == 0:
            learned = tfdv.infer_schema(split, infer_feature_shape=False)
        else:
            learned = tfdv.update_schema(learned, split)
    kinds = json.loads(features)
    for feature in learned.feature:
        kind = kinds.get(feature.name, "numeric")
        if kind == "multivalued":
            feature.ClearField("value_count")
        if kind != "numeric":
            counts = [category_counts(split, feature.name) for split in splits]
            _set_categories(learned, feature, sorted(set().union(*counts)))
    fileio.makedirs(schema.uri)
    tfdv.write_schema_text(learned, f"{schema.uri}/{DEFAULT_FILE_NAME}")


def _set_categories(
    schema: schema_pb2.Schema, feature: schema_pb2.Feature, categories: list[str]
) -> None:
    inferred = feature.WhichOneof("domain_info")
    if inferred is not None:
        feature.ClearField(inferred)
    known = [domain for domain in schema.string_domain if domain.name != feature.name]
    if len(categories) <= MAX_CATEGORIES:
        feature.domain = feature.name
        known.append(schema_pb2.StringDomain(name=feature.name, value=categories))
    del schema.string_domain[:]
    schema.string_domain.extend(known)


@component
def CuratedSchema(  # noqa: N802
    schema: OutputArtifact[Schema],
    text: Parameter[str],
) -> None:
    """A curated schema, given as what `check_schema_file` read.

    The stock ImportSchemaGen is given the path: a run with an edited file would take the old schema
    from the cache, and a file of this machine is not on a cluster.

    Args:
        schema: The schema, out.
        text: The schema as text protobuf.
    """
    fileio.makedirs(schema.uri)
    with fileio.open(f"{schema.uri}/{DEFAULT_FILE_NAME}", "w") as file:
        file.write(text)


def check_schema_file(path: str, features: Sequence[Feature], tasks: Sequence[str] = ()) -> str:
    """Reads a curated schema, before any work is done.

    A good start for one is the schema that `LearnedSchema` wrote in an earlier run.

    Args:
        path: The file, a text protobuf.
        features: The features that it must know.
        tasks: Names of the tasks whose labels and weights it must know. Defaults to none.

    Returns:
        Its text, for `CuratedSchema`.

    Raises:
        PipelineError: If the file is missing or no schema, does not know a column, knows it as
            another type, or fixes the shape of a feature; every problem is listed.
    """
    if not fileio.exists(path):
        raise PipelineError(f"pipeline.schema: no such file: {path}")
    try:
        with fileio.open(path, "r") as file:
            text: str = file.read()
        schema = text_format.Parse(text, schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"pipeline.schema: {path} is not a schema in text protobuf: {error}"
        ) from error
    expected = {
        feature.name: schema_pb2.FLOAT if feature.kind == "numeric" else schema_pb2.BYTES
        for feature in features
    }
    columns = {column.name: column for column in schema.feature}
    problems = []
    for name in expected:
        if name in columns and columns[name].HasField("shape"):
            problems.append(
                f"{name!r} has a shape, so that no cell may be missing; give it "
                "value_count { min: 1 max: 1 } instead"
            )
    expected |= {prefix + task: schema_pb2.FLOAT for task in tasks for prefix in (LABEL, WEIGHT)}
    for name, kind in expected.items():
        wanted = schema_pb2.FeatureType.Name(kind)
        if name not in columns:
            problems.append(f"it does not know {name!r}, of type {wanted}")
        elif columns[name].type != kind:
            found = schema_pb2.FeatureType.Name(columns[name].type)
            problems.append(f"{name!r} must be of type {wanted}, got {found}")
    if problems:
        raise PipelineError("\n".join(f"pipeline.schema: {path}: {line}" for line in problems))
    return text
