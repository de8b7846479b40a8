"""Lineage of a small real chain against what was put together by hand."""

import json
import re

import matplotlib.image
import pytest
import tiny_pipelines as tiny

from mptrec_tf.errors import PipelineError
from mptrec_tf.pipeline_config import PipelineConfig
from pipelines.base import SERVING_DIRECTORY
from pipelines.components import trainer
from pipelines.metadata import Store, connection
from pipelines.reporting.lineage import TRAINING_FILE, to_json, to_text, trace
from pipelines.reporting.lineage_plot import plot
from pipelines.runners.local import run

VERSION_1 = """\
PushedModel 6, TIME
│    DIR/artifacts/Pusher/pushed_model/5
│    pushed_destination=DIR/serving/tiny/1
│    pushed_version=1
└─ Pusher 5, SECONDS
   │    base_directory=DIR/serving/tiny
   │    version=1
   ├─ model: Model 3 (version 1), TIME
   │  │    DIR/artifacts/Trainer/model/3
   │  │    settings.model.expert_units=[8, 4]
   │  │    settings.training.learning_rate=0.01
   │  │    best_epoch=2
   │  │    epochs=2
   │  │    metrics.val_auc=0.625
   │  └─ Trainer 3, SECONDS
   │     │    settings.epochs=2
   │     │    settings.training.learning_rate=0.01
   │     ├─ examples: Examples 1, TIME
   │     │  │    DIR/artifacts/Ingest/examples/1
   │     │  │    input_fingerprint=rows:3
   │     │  │    rows:test=1
   │     │  │    rows:train=2
   │     │  │    span=1
   │     │  │    split_names=[train, test]
   │     │  └─ Ingest 1, SECONDS
   │     │          rows=3
   │     └─ graph: TransformGraph 2, TIME
   │        │    DIR/artifacts/Transform/graph/2
   │        └─ Transform 2, SECONDS
   │           └─ examples: Examples 1, as above
   └─ model_blessing: ModelBlessing N, TIME
      │    DIR/artifacts/Evaluator/blessing/4
      │    blessed=1
      └─ Evaluator 4, SECONDS
         ├─ examples: Examples 1, as above
         ├─ model: Model 3 (version 1), as above
         └─ also made: evaluation: ModelEvaluation N
                 DIR/artifacts/Evaluator/evaluation/4
                 auc=0.75
"""

VERSION_2 = """\
PushedModel 11, TIME
│    DIR/artifacts/Pusher/pushed_model/11
│    pushed_destination=DIR/serving/tiny/2
│    pushed_version=2
└─ Pusher 11, SECONDS
   │    base_directory=DIR/serving/tiny
   │    version=2
   ├─ model: Model 8 (version 2), TIME
   │  │    DIR/artifacts/TaskTrainer/model/9
   │  └─ TaskTrainer 9, SECONDS
   │     │    settings.epochs=1
   │     ├─ base_model: Model 3 (version 1) of tiny-pretrain, TIME
   │     │       DIR/artifacts/Trainer/model/3
   │     ├─ examples: Examples 7, TIME
   │     │  │    DIR/artifacts/Ingest/examples/8
   │     │  │    input_fingerprint=rows:5
   │     │  │    rows:test=1
   │     │  │    rows:train=4
   │     │  │    span=2
   │     │  │    split_names=[train, test]
   │     │  └─ Ingest 8, SECONDS
   │     │          rows=5
   │     └─ graph: TransformGraph 2 of tiny-pretrain, TIME
   │             DIR/artifacts/Transform/graph/2
   └─ model_blessing: ModelBlessing N, TIME
      │    DIR/artifacts/Evaluator/blessing/10
      │    blessed=1
      └─ Evaluator 10, SECONDS
         ├─ examples: Examples 7, as above
         ├─ model: Model 8 (version 2), as above
         └─ also made: evaluation: ModelEvaluation N
                 DIR/artifacts/Evaluator/evaluation/10
                 auc=0.75

made before, by tiny-pretrain:
  Ingest 1: files -> Examples 1
      input_fingerprint=rows:3
      rows:test=1
      rows:train=2
      span=1
      split_names=[train, test]
  Transform 2: Examples 1 -> TransformGraph 2
  Trainer 3: Examples 1, TransformGraph 2 -> Model 3 (version 1)
      settings.model.expert_units=[8, 4]
      settings.training.learning_rate=0.01
      best_epoch=2
      epochs=2
      metrics.val_auc=0.625
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Version 1 of stage 1, version 2 with a task on top of it, version 3 with one on that."""
    directory = tmp_path_factory.mktemp("runs")

    def run_one(pipeline):
        return run(pipeline, log_file=directory / "run.log", progress=False).executions

    first = run_one(tiny.pretrain(directory))
    [graph] = first["Transform"].outputs["graph"]
    [base] = first["Trainer"].outputs["model"]
    second = run_one(tiny.prompt_tune(directory, base, graph))
    [base] = second["TaskTrainer"].outputs["model"]
    run_one(tiny.prompt_tune(directory, base, graph, version=3, name="tiny-like"))
    return directory


def open_store(directory):
    return Store(connection(PipelineConfig(), directory))


def traced(directory, version):
    store = open_store(directory)
    return trace(store, store.pushed_version(version).artifact)


def settled(text, directory):
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "TIME", text.replace(str(directory), "DIR"))
    text = re.sub(r"(ModelBlessing|ModelEvaluation) \d+", r"\1 N", text)  # in either order
    return re.sub(r"\d+\.\d s", "SECONDS", text)


@pytest.mark.parametrize(("version", "expected"), [(1, VERSION_1), (2, VERSION_2)])
def test_the_text_is_what_was_put_together(version, expected, output, monkeypatch):
    monkeypatch.setattr(
        "pipelines.reporting.lineage.WIDTH", 0
    )  # each property on a line of its own
    assert settled(to_text(traced(output, version)), output) == expected


def test_properties_share_a_line_while_there_is_room(output):
    lines = to_text(traced(output, 1)).splitlines()
    assert "   │     │    settings.epochs=2, settings.training.learning_rate=0.01" in lines
    assert max(len(line) for line in lines if str(output) not in line) <= 100


def test_a_base_of_a_base_is_followed(output):
    text = to_text(traced(output, 3))
    heads = re.findall(r"^made before, by (.*):$", text, re.MULTILINE)
    assert heads == ["tiny-buy", "tiny-pretrain"]
    assert "base_model: Model 8 (version 2) of tiny-buy" in text
    assert "  TaskTrainer 9: Model 3 (version 1), Examples 7, TransformGraph 2 -> Model 8" in text


def test_json_has_every_step(output):
    plain = json.loads(json.dumps(to_json(traced(output, 2))))
    assert plain["artifact"] == 11
    steps = {
        step["component"]: (step["pipeline"], step["inputs"], step["outputs"])
        for step in plain["executions"]
        if step["component"] in ("Trainer", "TaskTrainer", "Evaluator", "Pusher")
    }
    made = steps["Evaluator"][2]
    assert sorted(made["blessing"] + made["evaluation"]) == [9, 10]
    assert steps == {
        "Trainer": ("tiny-pretrain", {"examples": [1], "graph": [2]}, {"model": [3]}),
        "TaskTrainer": (
            "tiny-buy",
            {"base_model": [3], "examples": [7], "graph": [2]},
            {"model": [8]},
        ),
        "Evaluator": ("tiny-buy", {"examples": [7], "model": [8]}, made),
        "Pusher": (
            "tiny-buy",
            {"model": [8], "model_blessing": made["blessing"]},
            {"pushed_model": [11]},
        ),
    }
    artifacts = {artifact["id"]: artifact for artifact in plain["artifacts"]}
    assert sorted(artifacts) == [1, 2, 3, 7, 8, 9, 10, 11]
    assert (artifacts[3]["version"], artifacts[8]["version"]) == (1, 2)
    assert artifacts[3]["facts"]["metrics"] == {"val_auc": 0.625}
    assert artifacts[7]["properties"]["span"] == 2


def test_settings_are_where_the_trainer_writes_them():
    assert f"{SERVING_DIRECTORY}/{trainer.TRAINING_FILE}" == TRAINING_FILE


def test_any_artifact_can_be_traced(output):
    store = open_store(output)
    text = to_text(trace(store, store.artifact(2)))
    assert [line.strip("│└├─ ") for line in settled(text, output).splitlines()[:3:2]] == [
        "TransformGraph 2, TIME",
        "Transform 2, SECONDS",
    ]
    assert "Model" not in text
    with pytest.raises(PipelineError, match="no artifact with the id 99"):
        store.artifact(99)


def test_what_came_from_the_cache_is_traced_to_its_maker(tmp_path):
    for version in (1, 2):
        run(tiny.pretrain(tmp_path, version=version), log_file=tmp_path / "log", progress=False)
    lineage = traced(tmp_path, 2)
    first, second = (run.run_id for run in open_store(tmp_path).runs())
    assert {e.component: (e.run_id, e.state) for e in lineage.executions} == {
        "Ingest": (first, "complete"),
        "Transform": (first, "complete"),
        "Trainer": (first, "complete"),
        "Evaluator": (first, "complete"),
        "Pusher": (second, "complete"),
    }


def test_the_picture_shows_every_step(output, tmp_path):
    plot(traced(output, 2), tmp_path / "lineage.svg")
    svg = settled((tmp_path / "lineage.svg").read_text(), output)
    texts = re.findall(r">([^<>]+)</text>", svg)
    names = [text for text in texts if re.match(r"\w+ (\d+|N)( \(version \d\))?$", text)]
    assert sorted(names) == sorted(
        ["Ingest 1", "Examples 1", "Transform 2", "TransformGraph 2", "Trainer 3"]
        + ["Model 3 (version 1)", "Ingest 8", "Examples 7", "TaskTrainer 9", "Model 8 (version 2)"]
        + ["Evaluator 10", "ModelEvaluation N", "ModelBlessing N", "Pusher 11", "PushedModel 11"]
        + ["span 1", "span 2", "blessed 1"]
    )
    assert {"tiny-buy", "tiny-pretrain", "train, test"} < set(texts)


def test_the_picture_can_be_pixels(output, tmp_path):
    plot(traced(output, 1), tmp_path / "lineage.png")
    pixels = matplotlib.image.imread(tmp_path / "lineage.png")
    height, width, _ = pixels.shape
    assert (height > 1000, width > 500) == (True, True)
    assert 0.02 < (pixels[..., :3] < 0.95).any(axis=-1).mean() < 0.6
