"""The pipelines as files for Kubeflow: nothing is missing in them, and nothing is read for them."""

import builtins
import json
import pathlib
import re
import socket

import pytest
import small_runs
import yaml
from tfx.dsl.compiler import compiler

import mptrec_cli
from mptrec_tf.errors import PipelineError, SpecError
from pipelines import pretrain, prompt_tune
from pipelines.prompt_tune import Base
from pipelines.runners.kubeflow import compile_pipeline

NOWHERE = pathlib.Path("/nowhere")
SOURCES = {part: f"gs://bucket/rows/{part}-*.csv" for part in small_runs.ROWS}
BASE = Base("gs://b/model/7", "gs://b/graph/6", "gs://b/schema/3", "gs://b/statistics/2")
IMAGE, ROOT, PUSH_TO = "example/mptrec:1", "gs://bucket/pipelines", "/mnt/serving/synthetic"
SETTINGS = {"kubeflow": {"image": IMAGE, "root": ROOT}, "push_to": PUSH_TO}
RATE = {"learning_rate": {"kind": "float", "min": 1e-3, "max": 1e-1}}
TUNER = {"trials": 2, "stage1": RATE, "stage2": RATE}
COMMAND = ["python", "-m", "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"]

ROWS = {"examples": ("Ingest", "examples")}
TRANSFORMED = {
    "examples": ("Transform", "transformed_examples"),
    "transform_graph": ("Transform", "transform_graph"),
}
ENCODED = {
    "examples": ("Encode", "encoded"),
    "transform_graph": ("BaseTransformGraph", "result"),
    "base_model": ("BaseModel", "result"),
}
MODEL = {"model": ("Trainer", "model")}
TUNED = {"hyperparameters": ("Tuner", "best_hyperparameters")}
COMMON = {
    "Ingest": {},
    "StatisticsGen": ROWS,
    "RequireValidData": {"anomalies": ("DataValidator", "anomalies")},
    "Evaluator": ROWS | MODEL,
}
STATISTICS = {"statistics": ("StatisticsGen", "statistics")}
LEARNED = {"schema": ("LearnedSchema", "schema")}
PRETRAIN = {
    **COMMON,
    "LearnedSchema": STATISTICS,
    "DataValidator": STATISTICS | LEARNED,
    "Transform": ROWS | LEARNED,
    "Tuner": TRANSFORMED,
    "Trainer": TRANSFORMED | LEARNED | TUNED,
    "Pusher": MODEL | {"model_blessing": ("Evaluator", "blessing")},
}
IMPORTED = {"schema": ("BaseSchema", "result")}
BUY = {
    **COMMON,
    **{name: {} for name in ("BaseModel", "BaseTransformGraph", "BaseSchema", "BaseStatistics")},
    "DataValidator": STATISTICS | IMPORTED | {"base_statistics": ("BaseStatistics", "result")},
    "Encode": ROWS | {"transform_graph": ("BaseTransformGraph", "result")},
    "Tuner": ENCODED,
    "Trainer": ENCODED | IMPORTED | TUNED,
    "FrozenTaskGate": ROWS
    | MODEL
    | {"base_model": ("BaseModel", "result"), "model_blessing": ("Evaluator", "blessing")},
    "Pusher": MODEL | {"model_blessing": ("FrozenTaskGate", "blessing")},
}
STAGES = {"pretrain": PRETRAIN, "buy": BUY}
"""Every input of every component, by the component and output that it is from."""


def config_of(**pipeline):
    return small_runs.config(NOWHERE, tuner=TUNER, pipeline={"tune": True, **SETTINGS} | pipeline)


def compiled(file, stage, config=None):
    """The specification of a pipeline, read from its file."""
    new = {"task": "buy", "base": BASE, "labelled_tasks": ["click"]} if stage == "buy" else {}
    path = compile_pipeline(config or config_of(), file, sources=SOURCES, **new)
    assert path == file
    return specification(file)


def settings_of(spec, component):
    """What a component is told beside its artifacts, `custom_config`."""
    given = spec["root"]["dag"]["tasks"][component]["inputs"]["parameters"]["custom_config"]
    return json.loads(given["runtimeValue"]["constant"])


def specification(file):
    if file.suffix == ".json":
        return json.loads(file.read_text())["pipelineSpec"]
    return yaml.safe_load(file.read_text())


def inputs(spec):
    """Component and output that each input of each component is from."""
    found = {}
    for name, task in spec["root"]["dag"]["tasks"].items():
        artifacts = task.get("inputs", {}).get("artifacts", {})
        sources = {key: value["taskOutputArtifact"] for key, value in artifacts.items()}
        found[name] = {
            key: (source["producerTask"], source["outputArtifactKey"])
            for key, source in sources.items()
        }
    return found


@pytest.fixture(params=STAGES)
def stage(request):
    return request.param


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_every_input_of_every_component_is_there(stage, suffix, tmp_path):
    spec = compiled(tmp_path / f"pipeline{suffix}", stage)
    assert inputs(spec) == STAGES[stage]
    for name, sources in STAGES[stage].items():
        upstream = spec["root"]["dag"]["tasks"][name].get("dependentTasks", [])
        assert {source for source, _ in sources.values()} <= set(upstream)


def test_nothing_is_encoded_before_the_rows_are_found_valid(stage, tmp_path):
    tasks = compiled(tmp_path / "pipeline.json", stage)["root"]["dag"]["tasks"]
    encoder = "Encode" if stage == "buy" else "Transform"
    assert "RequireValidData" in tasks[encoder]["dependentTasks"]


def test_the_base_is_imported_from_its_uris(tmp_path):
    executors = compiled(tmp_path / "pipeline.json", "buy")["deploymentSpec"]["executors"]
    imported = {
        name: executor["importer"]["artifactUri"]["constant"]
        for name, executor in executors.items()
        if "importer" in executor
    }
    assert imported == {
        "BaseModel_executor": BASE.model,
        "BaseTransformGraph_executor": BASE.transform_graph,
        "BaseSchema_executor": BASE.schema,
        "BaseStatistics_executor": BASE.statistics,
    }


def test_places_image_and_commands_are_those_of_the_configuration(stage, tmp_path):
    file = tmp_path / "pipeline.json"
    spec = compiled(file, stage)
    assert json.loads(file.read_text())["runtimeConfig"] == {"gcsOutputDirectory": ROOT}
    containers = {
        name.removesuffix("_executor"): executor["container"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
        if "container" in executor
    }
    assert containers.keys() == {name for name in STAGES[stage] if not name.startswith("Base")}
    for container in containers.values():
        assert (container["image"], container["command"]) == (IMAGE, COMMAND)
        assert "--runner=FnApiRunner" in container["args"]

    def parameter(component, name):
        given = spec["root"]["dag"]["tasks"][component]["inputs"]["parameters"][name]
        return given["runtimeValue"]["constant"]

    assert parameter("Ingest", "input_base") == "gs://bucket/rows"
    splits = json.loads(parameter("Ingest", "input_config"))["splits"]
    assert {s["name"]: s["pattern"] for s in splits} == {p: f"{p}-*.csv" for p in SOURCES}
    destination = json.loads(parameter("Pusher", "push_destination"))
    assert destination == {"filesystem": {"base_directory": PUSH_TO}}


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_the_file_is_of_the_version_that_kubeflow_takes(stage, suffix, tmp_path):
    assert compiled(tmp_path / f"p{suffix}", stage)["schemaVersion"] == "2.1.0"


def test_a_file_without_settings_of_a_run_tells_the_root_itself(stage, tmp_path):
    assert compiled(tmp_path / "p.yaml", stage)["defaultPipelineRoot"] == ROOT


@pytest.mark.parametrize("pinned", [False, True])
def test_an_older_base_is_pushed_where_it_is_meant(pinned, tmp_path):
    new = {"task": "buy", "base": BASE, "base_is_pinned": pinned}
    compile_pipeline(config_of(), tmp_path / "p.json", sources=SOURCES, **new)
    assert settings_of(specification(tmp_path / "p.json"), "Pusher")["base_is_pinned"] is pinned


def test_a_search_for_nothing_is_refused_before_any_work(stage, tmp_path):
    section = "stage2" if stage == "buy" else "stage1"
    tuner = {key: value for key, value in TUNER.items() if key != section}
    config = small_runs.config(NOWHERE, tuner=tuner, pipeline={"tune": True, **SETTINGS})
    with pytest.raises(SpecError, match=rf"^tuner\.{section}: .* nothing that could be tuned"):
        compiled(tmp_path / "p.json", stage, config)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"dataset": "census-income"}, "data.dataset: census-income would be a file of this"),
        (
            {"train": "gs://b/t", "validation": "rows/v.csv", "test": "gs://b/e"},
            "data.validation: rows/v.csv is relative",
        ),
    ],
)
def test_rows_that_are_of_this_machine_alone_are_refused(data, message, tmp_path, capfd):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**small_runs.PLAIN, "data": data, "pipeline": SETTINGS}))
    arguments = ["--config", str(config), "--output", str(tmp_path / "p.json")]
    assert mptrec_cli.main(["pipeline", "compile", *arguments, "--stage", "pretrain"]) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize("task", ["buy", "Buy_Now"])
def test_names_are_what_kubeflow_allows(task, tmp_path):
    tasks = [*small_runs.PLAIN["tasks"][:2], {"name": task, "label": "buy"}]
    config = small_runs.config(NOWHERE, tasks=tasks, pipeline=SETTINGS)
    names = []
    for number, new in enumerate(({}, {"task": task, "base": BASE})):
        file = tmp_path / f"{number}.json"
        compile_pipeline(config, file, sources=SOURCES, **new)
        names.append(specification(file)["pipelineInfo"]["name"])
    assert names == ["synthetic-pretrain", f"synthetic-{task.lower().replace('_', '-')}"]
    assert all(re.fullmatch("[a-z0-9][a-z0-9-]{0,127}", name) for name in names)


def test_compiling_again_gives_the_same(stage, tmp_path):
    config = config_of()
    first = compiled(tmp_path / "first.json", stage, config)
    assert compiled(tmp_path / "second.json", stage, config) == first
    assert compiled(tmp_path / "first.json", stage, config) == first


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_the_command_writes_the_same(stage, suffix, tmp_path, capfd):
    rows = tmp_path / "rows"
    config = small_runs.write_config(
        tmp_path / "config.yaml", rows, tuner=TUNER, pipeline={"tune": True, **SETTINGS}
    )
    file = tmp_path / f"pipeline{suffix}"
    options = ["--stage", "pretrain"]
    if stage == "buy":
        options = ["--stage", "prompt_tune", "--task", "buy", "--labelled-tasks", "click"]
        for name, uri in BASE._asdict().items():
            options += [f"--base-{name.replace('_', '-')}", uri]
    arguments = ["--config", str(config), "--output", str(file), *options]
    assert mptrec_cli.main(["pipeline", "compile", *arguments]) == 0
    out, err = capfd.readouterr()
    assert out == f"pipeline: {file}\n"
    assert f"to be mounted in the containers: {rows}/" in err
    assert inputs(specification(file)) == STAGES[stage]


@pytest.mark.parametrize("missing", Base._fields)
def test_a_missing_part_of_the_base_is_named(missing, tmp_path):
    with pytest.raises(PipelineError, match=rf"'buy' needs .* lacks \['{missing}'\]"):
        compile_pipeline(
            config_of(),
            tmp_path / "pipeline.json",
            sources=SOURCES,
            task="buy",
            base=BASE._replace(**{missing: ""}),
        )
    assert not list(tmp_path.iterdir())


def test_a_new_task_without_a_base_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="'model', 'transform_graph', 'schema', 'statistics'"):
        compile_pipeline(config_of(), tmp_path / "p.json", sources=SOURCES, task="buy")


def test_a_comparison_with_the_version_before_is_refused(tmp_path):
    config = config_of(thresholds=[{"task": "click", "worse_by": 0.01}])
    with pytest.raises(PipelineError, match=r"worse_by of \['click'\] .* give min or max"):
        compiled(tmp_path / "pipeline.json", "pretrain", config)
    assert not list(tmp_path.iterdir())
    compiled(tmp_path / "pipeline.json", "buy", config)


@pytest.mark.parametrize("key", ["kubeflow", "push_to"])
def test_a_missing_key_is_named(key, tmp_path, capfd):
    with pytest.raises(PipelineError, match=rf"^pipeline\.{key}: "):
        compiled(tmp_path / "pipeline.json", "pretrain", config_of(**{key: None}))
    settings = SETTINGS | {key: None}
    config = small_runs.write_config(tmp_path / "config.yaml", tmp_path, pipeline=settings)
    arguments = ["--config", str(config), "--output", str(tmp_path / "pipeline.json")]
    code = mptrec_cli.main(["pipeline", "compile", *arguments, "--stage", "pretrain"])
    assert (code, f"mptrec: error: pipeline.{key}: " in capfd.readouterr().err) == (2, True)
    assert not (tmp_path / "pipeline.json").exists()


@pytest.mark.parametrize("push_to", ["gs://b/serving", "/gcs/b/serving", "/gcs"])
def test_a_push_to_that_directories_cannot_be_renamed_in_is_refused(push_to, tmp_path):
    refused = rf"^pipeline\.push_to: {push_to} is in remote storage; .* such as NFS or Filestore$"
    with pytest.raises(PipelineError, match=refused):
        compiled(tmp_path / "pipeline.json", "pretrain", config_of(push_to=push_to))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(PipelineError, match=r"pipeline\.txt: should end in \.json or \.yaml"):
        compiled(tmp_path / "pipeline.txt", "pretrain")
    with pytest.raises(PipelineError, match=r"gs://b/p\.json: expected a path on this machine"):
        compile_pipeline(config_of(), "gs://b/p.json", sources=SOURCES)


def create(stage, config):
    places = {"sources": SOURCES, "root": "/nowhere/artifacts", "push_to": "/nowhere/serving"}
    if stage == "pretrain":
        return pretrain.create_pipeline(config, **places)
    return prompt_tune.create_pipeline(config, "buy", BASE, labelled_tasks=[], **places)


def test_building_a_pipeline_touches_nothing_and_depends_on_nothing_else(stage, monkeypatch):
    create(stage, config_of())  # whatever is imported late
    touched = []

    def refuse(*arguments, **_):
        touched.append(arguments)
        raise AssertionError(f"touched: {arguments}")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", refuse)
        patch.setattr(socket, "socket", refuse)
        patch.setattr(socket, "create_connection", refuse)
        one = create(stage, config_of())
    monkeypatch.setenv("HOME", "/elsewhere")
    monkeypatch.setenv("MPTREC", "1")
    monkeypatch.chdir("/")
    other = create(stage, config_of())
    assert touched == []
    assert compiler.Compiler().compile(one) == compiler.Compiler().compile(other)
    changed = create(stage, config_of(name="changed"))
    assert compiler.Compiler().compile(one) != compiler.Compiler().compile(changed)
