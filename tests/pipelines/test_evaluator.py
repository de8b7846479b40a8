"""The Evaluator: what labels do not define is not shown, and holds up no slice, but all rows."""

import json

import numpy as np
import pipeline_models as models
import pytest
from google.protobuf import json_format
from tfx.components.evaluator import executor
from tfx.types import standard_artifacts as artifacts

from mptrec_tf.data import read_chunks
from mptrec_tf.pipeline_config import Threshold
from mptrec_tf.spec import Task
from pipelines.components.evaluation import eval_config
from pipelines.components.judge import EvaluatorExecutor
from pipelines.examples import open_writer, raw_examples
from pipelines.nodes import beam_arguments
from pipelines.reporting.metrics import metrics_of
from pipelines.reporting.verdict import refusals

CLICK = Task("click", "click", weight="importance")


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return models.make_stages(tmp_path_factory.mktemp("models"))


def write_examples(uri, **columns):
    """Raw examples of 300 rows in two cities whose labels weigh little."""
    rows = models.make_rows() | {"importance": np.full(models.ROWS, 1e-4)} | columns
    (chunk,) = read_chunks(rows, models.FEATURES, [CLICK])
    with open_writer(str(uri / "Split-test"), 0) as writer:
        for example in raw_examples(chunk, models.FEATURES, [CLICK]):
            writer.write(example)
    return uri


def artifact(kind, uri, **properties):
    made = kind()
    uri.mkdir(exist_ok=True)
    made.uri, made.id = str(uri), 1
    for name, value in properties.items():
        setattr(made, name, value)
    return made


def judged(directory, stages, thresholds, *, baseline=False, **columns):
    """Whether the model is blessed, why not, and the metrics by slice and name."""
    rows = artifact(
        artifacts.Examples,
        write_examples(directory / "rows", **columns),
        split_names='["test"]',
    )
    evaluation = artifact(artifacts.ModelEvaluation, directory / "evaluation")
    blessing = artifact(artifacts.ModelBlessing, directory / "blessing")
    config = eval_config(
        [CLICK],
        baseline_tasks=["click"] if baseline else [],
        slices=["city"],
        thresholds=[Threshold("click", **threshold) for threshold in thresholds],
    )
    inputs = {"examples": [rows], "model": [artifact(artifacts.Model, stages.candidate)]}
    if baseline:
        inputs["baseline_model"] = [artifact(artifacts.Model, stages.base)]
    context = executor.Executor.Context(beam_pipeline_args=beam_arguments([]))
    EvaluatorExecutor(context).Do(
        inputs,
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "eval_config": json_format.MessageToJson(config, preserving_proto_field_name=True),
            "example_splits": json.dumps(["test"]),
        },
    )
    blessed = blessing.get_int_custom_property("blessed")
    assert [file.name for file in (directory / "blessing").iterdir()] == [
        "BLESSED" if blessed else "NOT_BLESSED"
    ]
    metrics = {(row.slice, row.metric): row.value for row in metrics_of(evaluation.uri)}
    return bool(blessed), refusals(evaluation.uri, None), metrics


def one_label_in(city):
    """Clicks, but none in a city."""
    rows = models.make_rows()
    return np.where(rows["city"] == city, 0, rows["click"])


HARMLESS = [
    {"min": 0.01, "slices": True},
    {"metric": "calibration", "min": 0.001, "slices": True},
]


def test_a_slice_whose_labels_are_all_the_same_refuses_no_model(stages, tmp_path):
    blessed, reasons, metrics = judged(tmp_path, stages, HARMLESS, click=one_label_in("Oslo"))
    assert (blessed, reasons) == (True, [])
    assert {"auc", "calibration"} == {
        metric for where, metric in metrics if where == "all rows"
    } - {metric for where, metric in metrics if where == "city = Oslo"}
    assert 0 < metrics["city = Lima", "auc"] < 1


def test_a_slice_without_a_label_refuses_no_model(stages, tmp_path):
    rows = models.make_rows()
    click = np.where(rows["city"] == "Oslo", np.nan, rows["click"])
    thresholds = [*HARMLESS, {"metric": "log_loss", "max": 9.0, "slices": True}]
    assert judged(tmp_path, stages, thresholds, click=click)[:2] == (True, [])


def test_other_slices_are_still_held_to_it(stages, tmp_path):
    thresholds = [{"min": 0.01}, {"min": 0.999, "slices": True}]
    blessed, reasons, _ = judged(tmp_path, stages, thresholds, click=one_label_in("Oslo"))
    assert not blessed
    slices = [reason.split(": ")[0] for reason in reasons]
    assert slices == ["task 'click', all rows", "task 'click', city = Lima"]
    assert all("demanded is at least 0.999" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("threshold", "demanded", "baseline"),
    [
        ({"min": 0.7}, "at least 0.7", False),
        ({"max": 1.0}, "at most 1", False),
        ({"worse_by": 0.1}, "not worse by more than 0.1 than the last one", True),
    ],
)
def test_all_rows_with_the_same_label_refuse_a_model(
    stages, tmp_path, threshold, demanded, baseline
):
    ones = np.ones(models.ROWS)
    blessed, reasons, metrics = judged(tmp_path, stages, [threshold], baseline=baseline, click=ones)
    assert not blessed
    assert reasons == [
        "task 'click', all rows: auc is undefined (all labelled rows have the same label), "
        f"demanded is {demanded}"
    ]
    assert ("all rows", "auc") not in metrics


def test_rows_without_any_label_refuse_a_model(stages, tmp_path):
    click = np.full(models.ROWS, np.nan)
    blessed, reasons, _ = judged(tmp_path, stages, [], click=click)
    assert (blessed, reasons) == (False, ["task 'click', all rows: none has a label"])


@pytest.mark.parametrize("weight", [0.0, 1e-9])
def test_labels_that_weigh_next_to_nothing_are_labels(stages, tmp_path, weight):
    importance = np.full(models.ROWS, weight)
    assert judged(tmp_path, stages, [], importance=importance)[0]
