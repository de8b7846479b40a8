"""Questions to ML Metadata after real runs."""

import shutil
import socket

import pytest
import tiny_pipelines as tiny

from mptrec_tf.errors import PipelineError
from mptrec_tf.pipeline_config import PipelineConfig
from pipelines.metadata import Store, connection, push_directory
from pipelines.runners.local import run


def open_store(directory):
    return Store(connection(PipelineConfig(), directory))


def run_all(directory, *pipelines):
    return [run(p, log_file=directory / "run.log", progress=False) for p in pipelines]


@pytest.fixture
def pushed(tmp_path):
    """Version 1 of `tiny`, and version 2 with the task `buy` on top of it."""
    [first] = run_all(tmp_path, tiny.pretrain(tmp_path))
    [model], [graph] = (
        first.executions["Trainer"].outputs["model"],
        first.executions["Transform"].outputs["graph"],
    )
    [second] = run_all(tmp_path, tiny.prompt_tune(tmp_path, model, graph))
    return first, second


def test_runs_are_listed_in_order(pushed, tmp_path):
    runs = open_store(tmp_path).runs()
    assert [(r.pipeline, r.run_id) for r in runs] == [
        ("tiny-pretrain", pushed[0].run_id),
        ("tiny-buy", pushed[1].run_id),
    ]
    executions = open_store(tmp_path).executions_of_run(pushed[1].run_id)
    assert {e.component: e.state for e in executions} == {
        "BaseModel": "cached",
        "BaseGraph": "cached",
        "Ingest": "complete",
        "TaskTrainer": "complete",
        "Evaluator": "complete",
        "Pusher": "complete",
    }


def test_a_run_that_is_not_there_is_named(pushed, tmp_path):
    with pytest.raises(PipelineError, match="no run 'absent'"):
        open_store(tmp_path).executions_of_run("absent")


def test_an_execution_knows_its_inputs_outputs_and_settings(pushed, tmp_path):
    first, second = pushed
    trainer = second.executions["TaskTrainer"]
    assert trainer.inputs == {
        "base_model": first.executions["Trainer"].outputs["model"],
        "examples": second.executions["Ingest"].outputs["examples"],
        "graph": first.executions["Transform"].outputs["graph"],
    }
    assert trainer.properties == {"settings": {"epochs": 1}}
    [examples] = second.executions["Ingest"].outputs["examples"]
    assert examples.type == "Examples"
    assert examples.uri == f"{tmp_path}/artifacts/Ingest/examples/{second.executions['Ingest'].id}"
    named = ("split_names", "span", "input_fingerprint", "rows:train", "rows:test")
    assert {name: examples.properties[name] for name in named} == {
        "split_names": ["train", "test"],
        "span": 2,
        "input_fingerprint": "rows:5",
        "rows:train": 4,
        "rows:test": 1,
    }


def test_pushed_models_point_at_what_was_trained(pushed, tmp_path):
    store = open_store(tmp_path)
    models = store.pushed_models(f"{tmp_path}/serving/tiny")
    assert [(m.version, m.directory, m.pipeline) for m in models] == [
        (1, f"{tmp_path}/serving/tiny/1", "tiny-pretrain"),
        (2, f"{tmp_path}/serving/tiny/2", "tiny-buy"),
    ]
    assert [(m.model,) for m in models] == [
        pushed[0].executions["Trainer"].outputs["model"],
        pushed[1].executions["TaskTrainer"].outputs["model"],
    ]
    assert store.last_pushed(f"{tmp_path}/serving/tiny") == models[1]
    assert store.pushed_version(1) == models[0]
    assert store.pushed_models(f"{tmp_path}/serving/other") == []


def test_a_refused_model_is_not_the_last_one(tmp_path):
    run_all(tmp_path, tiny.pretrain(tmp_path), tiny.pretrain(tmp_path, version=2, rows=4, pushed=0))
    assert open_store(tmp_path).last_pushed(f"{tmp_path}/serving/tiny").version == 1


def test_a_pusher_from_the_cache_pushes_no_second_time(tmp_path):
    run_all(tmp_path, tiny.pretrain(tmp_path), tiny.pretrain(tmp_path))
    assert [m.version for m in open_store(tmp_path).pushed_models()] == [1]


def test_models_of_several_directories_are_kept_apart(tmp_path):
    run_all(
        tmp_path,
        tiny.pretrain(tmp_path),
        tiny.pretrain(tmp_path, name="tiny-b-pretrain", serving="serving/tiny-b"),
    )
    store = open_store(tmp_path)
    with pytest.raises(
        PipelineError, match=rf"\['{tmp_path}/serving/tiny', '{tmp_path}/serving/tiny-b'\]"
    ):
        store.pushed_version(1)
    assert store.pushed_version(1, f"{tmp_path}/serving/tiny").pipeline == "tiny-pretrain"
    assert store.last_pushed(f"{tmp_path}/serving/tiny").pipeline == "tiny-pretrain"
    assert store.last_pushed(f"{tmp_path}/serving/tiny-b/").pipeline == "tiny-b-pretrain"
    with pytest.raises(PipelineError, match=r"no model has been pushed to .*/serving/other yet"):
        store.last_pushed(f"{tmp_path}/serving/other")


def test_versions_go_to_the_output_directory_or_where_they_are_sent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert push_directory(PipelineConfig(name="tiny"), "out") == f"{tmp_path}/out/serving/tiny"
    assert push_directory(PipelineConfig(push_to="live"), "out") == f"{tmp_path}/live"
    assert push_directory(PipelineConfig(push_to="gs://b/live/"), "out") == "gs://b/live"


@pytest.mark.parametrize("lost", ["serving/tiny/2", "artifacts/TaskTrainer"])
def test_files_that_were_deleted_are_named(lost, pushed, tmp_path):
    shutil.rmtree(tmp_path / lost)
    with pytest.raises(PipelineError, match=rf"version 2 was .*{tmp_path}/{lost}.* not there"):
        open_store(tmp_path).last_pushed(f"{tmp_path}/serving/tiny")


def test_a_base_can_be_named_in_three_ways(pushed, tmp_path):
    [model] = pushed[0].executions["Trainer"].outputs["model"]
    store = open_store(tmp_path)
    for reference in ("1", f"id:{model.id}", model.uri, f"{model.uri}/"):
        assert store.find_model(reference, f"{tmp_path}/serving/tiny") == model
    assert store.model_by_id(model.id) == model
    shutil.rmtree(model.uri)
    with pytest.raises(PipelineError, match=f"model 1: {model.uri} is not there any more"):
        store.find_model("1", f"{tmp_path}/serving/tiny")


def test_a_base_that_is_not_there_is_named(pushed, tmp_path):
    store = open_store(tmp_path)
    [graph] = pushed[0].executions["Transform"].outputs["graph"]
    for reference, message in (
        ("7", r"no version 7 was pushed; there are \[1, 2\]"),
        ("id:999", "no artifact with the id 999"),
        (f"id:{graph.id}", f"the artifact {graph.id} is no Model, but TransformGraph"),
        (str(tmp_path), "no model of .* is there; give the number"),
    ):
        with pytest.raises(PipelineError, match=message):
            store.find_model(reference, f"{tmp_path}/serving/tiny")


def test_the_maker_of_an_artifact_comes_before_who_reused_it(pushed, tmp_path):
    run_all(tmp_path, tiny.pretrain(tmp_path))
    [model] = pushed[0].executions["Trainer"].outputs["model"]
    store = open_store(tmp_path)
    producers = store.producers(model)
    assert producers[0] == pushed[0].executions["Trainer"]
    assert [(e.component, e.state) for e in producers[1:]] == [
        ("BaseModel", "cached"),
        ("Trainer", "cached"),
    ]
    assert [e.component for e in store.consumers(model)][:3] == [
        "Evaluator",
        "Pusher",
        "TaskTrainer",
    ]


def test_without_a_run_there_is_no_store(tmp_path):
    with pytest.raises(
        PipelineError, match=r"metadata\.sqlite: not there; no pipeline has run yet"
    ):
        open_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reading_changes_nothing(pushed, tmp_path):
    file = tmp_path / "metadata.sqlite"
    before = file.read_bytes()
    open_store(tmp_path).runs()
    assert file.read_bytes() == before


def test_servers_are_reached_by_url(tmp_path):
    mysql = connection(PipelineConfig(metadata="mysql://a:p%40s@db.local/runs"), tmp_path).mysql
    assert (mysql.host, mysql.port, mysql.database) == ("db.local", 3306, "runs")
    assert (mysql.user, mysql.password) == ("a", "p@s")
    url = "postgresql://b:q@db.local:5433/runs"
    server = connection(PipelineConfig(metadata=url), tmp_path).postgresql
    assert (server.host, server.port, server.dbname) == ("db.local", "5433", "runs")
    assert (server.user, server.password) == ("b", "q")


@pytest.mark.parametrize("url", ["mysql://a:secret@db.local", "postgresql://a:secret@/runs"])
def test_a_url_without_host_or_database_is_refused(url, tmp_path):
    with pytest.raises(PipelineError, match="HOST:PORT/DATABASE") as raised:
        connection(PipelineConfig(metadata=url), tmp_path)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["mysql", "postgresql"])
def test_a_server_that_does_not_answer_stops_a_run_at_once(scheme, tmp_path, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"{scheme}://a:secret@127.0.0.1:{taken.getsockname()[1]}/runs"
        pipeline = tiny.pretrain(tmp_path)
        pipeline.metadata_connection_config = connection(PipelineConfig(metadata=url), tmp_path)
        with pytest.raises(
            PipelineError, match=f"^{scheme}://127.0.0.1:.*cannot be opened"
        ) as error:
            run(pipeline, log_file=tmp_path / "run.log", directory=tmp_path)
    assert "secret" not in str(error.value)
    assert "[1/5]" not in capfd.readouterr().err
