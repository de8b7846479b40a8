"""The check of the data: what stops a run, what it says, and what allows more."""

import json
import pathlib
import re

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import text_format
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx import v1 as tfx
from tfx.types import artifact_utils

from mptrec_tf.data.readers import Chunk
from mptrec_tf.errors import PipelineError
from mptrec_tf.spec import CategoricalFeature, MultiValuedFeature, NumericFeature, Task
from pipelines.components.schema import (
    CuratedSchema,
    LearnedSchema,
    check_schema_file,
    feature_kinds,
)
from pipelines.components.validation import DataValidator, RequireValidData
from pipelines.examples import raw_examples
from pipelines.nodes import beam_arguments

artifacts = tfx.types.standard_artifacts
SPLITS = ("train", "validation", "test")
BEAM = beam_arguments(["--runner=FnApiRunner"])
FEATURES = (
    NumericFeature("age", missing=0.0),
    CategoricalFeature("work"),
    CategoricalFeature("code"),
    MultiValuedFeature("tags"),
)
STRICT = {"max_new_categories": 0.0, "max_missing": 0.0, "max_drift": 0.1}
ROWS = 100


def table(**columns):
    """Synthetic rows: ages 0 to 99, two kinds of work, four codes, one or two tags."""
    rows = {
        "age": [float(i) for i in range(ROWS)],
        "work": ["office" if i < 60 else "farm" for i in range(ROWS)],
        "code": [str(i % 4) for i in range(ROWS)],
        "tags": [["a"] if i % 2 else ["a", "b"] for i in range(ROWS)],
        "label": [i % 2 for i in range(ROWS)],
    }
    return pa.table(rows | columns)


CLEAN = table()


def first(count, value, column):
    """A column of `table` with another value in the first rows."""
    return [value] * count + CLEAN[column].to_pylist()[count:]


def write_examples(directory, tables, features=FEATURES, task="bought"):
    """Raw examples as the ingest writes them, of each split."""
    for split in SPLITS:
        rows = tables.get(split, CLEAN)
        path = directory / f"Split-{split}"
        path.mkdir(parents=True)
        examples = raw_examples(Chunk(rows, "rows"), features, (Task(task, "label"),))
        with tf.io.TFRecordWriter(str(path / "rows-00000-of-00001.gz"), "GZIP") as writer:
            for example in examples:
                writer.write(example)
    return directory


def statistics_of(directory, tables=None, features=FEATURES, task="bought"):
    """An artifact with the statistics of each split, as StatisticsGen lays it out."""
    tables = {split: (tables or {}).get(split, CLEAN) for split in SPLITS}
    examples = write_examples(directory / "examples", tables, features, task)
    made = {}
    for split, rows in tables.items():
        if id(rows) not in made:
            made[id(rows)] = tfdv.generate_statistics_from_tfrecord(
                str(examples / f"Split-{split}" / "*.gz"), pipeline_options=PipelineOptions(BEAM)
            )
        path = directory / f"Split-{split}" / "FeatureStats.pb"
        path.parent.mkdir()
        path.write_bytes(made[id(rows)].SerializeToString())
    artifact = artifacts.ExampleStatistics()
    artifact.uri = str(directory)
    artifact.split_names = artifact_utils.encode_split_names(list(SPLITS))
    return artifact


def learned(directory, statistics, features=FEATURES):
    schema = artifacts.Schema()
    schema.uri = str(directory)
    LearnedSchema.test_call(statistics=statistics, schema=schema, features=feature_kinds(features))
    return schema


def curated(directory, text):
    schema = artifacts.Schema()
    schema.uri = str(directory)
    CuratedSchema.test_call(schema=schema, text=text)
    return schema


def read_schema(schema):
    return tfdv.load_schema_text(f"{schema.uri}/schema.pbtxt")


def check(directory, statistics, schema, base=None, features=FEATURES, **settings):
    """Runs both components' functions; returns what the first one wrote."""
    anomalies = artifacts.ExampleAnomalies()
    anomalies.uri = str(directory)
    DataValidator.test_call(
        statistics=statistics,
        schema=schema,
        base_statistics=base,
        anomalies=anomalies,
        features=feature_kinds(features),
        **(STRICT | settings),
    )
    RequireValidData.test_call(anomalies=anomalies)
    return anomalies


def problems(directory, *arguments, **settings):
    """The lines of the error, and what was written."""
    with pytest.raises(PipelineError) as error:
        check(directory, *arguments, **settings)
    written = json.loads((directory / "anomalies.json").read_text())
    return str(error.value).splitlines()[1:], written


def schema_diff(anomalies, split):
    """What a tool of TFX reads."""
    directory = pathlib.Path(artifact_utils.get_split_uri([anomalies], split))
    return anomalies_pb2.Anomalies.FromString((directory / "SchemaDiff.pb").read_bytes())


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    """Statistics and schema of rows without fault."""
    directory = tmp_path_factory.mktemp("stage1")
    statistics = statistics_of(directory / "statistics")
    return statistics, learned(directory / "schema", statistics)


def test_rows_that_fit_pass(stage1, tmp_path):
    statistics, schema = stage1
    anomalies = check(tmp_path, statistics, schema)
    assert json.loads((tmp_path / "anomalies.json").read_text()) == []
    assert json.loads((tmp_path / "drift.json").read_text()) == []
    assert anomalies.get_json_value_custom_property("blessed") == dict.fromkeys(SPLITS, 1)
    assert anomalies.split_names == statistics.split_names
    for split in SPLITS:
        assert not schema_diff(anomalies, split).anomaly_info


def test_learned_schema_knows_categories_of_digits_and_any_number_of_values(stage1):
    schema = read_schema(stage1[1])
    assert list(tfdv.get_domain(schema, "code").value) == ["0", "1", "2", "3"]
    assert list(tfdv.get_domain(schema, "work").value) == ["farm", "office"]
    assert not tfdv.get_feature(schema, "tags").HasField("value_count")
    assert tfdv.get_feature(schema, "age").type == schema_pb2.FLOAT
    assert tfdv.get_feature(schema, "label:bought").presence.min_fraction == 1


def test_learned_schema_fits_every_split_and_lists_no_more_than_100_categories(tmp_path):
    tables = {
        "train": table(code=[str(i) for i in range(100)], work=first(5, None, "work")),
        "test": table(code=first(1, "x", "code"), tags=first(10, [], "tags")),
    }
    statistics = statistics_of(tmp_path / "statistics", tables)
    schema = learned(tmp_path / "schema", statistics)
    assert tfdv.get_feature(read_schema(schema), "code").WhichOneof("domain_info") is None
    assert [domain.name for domain in read_schema(schema).string_domain] == ["tags", "work"]
    check(tmp_path / "anomalies", statistics, schema)


def test_new_categories_are_named_with_their_share(stage1, tmp_path):
    tables = {
        "test": table(work=["sea"] * 8 + ["mine"] * 2 + [None] * 10 + ["farm"] * 80),
        "train": table(code=[*map(str, range(10, 17)), *["0"] * 93]),
    }
    statistics = statistics_of(tmp_path / "statistics", tables)
    lines, written = problems(
        tmp_path / "anomalies", statistics, stage1[1], max_missing=0.1, max_new_categories=0.05
    )
    # Shares of the 90 rows that are not empty: 8, 2, and 10 of them.
    assert lines == [
        "- split 'train', feature 'code': categories that the schema does not know: '16' (1.00%), "
        "'15' (1.00%), '14' (1.00%), '13' (1.00%), '12' (1.00%) and 2 more; allowed is 0.05, "
        "`pipeline.checks.max_new_categories: 0.07` would allow it",
        "- split 'test', feature 'work': categories that the schema does not know: 'sea' (8.89%), "
        "'mine' (2.22%); allowed is 0.05, `pipeline.checks.max_new_categories: 0.1112` would "
        "allow it",
    ]
    assert [(problem["split"], problem["feature"]) for problem in written] == [
        ("train", "code"),
        ("test", "work"),
    ]
    assert written[1]["found"] == pytest.approx(10 / 90)
    allowed = {"max_missing": 0.1, "max_new_categories": 0.1112}
    check(tmp_path / "allowed", statistics, stage1[1], **allowed)


def test_missing_cells_up_to_what_is_allowed(stage1, tmp_path):
    tables = {"validation": table(age=first(70, None, "age"), code=first(3, None, "code"))}
    statistics = statistics_of(tmp_path / "statistics", tables)
    lines, _ = problems(tmp_path / "anomalies", statistics, stage1[1], max_missing=0.02)
    assert lines == [
        "- split 'validation', feature 'age': empty in 70.00% of the rows; allowed is 0.02, "
        "`pipeline.checks.max_missing: 0.7` would allow it",
        "- split 'validation', feature 'code': empty in 3.00% of the rows; allowed is 0.02, "
        "`pipeline.checks.max_missing: 0.03` would allow it",
    ]
    problems(tmp_path / "less", statistics, stage1[1], max_missing=0.699)
    check(tmp_path / "allowed", statistics, stage1[1], max_missing=0.7)


def test_several_values_in_a_column_of_one(stage1, tmp_path):
    features = (MultiValuedFeature("work"), *(f for f in FEATURES if f.name != "work"))
    rows = table(work=[["office", "farm"]] * ROWS)
    statistics = statistics_of(tmp_path / "statistics", dict.fromkeys(SPLITS, rows), features)
    lines, _ = problems(tmp_path / "anomalies", statistics, stage1[1])
    assert lines == [
        f"- split {split!r}, feature 'work': Some examples have more values than expected."
        for split in SPLITS
    ]


def test_a_setting_never_forbids_what_the_schema_allows(stage1, tmp_path):
    schema = read_schema(stage1[1])
    tfdv.get_feature(schema, "work").distribution_constraints.min_domain_mass = 0.75
    tfdv.get_feature(schema, "work").drift_comparator.infinity_norm.threshold = 0.3
    tfdv.get_feature(schema, "age").presence.min_fraction = 0.5
    schema = curated(tmp_path / "schema", text_format.MessageToString(schema))
    tables = {"train": table(work=first(20, "sea", "work"), age=first(50, None, "age"))}
    statistics = statistics_of(tmp_path / "statistics", tables)
    lines, _ = problems(tmp_path / "anomalies", statistics, schema, stage1[0])
    assert len(lines) == 1 and "'age': it drifted" in lines[0]


def test_a_curated_schema_may_measure_drift_in_its_own_way(stage1, tmp_path):
    schema = read_schema(stage1[1])
    comparator = tfdv.get_feature(schema, "work").drift_comparator
    comparator.jensen_shannon_divergence.threshold = 0.05
    comparator.normalized_abs_difference.threshold = 0.01
    schema = curated(tmp_path / "schema", text_format.MessageToString(schema))
    rows = {"train": table(work=["office"] * 99 + ["farm"])}
    statistics = statistics_of(tmp_path / "statistics", rows)
    _, written = problems(tmp_path / "anomalies", statistics, schema, stage1[0])
    told = {p["what"].split("stage 1: ")[1].split(" between")[0]: p for p in written}
    assert {name: problem["setting"] for name, problem in told.items()} == {
        "The Linfty distance": "max_drift",
        "The approximate Jensen-Shannon divergence": None,
        "The normalized absolute difference": None,
    }
    assert told["The Linfty distance"]["found"] == pytest.approx(0.39)
    drifts = json.loads((tmp_path / "anomalies" / "drift.json").read_text())
    measures = {d["measure"] for d in drifts if (d["split"], d["feature"]) == ("train", "work")}
    assert measures == {
        "L-infinity distance",
        "Jensen-Shannon divergence",
        "normalized absolute difference",
    }


def test_other_types_missing_columns_and_unknown_features(stage1, tmp_path):
    texts = (
        CategoricalFeature("age"),
        CategoricalFeature("color"),
        *(f for f in FEATURES if f.name not in ("age", "code")),
    )
    rows = table(age=["old"] * ROWS, color=["red"] * ROWS).drop_columns(["code"])
    statistics = statistics_of(tmp_path / "statistics", dict.fromkeys(SPLITS, rows), texts)
    features = (*FEATURES, CategoricalFeature("color"), CategoricalFeature("nowhere"))
    lines, written = problems(
        tmp_path / "anomalies", statistics, stage1[1], stage1[0], features, max_missing=1.0
    )
    assert lines[: len(lines) // 3] == [
        "- split 'train', feature 'color': the schema does not know it",
        "- split 'train', feature 'nowhere': the schema does not know it",
        "- split 'train', feature 'age': Expected data of type: FLOAT but got STRING",
        "- split 'train', feature 'code': Column is completely missing",
    ]
    assert all(problem["setting"] is None for problem in written)


def test_a_split_without_rows(stage1, tmp_path):
    statistics = statistics_of(tmp_path / "statistics", {"validation": table().slice(0, 0)})
    lines, _ = problems(tmp_path / "anomalies", statistics, stage1[1], stage1[0])
    assert lines == ["- split 'validation': it has no rows"]
    own = learned(tmp_path / "schema", statistics)
    assert read_schema(own) == read_schema(stage1[1])


def test_labels_of_other_tasks_do_not_stop(stage1, tmp_path):
    statistics = statistics_of(tmp_path / "statistics", task="rated")
    anomalies = check(tmp_path / "anomalies", statistics, stage1[1], stage1[0])
    found = schema_diff(anomalies, "train").anomaly_info
    assert {info.path.step[0] for info in found.values()} == {
        "label:bought",
        "label:rated",
        "weight:bought",
        "weight:rated",
    }


def jensen_shannon(p, q):
    middle = (p + q) / 2
    return sum(0.5 * np.sum(x[x > 0] * np.log2(x[x > 0] / middle[x > 0])) for x in (p, q))


def test_drift_is_that_of_numpy(tmp_path):
    """Numbers of two values only, so that the histogram's bins lose nothing."""
    base_rows = table(age=[0.0] * 50 + [1.0] * 50)
    base = statistics_of(tmp_path / "base", dict.fromkeys(SPLITS, base_rows))
    schema = learned(tmp_path / "schema", base)
    shifted = table(
        age=[0.0] * 90 + [1.0] * 10,
        work=["office"] * 85 + ["farm"] * 15,
        tags=[["b"]] * 50 + [["a", "b"]] * 50,
    )
    statistics = statistics_of(
        tmp_path / "statistics", {"train": shifted, "validation": base_rows, "test": shifted}
    )
    lines, written = problems(tmp_path / "anomalies", statistics, schema, base)
    drifts = json.loads((tmp_path / "anomalies" / "drift.json").read_text())
    assert len(drifts) == len(SPLITS) * len(FEATURES)
    assert {drift["value"] for drift in drifts if drift["split"] == "validation"} == {0}
    values = {drift["feature"]: drift for drift in drifts if drift["split"] == "train"}
    assert values.keys() == {drift["feature"] for drift in drifts if drift["split"] == "test"}
    frequencies = {
        "work": (np.array([0.6, 0.4]), np.array([0.85, 0.15])),
        "code": (np.full(4, 0.25), np.full(4, 0.25)),
        "tags": (np.array([100, 50]) / 150, np.array([50, 100]) / 150),
    }
    for name, (p, q) in frequencies.items():
        assert values[name]["measure"] == "L-infinity distance"
        assert values[name]["value"] == pytest.approx(np.abs(p - q).max(), abs=1e-9)
    divergence = jensen_shannon(np.array([0.5, 0.5]), np.array([0.9, 0.1]))
    assert values["age"]["measure"] == "Jensen-Shannon divergence"
    assert values["age"]["value"] == pytest.approx(divergence, rel=0.02)
    assert [(p["split"], p["feature"], p["setting"]) for p in written] == [
        ("train", name, "max_drift") for name in ("age", "work", "tags")
    ]
    assert "`pipeline.checks.max_drift: 0.25` would allow it" in lines[1]
    enough = max(float(re.search(r"max_drift: ([\d.]+)", line)[1]) for line in lines)
    check(tmp_path / "allowed", statistics, schema, base, max_drift=enough)


def test_a_schema_file_is_checked_before_any_work(stage1, tmp_path):
    path = tmp_path / "schema.pbtxt"
    with pytest.raises(PipelineError, match=r"no such file: .*schema\.pbtxt"):
        check_schema_file(str(path), FEATURES)
    path.write_text("feature {\n  nam: 'age'\n}\n")
    with pytest.raises(PipelineError, match=r"schema\.pbtxt is not a schema.*2:3.*nam"):
        check_schema_file(str(path), FEATURES)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PipelineError, match="is not a schema"):
        check_schema_file(str(path), FEATURES)
    path.write_text(text_format.MessageToString(read_schema(stage1[1])))
    text = check_schema_file(str(path), FEATURES, ["bought"])
    assert read_schema(curated(tmp_path / "copy", text)) == read_schema(stage1[1])
    train = tfdv.load_stats_binary(f"{stage1[0].uri}/Split-train/FeatureStats.pb")
    shapes = tfdv.infer_schema(train, infer_feature_shape=True)
    path.write_text(text_format.MessageToString(shapes))
    others = (NumericFeature("work"), CategoricalFeature("color"), MultiValuedFeature("tags"))
    with pytest.raises(PipelineError) as error:
        check_schema_file(str(path), others, ["bought", "rated"])
    assert [
        line.removeprefix(f"pipeline.schema: {path}: ") for line in str(error.value).split("\n")
    ] == [
        "'work' has a shape, so that no cell may be missing; give it value_count { min: 1 max: 1 } "
        "instead",
        "'work' must be of type FLOAT, got BYTES",
        "it does not know 'color', of type BYTES",
        "it does not know 'label:rated', of type FLOAT",
        "it does not know 'weight:rated', of type FLOAT",
    ]


def test_a_run_stops_until_more_is_allowed_or_the_schema_knows_more(stage1, tmp_path):
    """Real runs: statistics of examples, drift from an artifact known by its URI alone."""
    examples = write_examples(tmp_path / "examples", {"test": table(work=first(4, "sea", "work"))})
    database = tfx.orchestration.metadata.sqlite_metadata_connection_config(
        str(tmp_path / "metadata.sqlite")
    )

    def run(text, **settings):
        rows = tfx.dsl.Importer(
            source_uri=str(examples),
            artifact_type=artifacts.Examples,
            properties={"split_names": artifact_utils.encode_split_names(list(SPLITS))},
        ).with_id("Rows")
        base = tfx.dsl.Importer(
            source_uri=stage1[0].uri, artifact_type=artifacts.ExampleStatistics
        ).with_id("Base")
        statistics = tfx.components.StatisticsGen(examples=rows.outputs["result"])
        schema = CuratedSchema(text=text)
        validator = DataValidator(
            statistics=statistics.outputs["statistics"],
            schema=schema.outputs["schema"],
            base_statistics=base.outputs["result"],
            features=feature_kinds(FEATURES),
            **(STRICT | settings),
        )
        require = RequireValidData(anomalies=validator.outputs["anomalies"])
        after = LearnedSchema(
            statistics=statistics.outputs["statistics"], features=feature_kinds(FEATURES)
        )
        after.add_upstream_node(require)
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="checks",
                pipeline_root=str(tmp_path / "root"),
                components=[rows, base, statistics, schema, validator, require, after],
                enable_cache=True,
                metadata_connection_config=database,
                beam_pipeline_args=BEAM,
            )
        )

    def executed(component):
        """How each run of a component ended."""
        executions = sorted(store.get_executions_by_type(component), key=lambda e: e.id)
        states = {state: name for name, state in metadata_store_pb2.Execution.State.items()}
        return [states[execution.last_known_state] for execution in executions]

    text = text_format.MessageToString(read_schema(stage1[1]))
    with pytest.raises(PipelineError, match=r"'test', feature 'work': .*'sea' \(4.00%\)"):
        run(text)
    store = metadata_store.MetadataStore(database)
    (kept,) = store.get_artifacts_by_type("ExampleAnomalies")
    assert kept.state == kept.LIVE
    assert dict(kept.custom_properties["blessed"].struct_value.items()) == {
        "train": 1,
        "validation": 1,
        "test": 0,
    }
    assert executed("pipelines.components.validation.DataValidator") == ["COMPLETE"]
    assert executed("pipelines.components.validation.RequireValidData") == ["FAILED"]
    assert executed("pipelines.components.schema.LearnedSchema") == []
    with pytest.raises(PipelineError, match="sea"):
        run(text)
    assert executed("pipelines.components.validation.DataValidator") == ["COMPLETE", "CACHED"]
    run(text, max_new_categories=0.04)
    assert executed("pipelines.components.schema.LearnedSchema") == ["COMPLETE"]
    (learned_schema,) = (
        artifact
        for artifact in store.get_artifacts_by_type("Schema")
        if "LearnedSchema" in artifact.uri
    )
    known = tfdv.get_domain(tfdv.load_schema_text(f"{learned_schema.uri}/schema.pbtxt"), "work")
    assert list(known.value) == ["farm", "office", "sea"]
    run(text.replace('value: "farm"', 'value: "farm"\n  value: "sea"'))
    assert executed("pipelines.components.schema.CuratedSchema")[-1] == "COMPLETE"
    validated = executed("pipelines.components.validation.DataValidator")
    assert validated == ["COMPLETE", "CACHED", "COMPLETE", "COMPLETE"]
