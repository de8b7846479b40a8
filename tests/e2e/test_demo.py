import html.parser
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

import mptrec_tf as mpt
from mptrec_tf.config import Config
from mptrec_tf.serving import Manifest, check

ROOT = pathlib.Path(__file__).resolve().parents[2]
OLD, NEW = ("income", "marital"), "education"
ROWS = {"train": 4000, "validation": 1500, "test": 1500}
EPOCHS = 2


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    """A few thousand rows of the data and the demo's configuration made small."""
    directory = tmp_path_factory.mktemp("census")
    for part, frame in mpt.data.census_income.load()._asdict().items():
        frame.sample(ROWS[part], random_state=0).to_parquet(directory / f"{part}.parquet")
    config = yaml.safe_load((ROOT / "configs/census_income.yaml").read_text())
    config["data"] = {part: str(directory / f"{part}.parquet") for part in ROWS}
    training = {"epochs": EPOCHS, "jit_compile": False, "steps_per_execution": 1}
    config["stage1"]["training"] = config["stage2"]["training"] = training
    config["stage1"]["model"] = {"expert_units": [16, 8], "tower_units": [8]}
    config["stage2"]["module"] = {"tower_units": [8]}
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def run_demo(config_file, output):
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "examples/census_income.py"),
            *("--config", config_file, "--output", output, "--seed", "3"),
        ],
        capture_output=True,
        text=True,
        cwd=output.parent,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(config_file, tmp_path_factory):
    """The demo's directory and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "demo"
    return output, run_demo(config_file, output)


@pytest.fixture(scope="module")
def results(demo):
    return json.loads((demo[0] / "results.json").read_text())


def rows_of(config_file, part):
    return pd.read_parquet(Config.from_yaml(config_file).data.sources()._asdict()[part])


def test_the_files_are_there(demo):
    names = {path.name for path in demo[0].glob("[!.]*") if path.is_file()}
    assert names == {"stage1.keras", "model.keras", "results.json", "report.html"}


def test_both_stages_are_served_as_versions(demo, config_file, results):
    base_path = demo[0] / "serving" / "census"
    assert sorted(path.name for path in base_path.iterdir()) == ["1", "2"]
    first, second = (Manifest.read(base_path / version) for version in "12")
    assert (first.stage, second.stage, second.parent_version) == (1, 2, 1)
    assert second.metrics == results["stage2"]["test"]
    for version in "12":
        assert not [finding for finding in check(base_path / version) if finding.problem]


def test_the_request_shown_has_the_scores_of_the_model(demo, config_file):
    output, printed = demo
    lines = printed.split("One request to the local server, version 2:\n")[1].splitlines()[:4]
    shown = np.array([line.split()[-3:] for line in lines[1:]], float)
    assert lines[0].split()[-3:] == [*OLD, NEW]
    model = mpt.load_model(output / "model.keras")
    rows = rows_of(config_file, "test")[:3]
    predictions = model.predict(model.encoder.encode(rows), verbose=0)
    expected = np.column_stack([predictions[task] for task in (*OLD, NEW)])
    np.testing.assert_allclose(shown, expected, atol=1e-4)


def test_the_results_have_every_task_of_every_stage(results):
    for part in ("validation", "test"):
        assert set(results["stage1"][part]) == set(OLD)
        assert set(results["stage2"][part]) == {*OLD, NEW}
        for metrics in results["stage2"][part].values():
            assert 0.5 < metrics["auc"] <= 1
            assert metrics["rows"] == ROWS[part]
    assert results["rows"] == ROWS
    assert results["seed"] == 3
    assert len(results["stage1"]["epochs"]) == len(results["stage2"]["epochs"]) == EPOCHS
    assert results["seconds"]["stage1"] > 0
    assert results["seconds"]["stage2"] > 0
    assert results["versions"]["mptrec_tf"] == mpt.__version__


def test_the_old_tasks_are_identical_and_their_figures_too(results):
    assert results["stage2"]["old_tasks_identical"] is True
    check = results["old_tasks"]
    assert check["rows"] == ROWS["validation"] + ROWS["test"]
    assert check["differing_rows"] == {"income": 0, "marital": 0}
    assert check["weights_before"] == check["weights_after"]
    for part in ("validation", "test"):
        for task in OLD:
            assert results["stage1"][part][task] == results["stage2"][part][task]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_auc_is_that_of_the_saved_models_predictions(demo, config_file, results, part):
    rows = rows_of(config_file, part)
    tasks = {task.name: task for task in Config.from_yaml(config_file).tasks}
    for stage, file in (("stage1", "stage1.keras"), ("stage2", "model.keras")):
        model = mpt.load_model(demo[0] / file)
        predictions = model.predict(model.encoder.encode(rows), verbose=0)
        for name, metrics in results[stage][part].items():
            labels = rows[tasks[name].label].astype(str) == tasks[name].positive
            expected = roc_auc_score(labels, predictions[name])
            assert metrics["auc"] == pytest.approx(expected, abs=1e-5)


def test_both_saved_models_predict_the_old_tasks_alike_to_the_bit(demo, config_file):
    before, after = (mpt.load_model(demo[0] / f) for f in ("stage1.keras", "model.keras"))
    inputs = before.encoder.encode(rows_of(config_file, "test"))
    old, new = before.predict(inputs, verbose=0), after.predict(inputs, verbose=0)
    for task in OLD:
        np.testing.assert_array_equal(old[task], new[task])


def test_parameters_are_those_that_a_stage_trains(demo, results):
    before, after = (mpt.load_model(demo[0] / f) for f in ("stage1.keras", "model.keras"))
    sizes = [
        sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        for model in (before, after)
    ]
    assert results["stage2"]["trainable_parameters"] == sizes[1]
    assert results["stage2"]["total_parameters"] == sum(sizes)


def test_the_summary_is_printed(demo, results):
    printed = demo[1]
    auc = f"{results['stage2']['test'][NEW]['auc']:.4f}"
    assert re.search(rf"^education .*{auc}$", printed, re.MULTILINE)
    assert printed.count("identical, bit for bit") == 2
    assert f"{results['stage2']['trainable_parameters']:,} of" in printed


class References(html.parser.HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                self.found.append(value)


def test_the_report_loads_nothing_and_shows_the_figures(demo, results):
    page = (demo[0] / "report.html").read_text()
    references = References()
    references.feed(page)
    assert all(value.startswith(("#", "data:")) for value in references.found)
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page
    assert page.count("<svg") >= 8
    assert page.count("identical, bit for bit") == 2
    assert f"<b>{results['stage2']['test'][NEW]['auc']:.4f}</b>" in page
    assert results["old_tasks"]["weights_after"] in page


def test_a_second_run_trains_nothing_and_finds_the_same(demo, config_file, results):
    output, first = demo
    weights = {p: p.stat().st_mtime_ns for p in output.rglob("*.weights.h5")}
    assert "Epoch 1/" in first
    assert "Epoch" not in run_demo(config_file, output)
    assert json.loads((output / "results.json").read_text()) == results
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*.weights.h5")} == weights
