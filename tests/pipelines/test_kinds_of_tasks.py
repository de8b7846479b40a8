"""Every kind of task and feature through both pipelines, on synthetic rows with missing labels."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mptrec_tf.config import Config
from mptrec_tf.evaluation import evaluate
from mptrec_tf.models import load_model
from mptrec_tf.spec.parsing import parse
from pipelines import runs
from pipelines.components.trainer import MODEL_FILE
from pipelines.reporting.metrics import metrics_of

pytestmark = pytest.mark.long

ROWS = {"train": 1200, "validation": 400, "test": 500}
TRAINING = {"epochs": 2, "batch_size": 128, "jit_compile": False}
PLAIN = {
    "features": [
        {"kind": "numeric", "name": "age", "missing": 0.0},
        {"kind": "numeric", "name": "height", "encoding": "standardize"},
        {"kind": "categorical", "name": "city", "missing_values": ["?"]},
        {"kind": "categorical", "name": "user", "hash_buckets": 64},
        {"kind": "multivalued", "name": "tags", "max_length": 3},
    ],
    "tasks": [
        {"name": "click", "label": "click"},
        {"name": "stars", "label": "stars", "kind": "regression", "weight": "trust"},
        {
            "name": "topic",
            "label": "topic",
            "kind": "multiclass",
            "classes": ["news", "sport", "music"],
        },
        {"name": "finish", "label": "seconds", "above": 10, "mask": "click"},
    ],
    "stage1": {
        "tasks": ["click", "stars", "topic"],
        "model": {"expert_units": [16, 8], "tower_units": [8]},
        "training": TRAINING,
    },
    "stage2": {"module": {"tower_units": [8], "input_projection": 8}, "training": TRAINING},
}


def write_rows(directory):
    """Synthetic rows: a fifth of the labels are missing."""
    for number, (part, rows) in enumerate(ROWS.items()):
        random = np.random.default_rng(number)
        age = random.uniform(18, 80, rows)
        city = random.choice(["Oslo", "Rome", "?"], rows)
        click = (random.random(rows) < np.where(city == "Oslo", 0.8, 0.3)).astype(float)
        missing = random.random((3, rows)) < 0.2
        topic = np.where(age < 35, "music", random.choice(["news", "sport"], rows))
        table = {
            "age": pa.array(age, mask=random.random(rows) < 0.1),
            "height": random.normal(170, 10, rows),
            "city": city,
            "user": random.integers(0, 500, rows),
            "tags": [list(random.choice(["a", "b", "c"], random.integers(0, 5))) for _ in age],
            "click": pa.array(click, mask=missing[0]),
            "stars": pa.array(age / 20 + random.normal(0, 0.3, rows), mask=missing[1]),
            "trust": random.uniform(0.5, 2, rows),
            "topic": pa.array(topic, mask=missing[2]),
            "seconds": random.uniform(0, 20, rows) + 5 * (age > 50),
        }
        pa.parquet.write_table(pa.table(table), directory / f"{part}.parquet")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kinds")
    write_rows(directory)
    config = parse(
        Config,
        PLAIN
        | {
            "data": {part: str(directory / f"{part}.parquet") for part in ROWS} | {"stream": True},
            "pipeline": {
                "name": "kinds",
                "slices": ["city"],
                "thresholds": [
                    {"task": "topic", "metric": "accuracy", "min": 0.2, "slices": True},
                    {"task": "topic", "metric": "log_loss", "max": 3.0},
                    {"task": "stars", "metric": "mse", "max": 10.0, "worse_by": 5.0},
                    {"task": "click", "metric": "calibration", "min": 0.2, "max": 5.0},
                ],
            },
        },
        "config",
    )
    first = runs.run_pretrain(config, directory / "out")
    second = runs.run_prompt_tune(config, "finish", directory / "out")
    return directory, [first, second]


@pytest.mark.parametrize("stage", [0, 1])
def test_metrics_of_every_kind_are_those_of_the_library(outcomes, stage):
    directory, both = outcomes
    outcome = both[stage]
    assert outcome.version == stage + 1, outcome.reasons
    (model,) = outcome.result.executions["Trainer"].outputs["model"]
    loaded = load_model(f"{model.uri}/Format-Serving/{MODEL_FILE}")
    truth = evaluate(loaded, str(directory / "test.parquet"))
    (evaluation,) = outcome.result.executions["Evaluator"].outputs["evaluation"]
    rows = metrics_of(evaluation.uri)
    found = {(row.task, row.metric): row.value for row in rows if row.slice == "all rows"}
    assert set(truth) == {"click", "stars", "topic", *(["finish"] if stage else [])}
    for task in ("click", *(["finish"] if stage else [])):
        assert found[task, "auc"] == pytest.approx(truth[task]["auc"], abs=1e-3)
        assert found[task, "log_loss"] == pytest.approx(truth[task]["log_loss"], abs=1e-5)
    assert found["topic", "accuracy"] == pytest.approx(truth["topic"]["accuracy"], abs=1e-6)
    assert found["topic", "log_loss"] == pytest.approx(truth["topic"]["log_loss"], abs=1e-5)
    assert found["stars", "mse"] == pytest.approx(truth["stars"]["rmse"] ** 2, rel=1e-5)
    assert found["stars", "mae"] == pytest.approx(truth["stars"]["mae"], rel=1e-5)
    assert {row.slice for row in rows} == {"all rows", "city = Oslo", "city = Rome", "city = ?"}
