"""What commands do with a model that is no `MPTRec`."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest
import yaml

import mptrec_cli
from mptrec_tf import CategoricalFeature, FeatureEncoder, NumericFeature, Task, save_model
from mptrec_tf.data import convert, readers
from mptrec_tf.evaluation import evaluate
from mptrec_tf.models import MMoE
from mptrec_tf.serving import Manifest

CONFIG = {
    "data": {"train": "rows.csv", "validation": "rows.csv"},
    "features": [{"kind": "numeric", "name": "age"}, {"kind": "categorical", "name": "city"}],
    "tasks": [{"name": name, "label": name} for name in ("click", "like", "buy")],
    "stage1": {"tasks": ["click", "like"]},
}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """An `MMoE`, its file and rows, in the current directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": rng.integers(18, 80, 50), "city": rng.choice(["Lima", "Oslo"], 50)})
    for task in ("click", "like", "buy"):
        rows[task] = rng.integers(0, 2, 50)
    rows.to_csv("rows.csv", index=False)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    tasks = [Task("click", "click"), Task("like", "like")]
    model = MMoE(encoder, tasks, expert_units=(4,), tower_units=(3,))
    save_model(model, "mmoe.keras")
    return model


def test_it_is_evaluated(model, capsys):
    arguments = ["--config", "config.yaml", "--model", "mmoe.keras", "--json", "found.json"]
    assert mptrec_cli.main(["evaluate", *arguments]) == 0
    found = json.loads(pathlib.Path("found.json").read_text())["tasks"]
    assert found == {n: pytest.approx(m) for n, m in evaluate(model, "rows.csv").items()}


def test_it_predicts(model, capsys):
    arguments = ["--model", "mmoe.keras", "--input", "rows.csv", "--output", "scores.parquet"]
    assert mptrec_cli.main(["predict", *arguments, "--quiet"]) == 0
    found = pd.read_parquet("scores.parquet")
    expected = model.predict(model.encoder.encode("rows.csv"), verbose=0)
    assert list(found) == ["click", "like"]
    for task in found:
        np.testing.assert_allclose(found[task], expected[task], atol=1e-6)


def test_rows_that_it_predicts_of_unknown_values_are_told_once(model, monkeypatch, capsys):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 50)
    rows = pd.read_csv("rows.csv").assign(city="lima")
    rows.to_csv("lower.csv", index=False)
    pd.concat([rows] * 2).to_csv("more.csv", index=False)
    arguments = ["--model", "mmoe.keras", "--input", "lower.csv", "more.csv", "--quiet"]
    with pytest.warns(UserWarning, match="no value of column 'city'") as told:
        assert mptrec_cli.main(["predict", *arguments, "--output", "scores.csv"]) == 0
    assert len(told) == 1
    assert str(told[0].message).startswith("lower.csv, more.csv: ")
    assert "all 150 are" in str(told[0].message)
    assert len(pd.read_csv("scores.csv")) == 150


@pytest.mark.parametrize("ending", [".parquet", ".tfrecord"])
@pytest.mark.parametrize("output", ["scores.csv", "scores.parquet"])
def test_an_id_may_be_empty_in_the_first_rows_that_it_predicts(
    model, ending, output, monkeypatch, capsys
):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 50)
    rows = pd.read_csv("rows.csv")
    for part, ids in enumerate([[None] * 50, range(50), [None] * 50]):
        rows.assign(uid=pd.array(ids, "Int64" if part else object)).to_parquet(f"{part}.parquet")
        convert(f"{part}.parquet", f"{part}{ending}", progress=False)
    # As one file, since none of a TFRecord may lack a column.
    if ending == ".tfrecord":
        parts = [pathlib.Path(f"{part}.tfrecord").read_bytes() for part in range(3)]
        pathlib.Path("parts.tfrecord").write_bytes(b"".join(parts))
    source = "parts.tfrecord" if ending == ".tfrecord" else "[0-2].parquet"
    arguments = ["--model", "mmoe.keras", "--input", source, "--id-columns", "uid", "--quiet"]
    assert mptrec_cli.main(["predict", *arguments, "--output", output]) == 0
    found = pd.read_csv(output) if output.endswith(".csv") else pd.read_parquet(output)
    expected = [float("nan")] * 50 + list(range(50)) + [float("nan")] * 50
    np.testing.assert_array_equal(found["uid"].astype(float), expected)


def test_text_ids_of_a_tfrecord_are_texts_and_other_bytes_stay_bytes(model, capsys):
    rows, names = pd.read_csv("rows.csv"), [f"New, York {row}" for row in range(50)]
    rows.assign(uid=names).to_parquet("texts.parquet")
    convert("texts.parquet", "texts.tfrecord", progress=False)
    rows.assign(uid=[b"\xff"] * 50).to_parquet("bytes.parquet")
    for source, first in (("texts.tfrecord", names[0]), ("bytes.parquet", b"\xff")):
        arguments = ["--model", "mmoe.keras", "--input", source, "--id-columns", "uid", "--quiet"]
        assert mptrec_cli.main(["predict", *arguments, "--output", "scores.parquet"]) == 0
        assert pd.read_parquet("scores.parquet")["uid"][0] == first


@pytest.mark.parametrize("output", ["scores.csv", "scores.parquet"])
def test_ids_of_different_types_are_refused(model, output, capsys):
    rows = pd.read_csv("rows.csv")
    rows.assign(uid=1).to_parquet("0.parquet")
    rows.assign(uid="a").to_parquet("1.parquet")
    arguments = ["--model", "mmoe.keras", "--input", "[01].parquet", "--id-columns", "uid"]
    assert mptrec_cli.main(["predict", *arguments, "--output", output, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "1.parquet: the id columns cannot be written: " in error
    assert not pathlib.Path(output).exists()


def test_ids_that_a_csv_cannot_hold_are_refused(model, capsys):
    pd.read_csv("rows.csv").assign(uid=[[1, 2]] * 50).to_parquet("lists.parquet")
    arguments = ["--model", "mmoe.keras", "--input", "lists.parquet", "--id-columns", "uid"]
    assert mptrec_cli.main(["predict", *arguments, "--output", "scores.csv", "--quiet"]) == 2
    assert "lists.parquet: the id columns cannot be written" in capsys.readouterr().err


def test_it_is_shown(model, capsys):
    assert mptrec_cli.main(["show", "mmoe.keras"]) == 0
    parameters = sum(weight.numpy().size for weight in model.trainable_weights)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["task", "kind", "stage"],
        ["click", "binary", "1"],
        ["like", "binary", "1"],
        [],
        ["feature", "kind", "ids"],
        ["age", "numeric", "-"],
        ["city", "categorical", "4"],
        [],
        ["MMoE:", f"{parameters:,}", "parameters"],
    ]


def test_it_is_exported(model, capsys):
    arguments = ["--model", "mmoe.keras", "--base-path", "shop", "--quiet"]
    assert mptrec_cli.main(["serving", "export", *arguments]) == 0
    assert capsys.readouterr().out == "shop/1\n"
    assert Manifest.read("shop/1").stage1_tasks == ["click", "like"]


def test_no_task_is_added_to_it(model, capsys):
    arguments = ["--config", "config.yaml", "--model", "mmoe.keras", "--task", "buy"]
    assert mptrec_cli.main(["add-task", *arguments, "--output", "run"]) == 2
    assert "mmoe.keras: holds the model 'MMoE', expected MPTRec" in capsys.readouterr().err
