"""Both pipelines for real, one after another, on rows of Census: three versions, each with a task
more, and what must never be pushed."""

import base64
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest

from mptrec_cli import main
from mptrec_tf.config import Config
from mptrec_tf.data import census_income
from mptrec_tf.errors import PipelineError, SpecError
from mptrec_tf.evaluation import evaluate
from mptrec_tf.models import load_model
from mptrec_tf.serving import Manifest, check
from mptrec_tf.serving.checking.loaders import c_api
from mptrec_tf.serving.layout import read_meta_graph
from mptrec_tf.spec.parsing import dump, parse, to_yaml
from mptrec_tf.training import pretrain, prompt_tune, stages
from pipelines import runs
from pipelines.base import base_of, check_base
from pipelines.components import trainer
from pipelines.examples import read_records, split_files
from pipelines.metadata import Store, connection
from pipelines.reporting.metrics import metrics_of
from pipelines.sources import sources_of

ROWS = {"train": 8000, "validation": 2000, "test": 3000}
NUMBERS = ("age", "capital_gains", "weeks_worked_in_year", "num_persons_worked_for_employer")
CATEGORIES = ("class_of_worker", "major_occupation_code", "tax_filer_stat", "hispanic_origin")
TRAINING = {"epochs": 3, "batch_size": 256, "jit_compile": False}
PLAIN = {
    "features": [
        *({"kind": "numeric", "name": name} for name in NUMBERS),
        *({"kind": "categorical", "name": name} for name in CATEGORIES),
    ],
    "tasks": [
        {"name": "income", "label": "income", "positive": "50000+."},
        {"name": "marital", "label": "marital_stat", "positive": "Never married"},
        {
            "name": "education",
            "label": "education",
            "positive": "Bachelors degree(BA AB BS)",
        },
        {"name": "sex", "label": "sex", "positive": "Female"},
        {"name": "race", "label": "race", "positive": "White"},
    ],
    "stage1": {
        "tasks": ["income", "marital"],
        "model": {"expert_units": [32, 16], "tower_units": [16]},
        "training": TRAINING,
    },
    "stage2": {"module": {"tower_units": [16], "input_projection": 8}, "training": TRAINING},
}
PIPELINE = {
    "name": "census",
    "slices": ["sex"],
    "thresholds": [{"task": "income", "min": 0.5, "worse_by": 0.2}],
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The first rows of each part."""
    directory = tmp_path_factory.mktemp("rows")
    for part, path in census_income.get()._asdict().items():
        pd.read_parquet(path).head(ROWS[part]).to_parquet(directory / f"{part}.parquet")
    return directory


def config_of(rows, pipeline=None, **changes):
    data = {part: str(rows / f"{part}.parquet") for part in ROWS}
    plain = PLAIN | {"data": data, "pipeline": PIPELINE | (pipeline or {})} | changes
    return parse(Config, plain, "the configuration")


@pytest.fixture(scope="module")
def config(rows):
    return config_of(rows)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def outcomes(config, output):
    """Stage 1, then education, then sex."""
    return [
        runs.run_pretrain(config, output),
        runs.run_prompt_tune(config, "education", output),
        runs.run_prompt_tune(config, "sex", output),
    ]


def served(output):
    """The versions that a server would find."""
    return sorted(path.name for path in (output / "serving/census").iterdir())


def store_of(config, output):
    return Store(connection(config.pipeline, output))


def c_scores(version, examples):
    """The scores of `serving_default` by TensorFlow's C++ loader, without TensorFlow's Python."""
    signature = read_meta_graph(pathlib.Path(version)).signature_def["serving_default"]
    names = sorted(signature.outputs)
    values = [base64.b64encode(example).decode() for example in examples]
    feed = {"dtype": "string", "shape": [len(values)], "values": values}
    run = {
        "feeds": {signature.inputs["examples"].name: feed},
        "fetches": [signature.outputs[name].name for name in names],
    }
    answer = subprocess.run(
        [sys.executable, c_api.__file__],
        input=json.dumps({"path": str(version), "runs": [run]}),
        capture_output=True,
        text=True,
        check=True,
    )
    outputs = json.loads(answer.stdout)["outputs"]
    return {n: np.float32(o["values"]) for n, o in zip(names, outputs, strict=True)}


def test_three_versions_each_with_a_task_more(outcomes, output):
    assert [outcome.version for outcome in outcomes] == [1, 2, 3]
    assert served(output) == ["1", "2", "3"]
    expected = [("income", "marital"), ("education",), ("sex",)]
    for number, outcome in enumerate(outcomes, 1):
        manifest = Manifest.read(pathlib.Path(outcome.directory))
        tasks = (*manifest.stage1_tasks, *manifest.added_tasks)
        assert tasks == sum(expected[:number], ())
        assert manifest.parent_version == (number - 1 or None)
        problems = [finding for finding in check(outcome.directory) if finding.problem]
        assert not problems


def test_old_tasks_answer_the_same_bits_in_the_loader_of_a_server(outcomes):
    ingest = outcomes[0].result.executions["Ingest"].outputs["examples"][0]
    examples = next(iter(read_records(split_files(ingest.uri, "test"), 500))).numpy()
    scores = [c_scores(outcome.directory, examples) for outcome in outcomes]
    assert [len(score) for score in scores] == [2, 3, 4]
    for older, newer in itertools.pairwise(scores):
        for task, values in older.items():
            assert values.shape[0] == 500 and np.isfinite(values).all()
            assert newer[task].tobytes() == values.tobytes(), task


def test_metrics_are_those_of_the_library(outcomes, config, rows):
    for outcome in outcomes:
        executions = outcome.result.executions
        (model,) = executions["Trainer"].outputs["model"]
        loaded = load_model(f"{model.uri}/Format-Serving/{trainer.MODEL_FILE}")
        truth = evaluate(loaded, str(rows / "test.parquet"))
        measured = metrics_of(executions["Evaluator"].outputs["evaluation"][0].uri)
        found = {(row.task, row.metric): row.value for row in measured if row.slice == "all rows"}
        for task, expected in truth.items():
            assert found[task, "auc"] == pytest.approx(expected["auc"], abs=2e-4)
            assert found[task, "log_loss"] == pytest.approx(expected["log_loss"], abs=1e-4)


def test_the_models_are_those_of_the_library(outcomes, config, rows, tmp_path):
    """The same rows, settings and seed, trained without TFX."""
    sources = config.data.sources()
    model = pretrain(config, sources, tmp_path, verbose=0).model
    prompt_tune(config, model, "education", sources, tmp_path, verbose=0)
    ours = evaluate(model, sources.test)
    (made,) = outcomes[1].result.executions["Trainer"].outputs["model"]
    theirs = evaluate(load_model(f"{made.uri}/Format-Serving/{trainer.MODEL_FILE}"), sources.test)
    for task in ours:
        assert theirs[task]["auc"] == pytest.approx(ours[task]["auc"], abs=2e-3)


def test_nothing_changed_nothing_done(outcomes, config, output):
    for stage, again in (
        (0, lambda: runs.run_pretrain(config, output)),
        (1, lambda: runs.run_prompt_tune(config, "education", output)),
        (2, lambda: runs.run_prompt_tune(config, "sex", output)),
    ):
        outcome = again()
        assert outcome.version == stage + 1
        states = {e.component: e.state for e in outcome.result.executions.values()}
        assert set(states.values()) == {"cached"}, states
    assert served(output) == ["1", "2", "3"]


def test_lineage_of_a_version_tells_all_that_made_it(outcomes, config, output, capsys, tmp_path):
    command = ["pipeline", "lineage", "--output", str(output), "--version", "3", "--quiet"]
    assert main([*command, "--picture", str(tmp_path / "lineage.svg")]) == 0
    text = capsys.readouterr().out
    for node in ("Ingest", "LearnedSchema", "Transform", "Trainer", "FrozenTaskGate", "Evaluator"):
        assert node in text
    for outcome in outcomes:
        (model,) = outcome.result.executions["Trainer"].outputs["model"]
        assert f"Model {model.id} (version {outcome.version})" in text
    assert "sex.auc=" in text and "'pattern': 'train.parquet'" in text
    base = re.findall(r"^  --base-(\S+) (.*)$", text, re.MULTILINE)
    assert [part for part, _ in base] == ["model", "transform-graph", "schema", "statistics"]
    assert all(pathlib.Path(uri).is_dir() for _, uri in base)
    assert "<svg" in (tmp_path / "lineage.svg").read_text()


def test_status_and_reports(outcomes, output, capsys):
    assert main(["pipeline", "status", "--output", str(output)]) == 0
    text = capsys.readouterr().out
    for pipeline in ("census-pretrain", "census-education", "census-sex"):
        assert pipeline in text
    for outcome in outcomes:
        assert f"version {outcome.version}" in pathlib.Path(outcome.report).read_text()


def test_a_task_that_is_there_already_is_refused(outcomes, config, output):
    with pytest.raises(PipelineError, match="already has the task 'education'"):
        runs.run_prompt_tune(config, "education", output, seed=1)


def test_a_pinned_base_is_built_on_though_it_is_older(outcomes, config, output, tmp_path):
    pinned = config_of(
        pathlib.Path(config.data.train).parent, pipeline={"push_to": str(tmp_path / "serving")}
    )
    model = store_of(config, output).pushed_version(1).model
    outcome = runs.run_prompt_tune(pinned, "race", output, base=model.uri)
    manifest = Manifest.read(pathlib.Path(outcome.directory))
    assert (manifest.stage1_tasks, manifest.added_tasks) == (["income", "marital"], ["race"])


def test_a_model_below_its_thresholds_is_not_pushed(outcomes, rows, output, tmp_path):
    demanding = {
        "thresholds": [
            {"task": "income", "min": 0.9999, "slices": True},
            {"task": "marital", "min": 0.1},
        ]
    }
    config = config_of(rows, demanding)
    outcome = runs.run_pretrain(config, output)
    assert outcome.version is None
    text = "\n".join(outcome.reasons)
    for where in ("all rows", "sex = Male", "sex = Female"):
        assert f"task 'income', {where}: auc is 0." in text
    assert "marital" not in text
    report = pathlib.Path(outcome.report).read_text()
    assert "sex = Male" in report and "0.9999" in report
    file = tmp_path / "demanding.yaml"
    file.write_text(to_yaml(dump(config)))
    command = ["pipeline", "run", "--config", str(file), "--stage", "pretrain", "--quiet"]
    assert main([*command, "--output", str(output)]) == 2


def test_a_version_of_other_features_is_not_compared_with(outcomes, rows, output, monkeypatch):
    monkeypatch.setattr(
        runs._Place, "run", lambda self, pipeline, record, notes, _: (record, notes)
    )
    longer = {"thresholds": [{"task": "income", "worse_by": 0.1}]}
    record, notes = runs.run_pretrain(config_of(rows, longer), output)
    assert record.values["baseline_tasks"] == ["income", "marital", "education", "sex"]
    assert "worse_by" not in " ".join(notes)

    fewer = PLAIN["features"][1:]
    record, notes = runs.run_pretrain(config_of(rows, longer, features=fewer), output)
    assert "baseline" not in record.values
    assert "worse_by was not applied" in notes[0] and "has other features" in notes[0]
    without = {"thresholds": [{"task": "income", "min": 0.1}]}
    assert runs.run_pretrain(config_of(rows, without, features=fewer), output)[1] == []


def test_no_base_model_yet(config, tmp_path):
    with pytest.raises(PipelineError, match="no base model yet"):
        runs.run_prompt_tune(config, "education", tmp_path)
    assert not (tmp_path / "artifacts").exists()


def test_a_base_of_another_spec(outcomes, rows, output):
    features = [*PLAIN["features"][1:], {"kind": "numeric", "name": "age", "bins": 5}]
    with pytest.raises(SpecError, match="'age' is"):
        runs.run_prompt_tune(config_of(rows, features=features), "race", output)
    tasks = [{**PLAIN["tasks"][0], "positive": "- 50000."}, *PLAIN["tasks"][1:]]
    with pytest.raises(SpecError, match="'income' is"):
        runs.run_prompt_tune(config_of(rows, tasks=tasks), "race", output)


def test_a_graph_that_does_not_belong_to_the_model(outcomes, config, output, tmp_path):
    store = store_of(config, output)
    base = base_of(store, store.pushed_version(3).model)
    other = tmp_path / "graph"
    shutil.copytree(base.transform_graph, other)
    file = other / "transform_fn/assets/encoder.json"
    encoding = json.loads(file.read_text())
    encoding["vocabularies"]["tax_filer_stat"].reverse()
    file.write_text(json.dumps(encoding))
    sources = sources_of(config)
    with pytest.raises(PipelineError, match="does not belong to the base model"):
        check_base(config, "race", base._replace(transform_graph=str(other)), sources)
    assert check_base(config, "race", base, sources) == [
        "income", "marital", "education", "sex",
    ]  # fmt: skip


def test_rows_of_other_people_stop_a_new_task(outcomes, rows, output, tmp_path):
    for part in ROWS:
        frame = pd.read_parquet(rows / f"{part}.parquet")
        if part == "train":
            frame["tax_filer_stat"] = "Joint both 65+"
            frame["class_of_worker"] = frame["class_of_worker"].astype(object)
            frame.loc[:19, "class_of_worker"] = "Astronaut"
        frame.to_parquet(tmp_path / f"{part}.parquet")
    with pytest.raises(PipelineError) as error:
        runs.run_prompt_tune(config_of(tmp_path), "race", output)
    assert "'tax_filer_stat': it drifted" in str(error.value)
    assert "'Astronaut' (0.25%)" in str(error.value)
    reports = sorted((output / "reports").iterdir(), key=lambda file: file.stat().st_mtime)
    assert "Astronaut" in reports[-1].read_text()
    assert served(output)[:3] == ["1", "2", "3"]


def test_one_changed_bit_of_the_backbone_is_refused(outcomes, config, output, monkeypatch):
    add_module = stages.add_module

    def sabotage(config, model, *arguments):
        add_module(config, model, *arguments)
        weight = model.backbone.weights[-1]
        values = keras.ops.convert_to_numpy(weight).copy()
        values.flat[0] = np.nextafter(values.flat[0], np.float32(np.inf))
        weight.assign(values)

    monkeypatch.setattr(stages, "add_module", sabotage)  # TFX loads the Trainer's module anew
    outcome = runs.run_prompt_tune(config, "race", output, seed=7)
    assert outcome.version is None
    assert any("frozen" in reason or "differ" in reason for reason in outcome.reasons)
    assert served(output) == ["1", "2", "3"]
    report = pathlib.Path(outcome.report).read_text()
    assert "not pushed" in report.lower()
    place = str(output / "serving/census")
    assert store_of(config, output).last_pushed(place).version == 3
    # Nor is it the next base: an undisturbed run builds on version 3.
    monkeypatch.setattr(stages, "add_module", add_module)
    after = runs.run_prompt_tune(config, "race", output, seed=8)
    assert Manifest.read(pathlib.Path(after.directory)).parent_version == 3
