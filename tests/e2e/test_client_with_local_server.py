"""The client and the local server together: what is served equals what the model predicts."""

import json

import numpy as np
import pandas as pd
import pytest
import tiny_models

import mptrec_cli
from mptrec_client import Client, ClientError, NotFoundError, ServerError
from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    MPTRec,
    MultiValuedFeature,
    NumericFeature,
    Task,
    make_dataset,
)
from mptrec_tf.serving import export
from mptrec_tf.serving.local import LocalServer

FEATURES = (
    NumericFeature("age"),
    NumericFeature("hourly wage", missing=-1.0),
    CategoricalFeature("city", missing_values=("?",)),
    CategoricalFeature("industry"),
    MultiValuedFeature("tags", max_length=3),
)
TASKS = (
    Task("click", "click"),
    Task("visits", "visits", kind="regression"),
    Task("color", "color", kind="multiclass", classes=("red", "green", "blue")),
)


@pytest.fixture(scope="module")
def rows():
    """Every kind of cell; pandas makes floats of `industry`, where some codes are missing."""
    rng, size = np.random.default_rng(0), 150
    return pd.DataFrame(
        {
            "id": np.arange(size),
            "age": rng.integers(18, 80, size),
            "hourly wage": np.where(rng.random(size) < 0.2, np.nan, rng.random(size) * 100),
            "city": rng.choice(["Malmö", "Oslo", "Rome", "?", "", None], size),
            "industry": np.where(rng.random(size) < 0.2, np.nan, rng.integers(0, 9, size)),
            "tags": [list(rng.choice(["a", "b", "c"], rng.integers(0, 5))) for _ in range(size)],
            "click": rng.integers(0, 2, size),
            "visits": rng.random(size),
            "color": rng.choice(["red", "green", "blue"], size),
        }
    )


@pytest.fixture(scope="module")
def served(rows, tmp_path_factory):
    """A server, and the predictions of the model that it serves as `shop`."""
    encoder = FeatureEncoder(FEATURES).adapt(rows)
    model = MPTRec(encoder, TASKS, expert_units=(8, 4), tower_units=(4,))
    model.compile("adam", jit_compile=False)
    model.fit(make_dataset(rows, encoder, TASKS), epochs=2, verbose=0)
    base_path = tmp_path_factory.mktemp("serving") / "shop"
    export(model, base_path, rows=rows)
    with LocalServer(base_path) as server:
        yield server, model.predict(encoder.encode(rows), verbose=0)


@pytest.fixture(params=["grpc", "rest"])
def transport(request):
    return request.param


def address_of(server, transport):
    return server.rest_url if transport == "rest" else f"grpc://{server.grpc_address}"


def as_frame(rows):
    return rows


def as_dicts(rows):
    return rows.to_dict("records")


def as_csv_reader(rows):
    """All cells are text, but lists."""
    text = rows.drop(columns="tags").to_csv(index=False)
    lines = text.splitlines()
    read = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    return [{**row, "tags": tags} for row, tags in zip(read, rows["tags"], strict=True)]


@pytest.mark.parametrize("form", [as_frame, as_dicts])
def test_served_predictions_are_those_of_the_model(served, rows, transport, form):
    server, expected = served
    with Client(address_of(server, transport), "shop", batch_size=64) as client:
        client.wait_until_available(20)
        predictions = client.predict(form(rows))
    assert set(predictions) == set(expected)
    for task, array in predictions.items():
        assert array.shape == expected[task].shape
        np.testing.assert_allclose(array, expected[task], rtol=1e-5, atol=1e-6)


def test_numbers_as_text_are_numbers(served, rows, transport):
    server, expected = served
    texts = as_csv_reader(rows)
    for row in texts:
        row["industry"] = row["industry"].removesuffix(".0")
    with Client(address_of(server, transport), "shop") as client:
        predictions = client.predict(texts)
    np.testing.assert_allclose(predictions["click"], expected["click"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tasks", [["color"], ["visits", "click"]], ids=str)
def test_some_tasks_are_those_of_all(served, rows, transport, tasks):
    server, expected = served
    with Client(address_of(server, transport), "shop") as client:
        predictions = client.predict(rows, tasks)
    assert list(predictions) == tasks
    for task in tasks:
        np.testing.assert_allclose(predictions[task], expected[task], rtol=1e-5, atol=1e-6)


def test_a_missing_number_without_a_stand_in_is_refused_by_the_server(served, rows, transport):
    server, _ = served
    row = {**as_dicts(rows)[0], "age": None}
    client = Client(address_of(server, transport), "shop")
    with client, pytest.raises(ServerError, match="NaN") as caught:
        client.predict([row])
    assert caught.value.code == "INVALID_ARGUMENT"


def test_what_a_server_does_not_have_is_not_found(served, rows, transport):
    server, _ = served
    for choice in ({"model": "shopp"}, {"model": "shop", "version": 7}):
        client = Client(address_of(server, transport), **choice)
        with client, pytest.raises(NotFoundError):
            client.predict(rows)


def test_versions_and_labels(tmp_path, transport):
    base_path = tmp_path / "tiny"
    for version in (1, 2):
        tiny_models.save(base_path, version)
    config = tmp_path / "models.config"
    config.write_text(
        f"""model_config_list {{ config {{
            name: "tiny" base_path: "{base_path}" model_platform: "tensorflow"
            model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
            version_labels {{ key: "stable" value: 1 }}
        }} }}"""
    )
    rows = [{"x": 3, "tags": ["a", "b"]}, {"x": 0.5, "tags": []}]
    with LocalServer(config_file=config, poll_seconds=0.1) as server:
        for choice, version in (({}, 2), ({"version": 1}, 1), ({"label": "stable"}, 1)):
            with Client(address_of(server, transport), "tiny", **choice) as client:
                client.wait_until_available(20)
                assert client.metadata().version == version
                predictions = client.predict(rows)
                some = client.predict(rows, ["color"])
            for number, row in enumerate(rows):
                answer = tiny_models.answer(version, **row)
                assert {task: values[number].tolist() for task, values in predictions.items()} == (
                    answer
                )
                assert some["color"][number].tolist() == answer["color"]
        with Client(address_of(server, transport), "tiny") as client:
            assert [str(status) for status in client.status()] == [
                "version 2 AVAILABLE",
                "version 1 AVAILABLE",
            ]


def test_a_new_version_is_waited_for_and_taken_up(tmp_path, transport):
    base_path = tmp_path / "tiny"
    tiny_models.save(base_path, 1)
    rows = [{"x": 1, "tags": []}]
    with LocalServer(base_path, poll_seconds=0.1) as server:
        address = address_of(server, transport)
        with Client(address, "tiny") as latest, Client(address, "tiny", version=2) as second:
            assert latest.predict(rows)["visits"].tolist() == [1]
            with pytest.raises(ClientError, match="is not available after"):
                second.wait_until_available(0.2)
            tiny_models.save(base_path, 2)
            second.wait_until_available(30)
            assert second.predict(rows)["visits"].tolist() == [2]
            assert latest.predict(rows)["visits"].tolist() == [2]


def test_the_command_prints_a_line_for_each_row(served, rows, transport, tmp_path, capsys):
    server, expected = served
    path = tmp_path / "rows.csv"
    rows.assign(
        tags=rows["tags"].map("+".join), industry=pd.array(rows["industry"], "Int64")
    ).to_csv(path, index=False)
    arguments = ["--server", address_of(server, transport), "--model", "shop", "--input", str(path)]
    arguments += ["--separator", "+"]
    command = ["serving", "request", *arguments]
    assert mptrec_cli.main(command) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for task, values in expected.items():
        printed = np.array([line[task] for line in lines])
        np.testing.assert_allclose(printed, values, rtol=1e-5, atol=1e-6)
    assert mptrec_cli.main([*command, "--rows", "2", "--tasks", "color"]) == 0
    assert [list(json.loads(line)) for line in capsys.readouterr().out.splitlines()] == [
        ["color"],
        ["color"],
    ]
    assert mptrec_cli.main([*command, "--tasks", "colour"]) == 2
    assert "did you mean 'color'?" in capsys.readouterr().err


def test_the_command_takes_a_number_or_bytes_for_a_list_of_one(served, rows, tmp_path, capsys):
    server, _ = served
    command = ["serving", "request", "--server", server.rest_url, "--model", "shop", "--input"]
    printed = []
    for name, tags in (("lists", [["7"]]), ("numbers", [7]), ("bytes", [b"7"])):
        path = tmp_path / f"{name}.parquet"
        rows.head(4).assign(tags=tags * 4).to_parquet(path)
        assert mptrec_cli.main([*command, str(path)]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2] != ""
