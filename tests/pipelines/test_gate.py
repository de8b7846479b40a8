"""The gate: what it lets through, what it refuses, and that Pusher and resolver obey it."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pipeline_models as models
import pytest
import tensorflow as tf
from ml_metadata import MetadataStore
from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.orchestration import metadata
from tfx.types import standard_artifacts as artifacts

from mptrec_tf.errors import PipelineError, ServingError
from pipelines.components.gate import GATE_FILE, FrozenTaskGate, compare
from pipelines.components.pusher import PusherExecutor
from pipelines.examples import split_files


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return models.make_stages(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return models.write_examples(tmp_path_factory.mktemp("examples"), "test")


@pytest.fixture(scope="module")
def changed(stages, tmp_path_factory):
    """The candidate with another last bit in the last bias of the frozen tower of "visits"."""
    bias = stages.model.towers.heads[0].biases[0]
    assert bias.shape == (2, 1)  # of "click" and "visits"
    with models.last_bit_changed(bias, (1, 0)):
        return models.write(stages.model, tmp_path_factory.mktemp("models") / "changed")


def artifact(kind, uri, number=0, **properties):
    made = kind()
    made.uri, made.id = str(uri), number
    for name, value in properties.items():
        made.set_int_custom_property(name, value)
    return made


def run_gate(directory, candidate, base, examples, *, evaluated=1, splits=("test",), **parameters):
    rows = artifact(artifacts.Examples, examples)
    rows.split_names = json.dumps(list(splits))
    directory.mkdir()
    blessing = artifact(artifacts.ModelBlessing, directory)
    FrozenTaskGate.test_call(
        model=artifact(artifacts.Model, candidate, 7),
        base_model=artifact(artifacts.Model, base, 3),
        examples=rows,
        model_blessing=artifact(artifacts.ModelBlessing, "unused", blessed=evaluated),
        blessing=blessing,
        **parameters,
    )
    return blessing, json.loads((directory / GATE_FILE).read_text())


def answers(uri, task, examples, count=models.ROWS):
    """Of the model on all rows at once, as bytes."""
    files = sorted(map(str, (examples / "Split-test").iterdir()))
    rows = list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())[:count]
    loaded = tf.saved_model.load(str(uri / models.SERVING))
    return loaded.signatures["serving_default"](examples=tf.constant(rows))[task].numpy()


def test_a_frozen_model_is_blessed(stages, examples, tmp_path):
    blessing, report = run_gate(tmp_path / "b", stages.candidate, stages.base, examples)
    assert blessing.get_int_custom_property("blessed") == 1
    assert blessing.get_string_custom_property("current_model") == str(stages.candidate)
    assert blessing.get_int_custom_property("current_model_id") == 7
    assert blessing.get_int_custom_property("baseline_model_id") == 3
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == ["BLESSED", GATE_FILE]
    assert report["blessed"] and report["same_frozen_weights"] and report["evaluator_blessed"]
    assert report["verdict"].startswith("blessed: ")
    assert report["split"] == "test"
    assert set(report["tasks"]) == {"click", "visits", "color"}
    for name, task in report["tasks"].items():
        expected = hashlib.sha256(answers(stages.base, name, examples).tobytes()).hexdigest()
        assert task == {
            "rows": models.ROWS,
            "rows_that_differ": 0,
            "largest_difference": 0.0,
            "base_sha256": expected,
            "sha256": expected,
            "unchanged": True,
        }


def test_one_bit_of_a_frozen_weight_is_seen_and_its_task_named(stages, changed, examples, tmp_path):
    blessing, report = run_gate(tmp_path / "b", changed, stages.base, examples)
    assert blessing.get_int_custom_property("blessed") == 0
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == ["NOT_BLESSED", GATE_FILE]
    before, after = (answers(uri, "visits", examples) for uri in (stages.base, changed))
    differ = int((before != after).sum())
    task = report["tasks"]["visits"]
    assert differ > 0
    assert task["rows_that_differ"] == differ
    assert task["largest_difference"] == np.abs(before.astype(float) - after).max() < 1e-6
    assert task["base_sha256"] == hashlib.sha256(before.tobytes()).hexdigest()
    assert task["sha256"] == hashlib.sha256(after.tobytes()).hexdigest()
    unchanged = {name for name, other in report["tasks"].items() if other["unchanged"]}
    assert unchanged == {"click", "color"}
    assert f"the task 'visits' answers otherwise in {differ} of 300 rows" in report["verdict"]
    assert "frozen weights are not the weights of the base" in report["verdict"]
    assert "'click'" not in report["verdict"] and "'color'" not in report["verdict"]


def test_answers_are_compared_whatever_the_manifest_claims(stages, changed, examples, tmp_path):
    shutil.copytree(changed, tmp_path / "liar")
    claimed = models.manifest(stages.base).fingerprint
    told = dataclasses.replace(models.manifest(changed), frozen_fingerprint=claimed)
    told.write(tmp_path / "liar" / models.SERVING)
    blessing, report = run_gate(tmp_path / "b", tmp_path / "liar", stages.base, examples)
    assert report["same_frozen_weights"]
    assert blessing.get_int_custom_property("blessed") == 0
    assert report["verdict"].startswith("refused: the task 'visits' answers otherwise")


def test_a_changed_weight_that_no_row_shows_is_refused(stages, examples, tmp_path):
    model = stages.model
    rome = model.encoder.encode({"age": [30], "city": ["Rome"]})["categorical"][0, 0]
    (table,) = model.backbone.embedding.weights
    with models.last_bit_changed(table, (int(rome), 0)):
        other = models.write(model, tmp_path / "other")
    blessing, report = run_gate(tmp_path / "b", other, stages.base, examples)
    assert all(task["unchanged"] for task in report["tasks"].values())
    assert blessing.get_int_custom_property("blessed") == 0
    assert report["verdict"] == (
        "refused: its frozen weights are not the weights of the base model"
    )


def test_nothing_is_blessed_that_the_evaluator_did_not_bless(stages, examples, tmp_path):
    blessing, report = run_gate(
        tmp_path / "b", stages.candidate, stages.base, examples, evaluated=0
    )
    assert blessing.get_int_custom_property("blessed") == 0
    assert report["verdict"] == "refused: the Evaluator did not bless it"
    assert not report["evaluator_blessed"]


def test_a_model_that_lacks_a_task_of_its_base_is_refused(stages, examples, tmp_path):
    blessing, report = run_gate(tmp_path / "b", stages.base, stages.candidate, examples)
    assert blessing.get_int_custom_property("blessed") == 0
    assert "it lacks the task 'buy' of the base model" in report["verdict"]
    assert report["tasks"]["buy"]["sha256"] is None
    assert report["tasks"]["buy"]["rows_that_differ"] == models.ROWS


def test_rows_are_the_first_ones_of_the_test_split_or_else_of_validation(
    stages, examples, tmp_path
):
    _, report = run_gate(tmp_path / "few", stages.candidate, stages.base, examples, max_rows=130)
    first = answers(stages.base, "click", examples, 130)
    assert report["tasks"]["click"]["rows"] == 130
    assert report["tasks"]["click"]["sha256"] == hashlib.sha256(first.tobytes()).hexdigest()

    validation = models.write_examples(tmp_path / "examples", "validation")
    splits = ("train", "validation")
    _, report = run_gate(tmp_path / "v", stages.candidate, stages.base, validation, splits=splits)
    assert report["split"] == "validation"
    assert report["tasks"]["click"]["rows"] == models.ROWS

    with pytest.raises(PipelineError, match=r"splits \['train'\], expected 'test'"):
        run_gate(tmp_path / "t", stages.candidate, stages.base, examples, splits=("train",))
    with pytest.raises(PipelineError, match="no rows to compare"):
        run_gate(tmp_path / "n", stages.candidate, stages.base, examples, max_rows=0)


def test_what_is_no_export_is_named(stages, examples, tmp_path):
    with pytest.raises(ServingError, match=r"nowhere/Format-Serving has no assets\.extra"):
        run_gate(tmp_path / "b", tmp_path / "nowhere", stages.base, examples)


class Constant(tf.Module):
    """A SavedModel that answers what it is told, over as many batches as there are."""

    def __init__(self, values):
        self.values = tf.constant(values)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def serve(self, examples):
        return {"task": self.values[: tf.shape(examples)[0]]}

    def save(self, path):
        tf.saved_model.save(self, str(path), signatures={"serving_default": self.serve})
        return str(path)


@pytest.mark.parametrize(
    ("after", "differ", "largest"),
    [
        ([1.0, np.nan, np.inf, 0.0], 0, 0.0),
        ([1.5, np.nan, np.inf, 0.0], 1, 0.5),
        ([1.0, np.nan, np.inf, -0.0], 1, 0.0),
        ([1.0, 2.0, np.inf, 0.0], 1, None),
        ([1.0, np.nan, 2.0, 1.0], 2, None),
    ],
)
def test_bytes_are_compared_with_nan_and_signed_zero(after, differ, largest, examples, tmp_path):
    before = np.array([1.0, np.nan, np.inf, 0.0], np.float32)
    base = Constant(before).save(tmp_path / "base")
    candidate = Constant(np.array(after, np.float32)).save(tmp_path / "candidate")
    files = split_files(str(examples), "test")
    task = compare(candidate, base, files, max_rows=4)["task"]
    assert (task.rows, task.rows_that_differ, task.largest_difference) == (4, differ, largest)
    assert task.unchanged == (differ == 0)


def test_another_shape_or_type_is_another_answer(examples, tmp_path):
    values = np.zeros(4, np.float32)
    base = Constant(values).save(tmp_path / "base")
    files = split_files(str(examples), "test")
    for name, other in (("wide", np.zeros((4, 1), np.float32)), ("long", np.zeros(4, np.int32))):
        candidate = Constant(other).save(tmp_path / name)
        task = compare(candidate, base, files, max_rows=4)["task"]
        assert (task.rows_that_differ, task.largest_difference) == (4, None)
        assert task.sha256 == task.base_sha256  # of the bytes alone
        assert not task.unchanged


def imported(name, kind, uri, **arguments):
    node = tfx.dsl.Importer(str(uri), kind, **arguments).with_id(name)
    return node, node.outputs["result"]


def test_pusher_and_resolver_obey_the_gate_in_a_pipeline(stages, changed, examples, tmp_path):
    serving, store = tmp_path / "serving", str(tmp_path / "metadata.sqlite")
    nodes, channels = zip(
        *(
            imported("base", artifacts.Model, stages.base),
            imported("good", artifacts.Model, stages.candidate),
            imported("bad", artifacts.Model, changed),
            imported("rows", artifacts.Examples, examples, properties={"split_names": '["test"]'}),
            imported(
                "evaluated",
                artifacts.ModelBlessing,
                examples,
                custom_properties={"blessed": 1},
            ),
        ),
        strict=True,
    )
    base, good, bad, rows, evaluated = channels
    nodes[1].add_downstream_node(nodes[2])  # the refused model is the latest
    gates, pushers = [], []
    for name, model in (("good", good), ("bad", bad)):
        gate = FrozenTaskGate(
            model=model, base_model=base, examples=rows, model_blessing=evaluated
        ).with_id(f"gate_{name}")
        pusher = tfx.components.Pusher(
            model=model,
            model_blessing=gate.outputs["blessing"],
            push_destination=tfx.proto.PushDestination(
                filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(serving))
            ),
            custom_executor_spec=executor_spec.ExecutorClassSpec(PusherExecutor),
        ).with_id(f"pusher_{name}")
        gates.append(gate)
        pushers.append(pusher)
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(store)
    tfx.orchestration.LocalDagRunner().run(
        tfx.dsl.Pipeline(
            pipeline_name="gated",
            pipeline_root=str(tmp_path / "root"),
            components=[*nodes, *gates, *pushers],
            metadata_connection_config=connection,
        )
    )
    with metadata.Metadata(connection) as handle:
        mlmd: MetadataStore = handle.store

        def of_type(kind):
            type_ = mlmd.get_artifact_type(kind.TYPE_NAME)
            found = []
            for each in mlmd.get_artifacts_by_type(kind.TYPE_NAME):
                found.append(kind())
                found[-1].set_mlmd_artifact_type(type_)
                found[-1].set_mlmd_artifact(each)
            return found

        blessings = [b for b in of_type(artifacts.ModelBlessing) if "gate" in b.uri]
        by_model = {b.get_string_custom_property("current_model"): b for b in blessings}
        assert by_model[str(stages.candidate)].get_int_custom_property("blessed") == 1
        assert by_model[str(changed)].get_int_custom_property("blessed") == 0
        inputs = {"model": of_type(artifacts.Model), "model_blessing": blessings}
        assert max(inputs["model"], key=lambda model: model.id).uri == str(changed)
        (latest,) = LatestBlessedModelStrategy().resolve_artifacts(mlmd, inputs)["model"]
        assert latest.uri == str(stages.candidate)
        pushed = {p.get_int_custom_property("pushed"): p for p in of_type(artifacts.PushedModel)}
    assert sorted(child.name for child in serving.iterdir()) == ["1"]
    assert pushed[1].get_string_custom_property("pushed_version") == "1"
    assert pushed[1].get_string_custom_property("pushed_destination") == str(serving / "1")
    assert pushed[0].get_string_custom_property("pushed_destination") == ""
