"""The Tuner within both pipelines: what it finds is what the Trainer uses."""

import json
import math
import pathlib

import pytest
import small_runs

from mptrec_tf.errors import PipelineError
from mptrec_tf.tuning import StageTuner
from pipelines.components.trainer import TRAINING_FILE
from pipelines.metadata import Store, connection
from pipelines.reporting.lineage import to_json, to_text, trace
from pipelines.runs import run_pretrain, run_prompt_tune

pytestmark = pytest.mark.long

TOO_SMALL = 1e-6  # nothing is learned with it, so trial 2 is better than the configuration
RATE = {"kind": "float", "min": TOO_SMALL, "max": 1e-1}
TUNER = {
    "trials": 2,
    "stage1": {
        "learning_rate": RATE,
        "expert_units": {"kind": "choice", "values": [[16, 8], [8, 4]]},
    },
    "stage2": {"learning_rate": RATE, "query_units": {"kind": "choice", "values": [2, 4]}},
}
OWN = {
    "stage1": {"learning_rate": TOO_SMALL, "expert_units": [8, 4]},
    "stage2": {"learning_rate": TOO_SMALL, "query_units": 4},
}
"""What the configuration says."""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rows")
    small_runs.write_rows(directory)
    training = small_runs.TRAINING | {"epochs": 2, "learning_rate": TOO_SMALL}
    stages = {name: small_runs.PLAIN[name] | {"training": training} for name in OWN}
    stages["stage2"]["module"] = stages["stage2"]["module"] | {"query_units": 4}
    stages["stage2"]["cache"] = "disk"
    return small_runs.config(directory, **stages, tuner=TUNER, pipeline={"tune": True})


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def runs(config, output):
    """What the components of both runs did."""
    return {
        "stage1": run_pretrain(config, output, progress=False).result.executions,
        "stage2": run_prompt_tune(config, "buy", output, progress=False).result.executions,
    }


@pytest.fixture(scope="module", params=["stage1", "stage2"])
def stage(request):
    return request.param


def read(artifact):
    """The one JSON file of an artifact."""
    (file,) = pathlib.Path(artifact.uri).iterdir()
    return json.loads(file.read_text())


def values(record, stage):
    """Settings by name; choices are JSON texts for KerasTuner."""
    return {
        name: json.loads(record[name]) if isinstance(record[name], str) else record[name]
        for name in TUNER[stage]
    }


def trials(runs, stage):
    """Score and settings of each trial."""
    (artifact,) = runs[stage]["Tuner"].outputs["tuner_results"]
    records = sorted(read(artifact), key=lambda record: int(record["trial_id"]))
    return [(record["score"], values(record, stage)) for record in records]


def best(runs, stage):
    """The artifact of the best settings, and these."""
    (artifact,) = runs[stage]["Tuner"].outputs["best_hyperparameters"]
    return artifact, values(read(artifact)["values"], stage)


def test_each_trial_has_a_score_and_the_first_is_the_configuration(runs, stage):
    scored = trials(runs, stage)
    assert len(scored) == TUNER["trials"]
    assert all(math.isfinite(score) for score, _ in scored)
    assert scored[0][1] == OWN[stage]
    assert scored[1][1] != OWN[stage]


def test_a_search_that_has_ended_keeps_its_trials_and_no_representations(runs, output):
    (search, *others) = output.glob("artifacts/state/tune-*")
    names = [path.name for found in (search, *others) for path in found.iterdir()]
    assert "oracle.json" in names
    assert "representations" not in names


def test_the_trainer_uses_the_best_settings(runs, stage):
    artifact, chosen = best(runs, stage)
    scored = trials(runs, stage)
    assert chosen == max(scored, key=lambda trial: trial[0])[1]
    assert chosen != OWN[stage]
    assert runs[stage]["Trainer"].inputs["hyperparameters"] == (artifact,)
    (model,) = runs[stage]["Trainer"].outputs["model"]
    file = pathlib.Path(model.uri, "Format-Serving", TRAINING_FILE)
    training = json.loads(file.read_text())
    used = {**training["settings"]["model" if stage == "stage1" else "module"]}
    used |= training["settings"]["training"]
    assert {name: used[name] for name in chosen} == chosen
    # The same training as that trial: the same rows, settings and seed.
    score = max(epoch["val_mean_auc"] for epoch in training["epochs"])
    assert score == pytest.approx(max(score for score, _ in scored), abs=1e-6)


def test_the_lineage_tells_the_search_and_its_result(runs, stage, config, output):
    store = Store(connection(config.pipeline, output))
    (pushed,) = runs[stage]["Pusher"].outputs["pushed_model"]
    traced = trace(store, store.artifact(pushed.id))
    artifact, chosen = best(runs, stage)
    plain = to_json(traced)
    (tuner,) = [e for e in plain["executions"] if e["id"] == runs[stage]["Tuner"].id]
    (trainer,) = [e for e in plain["executions"] if e["id"] == runs[stage]["Trainer"].id]
    assert tuner["outputs"]["best_hyperparameters"] == [artifact.id]
    assert trainer["inputs"]["hyperparameters"] == [artifact.id]
    text = to_text(traced)
    assert f"hyperparameters: HyperParameters {artifact.id}" in text
    assert f"learning_rate={chosen['learning_rate']:g}" in text


def test_a_search_without_a_single_success_fails_and_can_be_repeated(
    runs, config, output, monkeypatch
):
    def no_memory(*_, **__):
        raise MemoryError("no memory left for the trial")

    def search():
        return run_pretrain(config, output, seed=1, progress=False)  # the rows are in the cache

    with monkeypatch.context() as patch:
        patch.setattr(StageTuner, "run_trial", no_memory)
        with pytest.raises(PipelineError, match=r"^Tuner: .*no memory left for the trial"):
            search()
    store = Store(connection(config.pipeline, output))
    failed = store.runs()[-1]
    assert failed.state == "failed"
    assert [e.component for e in failed.executions if e.state == "failed"] == ["Tuner"]
    assert "Trainer" not in [e.component for e in failed.executions]
    again = {"seed 1": search().result.executions}
    (artifact,) = again["seed 1"]["Tuner"].outputs["tuner_results"]
    assert len(read(artifact)) == TUNER["trials"]
