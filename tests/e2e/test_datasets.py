"""Raw files of Ali-CCP and Byte-Rec to trained models of both stages, by commands; MovieLens."""

import json
import pathlib
import re

import numpy as np
import pandas as pd
import pytest
import yaml

import mptrec_cli
from mptrec_tf.config import Config
from mptrec_tf.data import FeatureEncoder, encode_rows
from mptrec_tf.models import MPTRec, load_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAINING = {"epochs": 1, "batch_size": 512, "jit_compile": False, "steps_per_execution": 1}


def mptrec(*arguments):
    assert mptrec_cli.main([str(argument) for argument in arguments]) == 0


def make_small(path):
    """The written configuration with one epoch of a small model."""
    config = yaml.safe_load(path.read_text())
    config["stage1"]["model"] |= {"expert_units": [8], "tower_units": [4]}
    config["stage2"]["module"]["tower_units"] = [4]
    for stage in ("stage1", "stage2"):
        config[stage]["training"] |= TRAINING
    path.write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.mark.parametrize(
    ("name", "task", "prepare"),
    [
        ("ali-ccp", "scenario", ["--multivalued", "210", "--min-count", "2"]),
        ("byte-rec", "long", ["--format", "tfrecord"]),
    ],
)
def test_from_raw_files_to_a_new_task(tmp_path, capsys, monkeypatch, name, task, prepare):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    raw, rows, run = (tmp_path / part for part in ("raw", "rows", "run"))
    rate = "click=0.4" if name == "ali-ccp" else "like=0.3"
    mptrec(
        "data", "generate", name, "--rows", 3000, "--output", raw, "--rate", rate, "--signal", 3,
        "--quiet",
    )  # fmt: skip
    assert "synthetic" in capsys.readouterr().out
    mptrec("data", "prepare", name, "--source", raw, "--output", rows, "--quiet", *prepare)
    printed = capsys.readouterr().out
    assert "synthetic rows: good for a trial, not for figures" in printed
    summary = json.loads((rows / "summary.json").read_text())
    assert f"{summary['rows']['train']:,}" in printed
    config = rows / "config.yaml"
    make_small(config)
    mptrec("train", "--config", config, "--output", run, "--quiet")
    mptrec(
        "add-task", "--config", config, "--model", run / "stage1.keras", "--task", task,
        "--output", run, "--quiet",
    )  # fmt: skip
    assert "identical to the bit" in capsys.readouterr().out
    model = load_model(run / "model.keras")
    spec = Config.from_yaml(config).spec
    assert [t.name for t in model.tasks] == [*Config.from_yaml(config).stage1.tasks, task]
    for feature in spec.features[:3]:
        counts = pd.read_parquet(rows / f"vocabularies/{feature.name}.parquet")
        kept = counts[counts["count"] >= feature.min_count]["id"]
        assert model.encoder.vocabulary(feature.name) == list(kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "byte-rec", "--source", ".", "--multivalued", "210"], "is for ali-ccp"),
        (["prepare", "byte-rec", "--source", "."], "expected one file 'final_track2_train.txt'"),
        (["generate", "byte-rec", "--rows", "5", "--test-rows", "5"], "--test-rows is for ali-ccp"),
        (["generate", "ali-ccp", "--rows", "5", "--rate", "buy=0.5"], "no task 'buy'"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert mptrec_cli.main(["data", *arguments, "--output", "out", "--quiet"]) == 2
    assert message in capsys.readouterr().err


def test_movielens_needs_only_the_yaml_of_the_docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    movies = pd.DataFrame(
        {
            "movieId": np.arange(60),
            "title": [f"Film {n}" for n in range(60)],
            "genres": rng.choice(["Drama", "Comedy|Drama", "Action|Crime|Drama"], 60),
        }
    )
    ratings = pd.DataFrame(
        {
            "userId": rng.integers(1, 40, 1500),
            "movieId": rng.integers(0, 60, 1500),
            "rating": rng.integers(1, 11, 1500) / 2,
            "timestamp": rng.integers(8e8, 9e8, 1500),
        }
    )
    movies.to_csv("movies.csv", index=False)
    ratings.to_csv("ratings.csv", index=False)
    page = (ROOT / "docs/datasets.md").read_text().split("## MovieLens")[1]
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "docs/datasets.md", "exec"), {})  # noqa: S102
    config = pathlib.Path("movielens.yaml")
    config.write_text(text)
    config = Config.from_yaml(config)
    encoder = FeatureEncoder(config.features).adapt(config.data.train)
    x, y = encode_rows(config.data.validation, encoder, config.tasks)
    genres = pd.read_parquet("movielens-validation.parquet")["genres"].str.split("|")
    width = x["multivalued"].shape[1]
    np.testing.assert_array_equal((x["multivalued"] > 0).sum(axis=1), genres.str.len())
    assert width == config.features[-1].max_length
    held = pd.read_parquet("movielens-validation.parquet")
    np.testing.assert_array_equal(y["like"], held["rating"] >= 4)
    np.testing.assert_array_equal(y["love"], held["rating"] == 5)
    model = MPTRec(encoder, config.spec.with_tasks(*config.stage1.tasks).tasks, expert_units=(8,))
    assert {name: len(scores) for name, scores in model(x).items()} == {"like": 150, "love": 150}
