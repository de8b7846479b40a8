"""`mptrec` from a file of raw rows to predictions, on a small synthetic data set."""

import copy
import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml

import mptrec_cli
from mptrec_tf.data import census_income
from mptrec_tf.models import load_model
from mptrec_tf.training.checkpoint import STATE

COMMAND = pathlib.Path(sys.executable).with_name("mptrec")
TRAINING = {"epochs": 2, "batch_size": 64, "jit_compile": False, "steps_per_execution": 1}
CONFIG = {
    "data": {"train": "synthetic-train.csv", "validation": "synthetic-validation.csv"},
    "features": [
        {"kind": "numeric", "name": "age"},
        {"kind": "numeric", "name": "spent"},
        {"kind": "categorical", "name": "city"},
        {"kind": "multivalued", "name": "tags"},
    ],
    "tasks": [
        {"name": "click", "label": "click"},
        {"name": "like", "label": "like"},
        {"name": "buy", "label": "buy"},
        {"name": "device", "label": "device", "kind": "multiclass", "classes": ["tv", "phone"]},
    ],
    "stage1": {
        "tasks": ["click", "like"],
        "model": {"expert_units": [16, 8], "tower_units": [8]},
        "training": TRAINING,
    },
    "stage2": {"module": {"tower_units": [8], "input_projection": 4}, "training": TRAINING},
}


def synthetic_rows(count, seed):
    """Rows in which all labels depend on age and city."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "user": [f"u{seed}-{number}" for number in range(count)],
            "age": rng.integers(18, 80, count),
            "spent": rng.exponential(20, count).round(2),
            "city": rng.choice(["Oslo", "Rome", "Lima"], count),
            "tags": rng.choice(["", "a", "a|b", "b|c|d"], count),
        }
    )
    score = (rows["age"] - 48) / 12 + (rows["city"] == "Oslo")
    rows["click"] = (rng.random(count) < 1 / (1 + np.exp(-score))).astype(int)
    rows["like"] = (rng.random(count) < 1 / (1 + np.exp(score))).astype(int)
    rows["buy"] = (rng.random(count) < 1 / (1 + np.exp(1 - score))).astype(int)
    rows["device"] = np.where(rng.random(count) < 0.5, "tv", "phone")
    return rows


def environment():
    """As a user has it: the log level of TensorFlow is not set."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


def mptrec(directory, *arguments):
    """Runs a command in a process of its own."""
    return subprocess.run(
        [COMMAND, *arguments], cwd=directory, env=environment(), capture_output=True, text=True
    )


def write_config(path, config):
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A directory with the synthetic data and a configuration."""
    directory = tmp_path_factory.mktemp("work")
    synthetic_rows(2000, 1).to_csv(directory / "synthetic-train.csv", index=False)
    synthetic_rows(600, 2).to_csv(directory / "synthetic-validation.csv", index=False)
    write_config(directory / "config.yaml", CONFIG)
    return directory


@pytest.fixture(scope="module")
def trained(work):
    """What `mptrec train` printed."""
    done = mptrec(work, "train", "--config", "config.yaml", "--output", "run")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def added(work, trained):
    """What `mptrec add-task` printed."""
    done = mptrec(
        work, "add-task", "--config", "config.yaml", "--model", "run/stage1.keras",
        "--task", "buy", "--output", "run", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def with_device(work, added):
    """One more task, from rows that have labels of `buy` and `device` alone."""
    for part in ("train", "validation"):
        rows = pd.read_csv(work / f"synthetic-{part}.csv")
        rows["like"] = np.nan
        rows.drop(columns="click").to_csv(work / f"device-{part}.csv", index=False)
    config = copy.deepcopy(CONFIG)
    config["stage2"]["training"]["monitor"] = "device_accuracy"
    write_config(work / "device.yaml", config)
    arguments = ["add-task", "--task", "device", "--quiet"]
    for name, file in (
        ("config", "device.yaml"),
        ("model", "run/model.keras"),
        ("train", "device-train.csv"),
        ("validation", "device-validation.csv"),
        ("output", "device"),
    ):
        arguments += [f"--{name}", str(work / file)]
    assert mptrec_cli.main(arguments) == 0


@pytest.fixture
def here(work, monkeypatch):
    """The directory, as the current one of this process."""
    monkeypatch.chdir(work)
    return work


def results(work, name):
    return json.loads((work / name).read_text())


def test_train_prints_a_table_and_writes_results(work, trained):
    found = results(work, "run/stage1-results.json")
    assert list(found["validation"]) == ["click", "like"]
    assert found["validation"]["click"]["rows"] == 600
    assert found["validation"]["click"]["auc"] > 0.6
    assert len(found["epochs"]) == 2
    header, click, *_ = trained.stdout.splitlines()
    assert header.split() == ["task", "auc", "log_loss", "calibration_error", "rows", "positives"]
    assert click.split()[:2] == ["click", f"{found['validation']['click']['auc']:.5f}"]
    assert (work / "run/stage1.keras").is_file()


def test_train_keeps_stdout_for_results_and_tensorflow_silent(trained):
    assert "Epoch" not in trained.stdout
    assert "Epoch 1/2" in trained.stderr
    assert "cuda" not in trained.stderr
    assert "absl" not in trained.stderr


def test_add_task_leaves_the_older_tasks_alone(work, added):
    found = results(work, "run/buy-results.json")
    assert found["old_tasks_identical"] is True
    for task in ("click", "like"):
        entry = found["validation"][task]
        assert entry["before"] == entry["after"]
    assert found["validation"]["buy"]["before"] is None
    assert found["validation"]["buy"]["after"]["auc"] > 0.6
    assert 0 < found["trainable_parameters"] < found["total_parameters"] / 2
    assert found["seconds"] > 0
    assert "identical to the bit" in added.stdout
    assert added.stderr == ""


def test_add_task_needs_no_labels_of_the_older_tasks(work, with_device):
    found = results(work, "device/device-results.json")
    assert list(found["validation"]) == ["buy", "device"]
    assert found["validation"]["device"]["after"]["rows"] == 600
    assert found["old_tasks_identical"] is True


def test_a_model_to_which_tasks_were_added_trains_only_the_last(work, with_device):
    model = load_model(work / "device/model.keras")
    assert [task.name for task in model.tasks] == ["click", "like", "buy", "device"]
    trained = {id(weight) for weight in model.trainable_weights}
    assert trained == {
        id(weight) for weight in model.task_modules.modules["device"].trainable_weights
    }


def test_evaluate_gives_what_add_task_gave(work, added):
    done = mptrec(
        work, "evaluate", "--config", "config.yaml", "--model", "run/model.keras",
        "--json", "scores/all.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = results(work, "scores/all.json")
    stage2 = results(work, "run/buy-results.json")["validation"]
    assert {name: entry["after"] for name, entry in stage2.items()} == {
        name: pytest.approx(metrics) for name, metrics in found["tasks"].items()
    }
    assert found["input"] == "synthetic-validation.csv"
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "task", "click", "like", "buy",
    ]  # fmt: skip


def test_evaluate_takes_a_file_and_tasks(here, added, capsys):
    synthetic_rows(100, 3).drop(columns=["click", "like"]).to_csv("few.csv", index=False)
    common = ["evaluate", "--config", "config.yaml", "--model", "run/model.keras"]
    assert mptrec_cli.main([*common, "--input", "few.csv", "--tasks", "buy"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].split()[0::4] == ["buy", "100"]
    assert mptrec_cli.main([*common, "--input", "few.csv", "--tasks", "click"]) == 2
    assert "no column 'click'" in capsys.readouterr().err


def test_evaluate_scores_the_test_rows_if_there_are_any(here, trained, capsys):
    synthetic_rows(150, 4).to_csv("synthetic-test.csv", index=False)
    data = CONFIG["data"] | {"test": "synthetic-test.csv"}
    write_config(here / "with-test.yaml", CONFIG | {"data": data})
    arguments = ["--config", "with-test.yaml", "--model", "run/stage1.keras", "--tasks", "like"]
    assert mptrec_cli.main(["evaluate", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0::4] == ["like", "150"]


def test_evaluate_looks_into_groups_and_slices(here, added, capsys):
    common = ["evaluate", "--config", "config.yaml", "--model", "run/model.keras"]
    options = ["--tasks", "click", "--group", "device", "--slices", "device", "device,user"]
    files = ["--json", "parts/found.json", "--reliability", "parts/page.html"]
    assert mptrec_cli.main([*common, *options, *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["grouped_auc", "groups", "groups_left_out", "rows_without_group"]
    assert lines[0].split()[-4:] == names
    assert lines[2:4] == ["", "click"]
    assert lines[4].startswith("slice ")
    found = json.loads((here / "parts/found.json").read_text())
    slices = found["slices"]["click"]
    devices = {n: s for n, s in slices.items() if "," not in n}
    assert len(devices) == found["tasks"]["click"]["groups"]
    assert sum(s["rows"] for s in devices.values()) == found["tasks"]["click"]["rows"]
    assert len(slices) - len(devices) == 50
    page = (here / "parts/page.html").read_text()
    assert "click: calibration error" in page
    assert mptrec_cli.main([*common, "--group", "devce"]) == 2
    assert "did you mean 'device'" in capsys.readouterr().err


def test_predict_writes_a_row_for_each_row_in_order(work, added):
    done = mptrec(
        work, "predict", "--model", "run/model.keras", "--input", "synthetic-train.csv",
        "--output", "predicted.csv.gz", "--id-columns", "user",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2,000" in done.stdout
    rows = pd.read_csv(work / "synthetic-train.csv")
    found = pd.read_csv(work / "predicted.csv.gz", compression="gzip")
    assert list(found.columns) == ["user", "click", "like", "buy"]
    assert found["user"].tolist() == rows["user"].tolist()
    model = load_model(work / "run/model.keras")
    expected = model.predict(model.encoder.encode(rows.fillna({"tags": ""})), verbose=0)
    for task in ("click", "like", "buy"):
        np.testing.assert_allclose(found[task], expected[task], atol=1e-6)
    assert not list(work.glob(".*"))


@pytest.mark.parametrize("suffix", [".parquet", ".tfrecord.gz"])
def test_predictions_do_not_depend_on_the_format(here, added, suffix, capsys):
    source = f"rows{suffix}"
    arguments = ["predict", "--model", "run/model.keras", "--id-columns", "user", "--quiet"]
    assert mptrec_cli.main(["data", "convert", "synthetic-validation.csv", source]) == 0
    for file, output in (("synthetic-validation.csv", "a.parquet"), (source, "b.parquet")):
        assert mptrec_cli.main([*arguments, "--input", file, "--output", output]) == 0
    first, second = (pd.read_parquet(name) for name in ("a.parquet", "b.parquet"))
    second["user"] = second["user"].map(lambda v: v.decode() if isinstance(v, bytes) else v)
    assert len(first) == 600
    pd.testing.assert_frame_equal(first, second)


def test_predict_takes_unknown_categories_several_files_and_chosen_tasks(here, added, capsys):
    rows = synthetic_rows(3, 5)[["age", "spent", "city", "tags"]]
    rows["city"] = ["Atlantis", "", "Oslo"]
    rows.to_csv("new-1.csv", index=False)
    rows.to_csv("new-2.csv", index=False)
    arguments = ["predict", "--model", "run/model.keras", "--tasks", "buy", "click"]
    assert mptrec_cli.main([*arguments, "--input", "new-*.csv", "--output", "new.csv"]) == 0
    found = pd.read_csv("new.csv")
    assert list(found.columns) == ["buy", "click"]
    assert found[:3].equals(found[3:].reset_index(drop=True))
    assert found.notna().all(axis=None)


def test_predict_gives_a_column_for_each_class(here, with_device, capsys):
    arguments = ["predict", "--model", "device/model.keras", "--input", "synthetic-validation.csv"]
    assert mptrec_cli.main([*arguments, "--output", "classes.csv"]) == 0
    found = pd.read_csv("classes.csv")
    assert list(found.columns) == ["click", "like", "buy", "device_tv", "device_phone"]
    np.testing.assert_allclose(found["device_tv"] + found["device_phone"], 1, atol=1e-6)


def test_export_and_check(here, with_device, capsys):
    common = ["serving", "export", "--base-path", "serving/shop", "--quiet"]
    for model, version in (("run/stage1.keras", "1"), ("run/model.keras", "2")):
        rows = ["--rows", "synthetic-validation.csv"]
        assert mptrec_cli.main([*common, "--model", model, *rows]) == 0
        assert capsys.readouterr().out == f"serving/shop/{version}\n"
        assert mptrec_cli.main(["serving", "check", f"serving/shop/{version}"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 10
        assert all(line.startswith("ok ") for line in lines)
    assert mptrec_cli.main([*common, "--model", "device/model.keras", "--version", "7"]) == 0
    assert capsys.readouterr().out == "serving/shop/7\n"
    manifest = json.loads((here / "serving/shop/7/assets.extra/manifest.json").read_text())
    assert (manifest["parent_version"], manifest["added_tasks"]) == (2, ["buy", "device"])


def test_a_broken_version_fails_the_check(here, added, capsys):
    export = ["serving", "export", "--model", "run/model.keras", "--base-path", "broken/shop"]
    assert mptrec_cli.main([*export, "--quiet"]) == 0
    (here / "broken/shop/1/variables/variables.index").unlink()
    capsys.readouterr()
    assert mptrec_cli.main(["serving", "check", "broken/shop/1"]) == 2
    printed = capsys.readouterr()
    assert "variables.index is missing" in printed.out
    assert "mptrec: error: broken/shop/1: 1 of 1 checks failed" in printed.err
    assert_refused(["serving", "check", "broken/shop"], ["not a SavedModel"], capsys)
    assert_refused([*export, "--version", "1"], ["already has the version 1"], capsys)


def test_a_run_that_is_over_is_not_trained_again(here, trained, capsys):
    before = results(here, "run/stage1-results.json")
    assert mptrec_cli.main(["train", "--config", "config.yaml", "--output", "run"]) == 0
    assert "the training is over after 2 epochs" in capsys.readouterr().err
    assert results(here, "run/stage1-results.json") == before


def test_a_killed_run_goes_on_where_it_was(work):
    config = copy.deepcopy(CONFIG)
    config["stage1"]["training"] |= {"epochs": 8, "batch_size": 16, "patience": 8}
    write_config(work / "long.yaml", config)
    arguments = ["train", "--config", "long.yaml", "--output", "killed"]
    state_file = work / "killed/stage1" / STATE

    process = subprocess.Popen([COMMAND, *arguments, "--quiet"], cwd=work, env=environment())
    while not state_file.is_file() or len(json.loads(state_file.read_text())["epochs"]) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done_before = json.loads(state_file.read_text())["epochs"]
    assert 2 <= len(done_before) < 8
    assert not (work / "killed/stage1.keras").exists()

    done = mptrec(work, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"going on after epoch {len(done_before)} of at most 8" in done.stderr
    epochs = results(work, "killed/stage1-results.json")["epochs"]
    assert len(epochs) == 8
    assert epochs[: len(done_before)] == done_before
    assert f"Epoch {len(done_before)}/8" not in done.stderr
    assert f"Epoch {len(done_before) + 1}/8" in done.stderr


def test_a_warm_start_tells_what_was_taken(here, trained, capsys):
    rows = synthetic_rows(500, 3)
    rows.loc[::3, "city"] = "Bern"
    rows.to_csv("later.csv", index=False)
    config = copy.deepcopy(CONFIG)
    config["stage1"]["tasks"] = ["like", "buy"]
    write_config(here / "later.yaml", config)
    arguments = ["train", "--config", "later.yaml", "--output", "later", "--train", "later.csv"]
    arguments += ["--validation", "synthetic-validation.csv", "--warm-start"]
    assert mptrec_cli.main([*arguments, "run/stage1.keras"]) == 0
    printed = capsys.readouterr()
    assert "feature 'city': 3 categories; 1 new\n" in printed.err
    assert "taken" not in printed.out
    found = results(here, "later/stage1-results.json")["warm_start"]
    assert found["earlier"] == "run/stage1.keras"
    assert found["taken"]["feature 'tags'"] == "4 categories"
    assert found["left"] == {"task 'buy'": "new", "task 'click'": "gone"}
    assert results(here, "run/stage1-results.json")["warm_start"] is None
    config["stage1"]["model"]["tower_units"] = [4]
    write_config(here / "later.yaml", config)
    assert mptrec_cli.main([*arguments, "run/stage1.keras"]) == 2
    assert "tower_units is (4,) and was (8,)" in capsys.readouterr().err


def test_another_configuration_does_not_go_on(here, trained, capsys):
    arguments = ["train", "--config", "config.yaml", "--output", "run", "--seed", "1", "--quiet"]
    assert mptrec_cli.main(arguments) == 2
    assert "run/stage1 holds the training of another configuration" in capsys.readouterr().err


def test_data_get_prints_files_and_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MPTREC_DATA", str(tmp_path))
    (tmp_path / census_income.NAME).mkdir()
    for part, count in (("train", 3), ("validation", 2), ("test", 1)):
        rows = synthetic_rows(count, 6)
        rows.to_parquet(tmp_path / census_income.NAME / f"{part}.parquet")
    assert mptrec_cli.main(["data", "get", "census-income"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines[1:]] == [["train", "3"], ["validation", "2"], ["test", "1"]]
    assert lines[1][2] == str(tmp_path / census_income.NAME / "train.parquet")


def test_data_get_refuses_other_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MPTREC_DATA", str(tmp_path / "cache"))
    (tmp_path / "census-income.data").write_text("1, 2, 3\n")
    (tmp_path / "census-income.test").write_text("1, 2, 3\n")
    assert mptrec_cli.main(["data", "get", "census-income", "--source", str(tmp_path)]) == 2
    assert "wrong checksum" in capsys.readouterr().err


# Input that cannot work: exit code 2, and a message that names what is wrong.


def numeric_label(config, rows):
    config["features"].append({"kind": "numeric", "name": "click"})


def misspelt_column(config, rows):
    config["features"][2]["name"] = "citty"


def missing_column(config, rows):
    rows.drop(columns="age", inplace=True)


def no_label(config, rows):
    rows["like"] = np.nan


def label_of_two(config, rows):
    rows.loc[7, "click"] = 2


def nan_number(config, rows):
    rows.loc[7, "spent"] = np.nan


def text_number(config, rows):
    rows["age"] = rows["age"].astype(object)
    rows.loc[7, "age"] = "old"


def duplicate_task(config, rows):
    config["tasks"].append({"name": "like", "label": "buy"})


def unknown_key(config, rows):
    config["stage1"]["training"]["epoch"] = 3


def unknown_task(config, rows):
    config["stage1"]["tasks"] = ["click", "share"]


def unknown_metric(config, rows):
    config["stage1"]["training"]["monitor"] = "buy_auc"


def no_rows(config, rows):
    rows.drop(index=rows.index, inplace=True)


@pytest.mark.parametrize(
    ("spoil", "offenders"),
    [
        (numeric_label, ["bad.yaml", "'click'", "also a feature"]),
        (misspelt_column, ["bad.csv", "'citty'", "did you mean 'city'?"]),
        (missing_column, ["bad.csv", "no column 'age'"]),
        (no_label, ["bad.csv", "'like'", "no row has a label"]),
        (label_of_two, ["bad.csv", "'click'", "has 2, expected 0 or 1"]),
        (nan_number, ["bad.csv", "'spent'", "1 empty or NaN"]),
        (text_number, ["bad.csv", "'age'", "'old'"]),
        (duplicate_task, ["bad.yaml", "'like' is given twice"]),
        (unknown_key, ["bad.yaml", "stage1.training.epoch", "no such key"]),
        (unknown_task, ["bad.yaml", "no task 'share'"]),
        (unknown_metric, ["'buy_auc'", "click_auc"]),
        (no_rows, ["bad.csv", "no rows"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_configuration_and_data(spoil, offenders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config, rows = copy.deepcopy(CONFIG), synthetic_rows(50, 7)
    config["data"] = {"train": "bad.csv", "validation": "bad.csv"}
    spoil(config, rows)
    rows.to_csv("bad.csv", index=False)
    write_config(tmp_path / "bad.yaml", config)
    arguments = ["train", "--config", "bad.yaml", "--output", "run", "--quiet"]
    assert_refused(arguments, offenders, capsys)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "offender"),
    [
        ("empty.csv", b"", "empty"),
        ("empty.parquet", b"", "not a readable Parquet file"),
        (
            "cut.csv.gz",
            gzip.compress(b"age,spent,city,tags\n40,1.5,Oslo,a\n", mtime=0)[:-12],
            "truncated",
        ),
        ("rows.xlsx", b"", "unknown format"),
    ],
)
def test_bad_files(name, content, offender, here, trained, capsys):
    (here / name).write_bytes(content)
    arguments = ["predict", "--model", "run/stage1.keras", "--input", name, "--output", "bad.csv"]
    assert_refused(arguments, [name, offender], capsys)
    assert not list(here.glob("*bad.csv*"))


def test_a_missing_input_file(here, trained, capsys):
    arguments = ["predict", "--model", "run/stage1.keras", "--input", "absent.csv"]
    assert_refused([*arguments, "--output", "bad.csv"], ["absent.csv: no such file"], capsys)


def test_tasks_that_the_model_does_not_have(here, trained, capsys):
    offenders = ["'share'", "['click', 'like']"]
    predict = ["predict", "--model", "run/stage1.keras", "--input", "synthetic-train.csv"]
    assert_refused([*predict, "--output", "bad.csv", "--tasks", "share"], offenders, capsys)
    evaluate = ["evaluate", "--config", "config.yaml", "--model", "run/stage1.keras"]
    assert_refused([*evaluate, "--tasks", "share"], offenders, capsys)


def test_id_columns_that_clash_or_are_missing(here, trained, capsys):
    predict = ["predict", "--model", "run/stage1.keras", "--input", "synthetic-train.csv"]
    predict += ["--output", "bad.csv", "--id-columns"]
    assert_refused([*predict, "click"], ["'click' twice"], capsys)
    assert_refused([*predict, "usr"], ["'usr'", "did you mean 'user'?"], capsys)


def test_adding_a_task_that_is_there_or_unknown(here, trained, capsys):
    common = ["add-task", "--config", "config.yaml", "--model", "run/stage1.keras", "--quiet"]
    offenders = ["run/stage1.keras", "already has a task 'like'"]
    assert_refused([*common, "--task", "like", "--output", "again"], offenders, capsys)
    assert_refused([*common, "--task", "share", "--output", "again"], ["no task 'share'"], capsys)


def test_a_model_with_other_added_tasks_is_not_replaced(here, added, capsys):
    before = (here / "run/model.keras").read_bytes()
    add = ["add-task", "--config", "config.yaml", "--model", "run/stage1.keras", "--output", "run"]
    offenders = ["run/model.keras has the tasks ['buy']", "--model run/model.keras"]
    assert_refused([*add, "--task", "device"], offenders, capsys)
    assert (here / "run/model.keras").read_bytes() == before
    assert not (here / "run/stage2-device").exists()


def test_the_input_is_not_overwritten(here, trained, capsys):
    (here / "input").mkdir()
    synthetic_rows(20, 8).to_csv("input/rows.csv", index=False)
    before = (here / "input/rows.csv").read_bytes()
    common = ["--model", "run/stage1.keras", "--input", "input/*.csv"]
    for command, output in (
        (["predict"], ["--output", "input/../input/rows.csv"]),
        (["evaluate", "--config", "config.yaml"], ["--json", "input/rows.csv"]),
    ):
        assert_refused([*command, *common, *output], ["input/rows.csv: would overwrite"], capsys)
    assert (here / "input/rows.csv").read_bytes() == before


def test_a_model_of_another_specification(here, trained, capsys):
    features, tasks = copy.deepcopy(CONFIG), copy.deepcopy(CONFIG)
    features["features"] = features["features"][:3]
    tasks["tasks"][1] = {"name": "like", "label": "buy"}
    for config, offender in ((features, "'tags' is only in the model"), (tasks, "'label': 'buy'")):
        write_config(here / "other.yaml", config)
        common = ["--config", "other.yaml", "--model", "run/stage1.keras"]
        assert_refused(["evaluate", *common], ["run/stage1.keras", offender], capsys)
        add = ["add-task", *common, "--task", "buy", "--output", "other"]
        assert_refused(add, ["run/stage1.keras", offender], capsys)


def test_a_broken_model_file(here, trained, capsys):
    whole = (here / "run/stage1.keras").read_bytes()
    for name, content in (("cut.keras", whole[: len(whole) // 2]), ("text.keras", b"a model")):
        (here / name).write_bytes(content)
        arguments = ["predict", "--model", name, "--input", "synthetic-train.csv"]
        assert_refused([*arguments, "--output", "bad.csv"], [name, "not a .keras model"], capsys)


def assert_refused(arguments, offenders, capsys):
    assert mptrec_cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    message = captured.err[captured.err.index("mptrec: error: ") :]
    assert "Traceback" not in captured.err
    for offender in offenders:
        assert offender in message
