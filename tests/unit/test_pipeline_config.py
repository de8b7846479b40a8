"""The section `pipeline` of a configuration: what it means, and what every wrong value says."""

import pytest

from mptrec_tf.config import Config
from mptrec_tf.errors import SpecError
from mptrec_tf.pipeline_config import METRICS, ChecksConfig, PipelineConfig, Threshold
from mptrec_tf.spec.parsing import dump, load_yaml, parse, to_yaml

TASKS = [
    {"name": "click", "label": "click"},
    {"name": "level", "label": "level", "kind": "multiclass", "classes": ["low", "high"]},
    {"name": "money", "label": "money", "kind": "regression"},
]
FULL = {
    "name": "shop-2",
    "push_to": "served",
    "metadata": "mysql://user:password@host:3306/metadata",
    "schema": "schema.pbtxt",
    "checks": {"max_bad_rows": 5, "max_new_categories": 0.25, "max_missing": 1.0, "max_drift": 0.5},
    "slices": ["sex", ["sex", "race"], ["age", "race"]],
    "thresholds": [
        {"task": "click", "min": 0.75, "max": 0.75, "worse_by": 0.0, "slices": True},
        {"task": "click", "metric": "calibration", "min": 0.5, "max": 2},
        {"task": "level", "metric": "log_loss", "max": 0.5},
        {"task": "money", "metric": "mae", "worse_by": 0.125},
    ],
    "tune": True,
    "beam": ["--runner=FnApiRunner", "--direct_num_workers=2"],
    "kubeflow": {"image": "registry/image:1", "root": "gs://bucket/pipelines"},
}


def read(pipeline, **data):
    plain = {
        "data": {"train": "train.csv", **(data or {"validation": "v.csv", "test": "t.csv"})},
        "features": [{"kind": "numeric", "name": "age"}],
        "tasks": TASKS,
        "stage1": {"tasks": ["click"]},
        "pipeline": pipeline,
    }
    return parse(Config, plain, "run.yaml").pipeline


def test_defaults():
    config = read({})
    assert config == PipelineConfig()
    assert (config.name, config.slices, config.thresholds) == ("mptrec", (), ())
    assert (config.split, config.schema, config.metadata, config.kubeflow) == (None,) * 4
    assert config.checks == ChecksConfig(0, 0.0, 0.0, 0.1)
    assert not config.tune


def test_every_key_is_read_and_written_back(tmp_path):
    config = read(FULL)
    assert config.slices == ("sex", ("sex", "race"), ("age", "race"))
    assert config.slice_columns == ("sex", "race", "age")
    assert config.thresholds[0] == Threshold("click", "auc", 0.75, 0.75, 0.0, True)
    file = tmp_path / "pipeline.yaml"
    file.write_text(to_yaml(dump(config)))
    assert parse(PipelineConfig, load_yaml(file), "pipeline.yaml") == config


def test_one_source_is_parted_by_the_shares_given():
    split = read({"split": {"column": "user", "train": 6, "test": 2}}, test=None).split
    assert (split.column, split.train, split.validation, split.test) == ("user", 6, 1, 2)


@pytest.mark.parametrize("kind", METRICS)
def test_every_metric_of_a_kind_may_have_a_threshold_and_no_other(kind):
    task = {"binary": "click", "multiclass": "level", "regression": "money"}[kind]
    for metric in METRICS[kind]:
        assert read({"thresholds": [{"task": task, "metric": metric, "min": 0}]}).thresholds
    for metric in {m for metrics in METRICS.values() for m in metrics} - set(METRICS[kind]):
        with pytest.raises(SpecError) as raised:
            read({"thresholds": [{"task": task, "metric": metric, "min": 0}]})
        assert str(raised.value) == (
            f"run.yaml: pipeline.thresholds: the {kind} task {task!r} has no metric {metric!r}; "
            f"it has {list(METRICS[kind])}"
        )


def click(**threshold):
    return {"thresholds": [{"task": "level", "metric": "accuracy", "min": 0}, threshold]}


@pytest.mark.parametrize(
    ("pipeline", "messages"),
    [
        ({"surprise": 1}, ["pipeline.surprise: no such key"]),
        ({"name": "Census"}, ["pipeline.name: ", "'Census'"]),
        ({"name": ""}, ["pipeline.name: ", "''"]),
        ({"name": 7}, ["pipeline.name: ", "got 7"]),
        ({"push_to": ""}, ["pipeline.push_to: ", "''"]),
        ({"metadata": "sqlite:///x.db"}, ["pipeline.metadata: ", "'sqlite:///x.db'"]),
        ({"schema": ["a", "b"]}, ["pipeline.schema: "]),
        ({"tune": "yes"}, ["pipeline.tune: ", "'yes'"]),
        ({"beam": "--runner=X"}, ["pipeline.beam: ", "'--runner=X'"]),
        ({"split": {}}, ["pipeline.split.column: this key is required"]),
        ({"split": {"column": ""}}, ["pipeline.split.column: ", "''"]),
        ({"split": {"column": "user", "test": 0}}, ["pipeline.split.test: ", "got 0"]),
        ({"split": {"column": "user", "train": 0.8}}, ["pipeline.split.train: ", "got 0.8"]),
        ({"split": {"column": "user", "dev": 1}}, ["pipeline.split.dev: no such key"]),
        ({"checks": {"max_bad_rows": -1}}, ["pipeline.checks.max_bad_rows: ", "got -1"]),
        ({"checks": {"max_bad_rows": 0.5}}, ["pipeline.checks.max_bad_rows: ", "got 0.5"]),
        ({"checks": {"max_missing": 1.5}}, ["pipeline.checks.max_missing: ", "got 1.5"]),
        ({"checks": {"max_new_categories": -0.1}}, ["checks.max_new_categories: ", "got -0.1"]),
        ({"checks": {"max_drift": "low"}}, ["pipeline.checks.max_drift: ", "'low'"]),
        ({"checks": {"drift": 0.1}}, ["pipeline.checks.drift: no such key"]),
        ({"slices": "sex"}, ["pipeline.slices: ", "'sex'"]),
        ({"slices": ["sex", ""]}, ["pipeline.slices[1]: ", "''"]),
        ({"slices": [["sex", 3]]}, ["pipeline.slices[0]", "got 3"]),
        ({"slices": [["sex", ""]]}, ["pipeline.slices[0]", "got ''"]),
        ({"slices": [[]]}, ["pipeline.slices[0]: ", "at least 1 item"]),
        (click(min=0.5), ["pipeline.thresholds[1].task: this key is required"]),
        (click(task="click"), ["pipeline.thresholds[1]: ", "'click': give min, max or worse_by"]),
        (click(task="clik", min=0.5), ["no task 'clik'", "['click', 'level', 'money']"]),
        (click(task="click", metric="f1", min=0), ["pipeline.thresholds[1].metric: ", "'f1'"]),
        (click(task="click", min="high"), ["pipeline.thresholds[1].min: ", "'high'"]),
        (click(task="click", worse_by=-0.1), ["pipeline.thresholds[1].worse_by: ", "got -0.1"]),
        (click(task="click", min=0.9, max=0.8), ["'click'", "min 0.9 is above max 0.8"]),
        (
            click(task="click", metric="calibration", worse_by=0.1),
            ["pipeline.thresholds[1]: ", "worse_by is not for calibration"],
        ),
        (click(task="click", min=0.5, slices="sex"), ["thresholds[1].slices: ", "'sex'"]),
        ({"kubeflow": {"root": "gs://b"}}, ["pipeline.kubeflow.image: this key is required"]),
        ({"kubeflow": {"image": "i"}}, ["pipeline.kubeflow.root: this key is required"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key(pipeline, messages):
    data = {"test": None} if "split" in pipeline else {}
    with pytest.raises(SpecError) as raised:
        read(pipeline, **data)
    assert str(raised.value).startswith("run.yaml: ")
    for message in messages:
        assert message in str(raised.value)


def test_every_wrong_value_is_named_at_once():
    with pytest.raises(SpecError) as raised:
        read({"name": "X", "checks": {"max_drift": 2}, "split": {"column": "u", "test": 0}})
    keys = [line.split(": ")[1] for line in str(raised.value).splitlines()]
    assert keys == ["pipeline.name", "pipeline.split.test", "pipeline.checks.max_drift"]
