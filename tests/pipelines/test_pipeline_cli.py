"""`mptrec pipeline`: what it prints of real runs, and what it hands on."""

import json
import re
import sys

import pytest
import small_runs
import tiny_pipelines as tiny

import mptrec_cli
from mptrec_tf.errors import PipelineError
from pipelines.runners.local import run
from pipelines.runs import Outcome, run_pretrain, run_prompt_tune

CONFIG = """\
data: {train: train.csv, validation: validation.csv}
features: [{kind: numeric, name: age}]
tasks: [{name: click, label: click}, {name: buy, label: buy}]
stage1: {tasks: [click]}
pipeline: {name: tiny}
"""


def mptrec(capfd, *arguments):
    """Exit code, stdout and stderr of a command; times are `TIME`, seconds in tables 0."""
    code = mptrec_cli.main(["pipeline", *map(str, arguments)])
    out, err = capfd.readouterr()
    out = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", out)
    return (
        code,
        re.sub(r"(complete|cached) +\d+", lambda m: m[1] + "0".rjust(len(m[0]) - len(m[1])), out),
        err,
    )


@pytest.fixture
def output(tmp_path):
    for version in (1, 2):
        run(tiny.pretrain(tmp_path, version=version), log_file=tmp_path / "log", progress=False)
    return tmp_path


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_status_shows_runs_and_versions(output, capfd):
    (output / "serving/tiny/1").rmdir()
    assert mptrec(capfd, "status", "--output", output) == (
        0,
        f"""\
started  pipeline       state     seconds  components
TIME  tiny-pretrain  complete        0  5 complete
TIME  tiny-pretrain  complete        0  4 cached, 1 complete

tiny-pretrain, TIME:
component  state     seconds
Ingest     cached          0
Transform  cached          0
Trainer    cached          0
Evaluator  cached          0
Pusher     complete        0

version  pushed               by             directory
1        TIME  tiny-pretrain  {output}/serving/tiny/1 (deleted)
2        TIME  tiny-pretrain  {output}/serving/tiny/2
""".replace("started  ", "started              "),
        "",
    )


def test_status_tells_running_from_interrupted(tmp_path, capfd):
    process, _ = tiny.waiting_run(tmp_path)
    code, out, err = mptrec(capfd, "status", "--output", tmp_path)
    assert (code, err) == (0, f"at work: tiny-pretrain, process {process.pid}\n")
    assert "tiny-pretrain  running" in out
    assert re.search(r"^Waiting    running         -$", out, re.MULTILINE)
    process.kill()
    process.wait()
    code, out, err = mptrec(capfd, "status", "--output", tmp_path)
    assert (code, err) == (0, "")
    assert "tiny-pretrain  interrupted" in out
    assert re.search(r"^Waiting    interrupted        -$", out, re.MULTILINE)


def test_status_of_a_directory_without_runs_is_an_error(tmp_path, capfd):
    code, out, err = mptrec(capfd, "status", "--output", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"mptrec: error: {tmp_path}/metadata.sqlite: not there; no pipeline has run yet\n"


def test_lineage_is_that_of_the_last_version_or_of_the_one_asked_for(output, config, capfd):
    last = mptrec(capfd, "lineage", "--output", output)
    assert "pushed_version=2" in last[1]
    assert mptrec(capfd, "lineage", "--output", output, "--version", 2) == last
    assert mptrec(capfd, "lineage", "--output", output, "--config", config) == last
    assert "pushed_version=1" in mptrec(capfd, "lineage", "--output", output, "--version", 1)[1]
    code, _, err = mptrec(capfd, "lineage", "--output", output, "--version", 7)
    assert (code, "no version 7 was pushed; there are [1, 2]" in err) == (2, True)


def test_lineage_as_json_and_picture(output, tmp_path, capfd):
    picture = tmp_path / "pictures" / "l.svg"
    code, out, err = mptrec(
        capfd, "lineage", "--output", output, "--artifact", 3, "--json", "--picture", picture
    )
    assert (code, json.loads(out)["artifact"], err) == (0, 3, f"picture: {picture}\n")
    assert "Model 3 (version 2)" in picture.read_text()


def test_run_hands_on_what_was_asked_for(output, config, capfd, monkeypatch):
    calls = []

    def ran(*arguments, **options):
        calls.append((*arguments[1:], options))
        result = run(tiny.pretrain(output, version=2), log_file=output / "log", progress=False)
        return Outcome(2, f"{output}/serving/tiny/2", [], ["look at it"], result, "page.html")

    monkeypatch.setattr("pipelines.runs.run_pretrain", ran)
    monkeypatch.setattr("pipelines.runs.run_prompt_tune", ran)
    common = ["run", "--config", config, "--output", output]
    code, out, _ = mptrec(capfd, *common, "--stage", "pretrain", "--seed", 3, "--span", 2)
    assert code == 0
    assert "\nPusher     cached        0\n" in out
    assert out.endswith(
        f"seconds\nreport: page.html\nnote: look at it\nversion 2: {output}/serving/tiny/2\n"
    )
    mptrec(capfd, *common, "--stage", "prompt_tune", "--task", "buy", "--base", 1, "--quiet")
    assert calls == [
        (output, {"seed": 3, "span": 2, "progress": True}),
        ("buy", output, {"base": "1", "seed": 0, "span": None, "progress": False}),
    ]


def test_a_push_is_noted_down_before_the_report_is_written(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    given = []

    def create(*_, baseline, **__):
        given.append(baseline)
        return tiny.pretrain(output, version=len(given))

    small_runs.write_rows(tmp_path)
    config, output = small_runs.config(tmp_path), tmp_path / "output"
    monkeypatch.setattr("pipelines.runs.write_report", killed)
    monkeypatch.setattr("pipelines.pretrain.create_pipeline", create)
    with pytest.raises(KeyboardInterrupt):
        run_pretrain(config, output)
    (record,) = output.glob("last-*.json")
    assert (record.name, json.loads(record.read_text())["version"]) == (
        "last-synthetic-pretrain.json",
        1,
    )
    with pytest.raises(KeyboardInterrupt):  # goes on as the run that it is
        run_pretrain(config, output)
    assert given == [None, None]


def test_a_refused_model_is_an_error_with_its_reasons(tmp_path, config, capfd, monkeypatch):
    def ran(*_, **__):
        result = run(tiny.pretrain(tmp_path, pushed=0), log_file=tmp_path / "log", progress=False)
        return Outcome(None, None, ["auc is 0.6", "task 'click' has changed"], [], result, None)

    monkeypatch.setattr("pipelines.runs.run_pretrain", ran)
    arguments = ["run", "--config", config, "--output", tmp_path, "--stage", "pretrain"]
    code, out, err = mptrec(capfd, *arguments)
    assert (code, "Evaluator  complete" in out) == (2, True)
    assert err == ("mptrec: error: not pushed:\n- auc is 0.6\n- task 'click' has changed\n")


def test_a_second_run_in_the_same_directory_is_refused(tmp_path, capfd):
    small_runs.write_rows(tmp_path)
    config = small_runs.write_config(tmp_path / "synthetic.yaml", tmp_path)
    output = tmp_path / "output"
    output.mkdir()
    process, marker = tiny.waiting_run(output)
    try:
        arguments = ["run", "--config", config, "--output", output, "--stage", "pretrain"]
        code, out, err = mptrec(capfd, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"mptrec: error: {output}: another run is at work: tiny-pretrain, ")
        assert f"process {process.pid}" in err
    finally:
        marker.unlink()
        assert process.wait() == 0
    assert sorted(path.name for path in (output / "artifacts").iterdir()) == ["Ingest", "Waiting"]


@pytest.mark.parametrize(
    "stage", [["pretrain"], ["prompt_tune", "--task", "buy"]], ids=lambda s: s[0]
)
def test_a_remote_push_to_is_refused_before_any_work(stage, tmp_path, capfd):
    config = small_runs.write_config(
        tmp_path / "synthetic.yaml", tmp_path, pipeline={"push_to": "gs://bucket/serving"}
    )
    arguments = ["run", "--config", config, "--output", tmp_path / "output", "--stage", *stage]
    code, out, err = mptrec(capfd, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("mptrec: error: pipeline.push_to: gs://bucket/serving is remote; ")
    assert not list((tmp_path / "output").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "components"),
    [
        (["pretrain"], {"Ingest", "Transform", "Trainer", "Pusher"}),
        (
            ["prompt_tune", "--task", "buy", "--labelled-tasks", "click"]
            + ["--base-model", "gs://b/model", "--base-transform-graph", "gs://b/graph"]
            + ["--base-schema", "gs://b/schema", "--base-statistics", "gs://b/statistics"],
            {"BaseModel", "Ingest", "Encode", "Trainer", "FrozenTaskGate", "Pusher"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_compile_writes_a_pipeline(arguments, components, tmp_path, capfd):
    config, file = tmp_path / "config.yaml", tmp_path / "new" / "pipeline.json"
    kubeflow = "kubeflow: {image: example/mptrec, root: gs://b/root}, push_to: /mnt/serving"
    config.write_text(
        CONFIG.replace("{name: tiny}", f"{{name: tiny, {kubeflow}}}").replace(
            "{train: train.csv, validation: validation.csv}",
            "{train: gs://b/train.csv, validation: gs://b/v.csv, test: gs://b/test.csv}",
        )
    )
    code, out, _ = mptrec(
        capfd, "compile", "--config", config, "--output", file, "--stage", *arguments
    )
    assert (code, out) == (0, f"pipeline: {file}\n")
    spec = json.loads(file.read_text())["pipelineSpec"]
    assert components <= set(spec["root"]["dag"]["tasks"])
    if "--base-model" in arguments:
        assert '"gs://b/model"' in file.read_text()


def test_a_remote_output_is_refused_and_not_taken_for_a_directory_here(tmp_path, monkeypatch):
    small_runs.write_rows(tmp_path)
    config, here = small_runs.config(tmp_path), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(PipelineError, match=r"^gs://bucket/out: the output of a run is a dir"):
        run_pretrain(config, "gs://bucket/out")
    with pytest.raises(PipelineError, match=r"^gs://bucket/out: the output of a run is a dir"):
        run_prompt_tune(config, "buy", "gs://bucket/out")
    assert list(here.iterdir()) == []


def test_without_tfx_it_is_told_how_to_get_it(tmp_path, capfd, monkeypatch):
    monkeypatch.delitem(sys.modules, "pipelines.metadata")
    monkeypatch.setitem(sys.modules, "ml_metadata", None)
    code, _, err = mptrec(capfd, "status", "--output", tmp_path)
    assert code == 2
    assert err == "mptrec: error: pipelines need ml_metadata: pip install 'mptrec-tf[tfx]'\n"
