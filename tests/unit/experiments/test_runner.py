"""Experiments that really run, on a few synthetic rows."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import small_experiments
import small_runs
from sklearn.metrics import roc_auc_score

from mptrec_tf.errors import ModelError, SpecError
from mptrec_tf.experiments import Results, Runner, tuning
from mptrec_tf.experiments import runner as runner_module
from mptrec_tf.experiments.plan import plan

TREES = small_experiments.TREES


@pytest.fixture
def base(tmp_path):
    return small_experiments.write_base(tmp_path)


def run(tmp_path, *experiments):
    """Runs experiments, and gives what was said."""
    said = []
    Runner(tmp_path / "work", report=said.append).run(experiments)
    return said


def counted(monkeypatch):
    """The runs of trees that are trained from now on."""
    trained = []
    original = runner_module.train_trees

    def train(run, data):
        trained.append(run.digest)
        return original(run, data)

    monkeypatch.setattr(runner_module, "train_trees", train)
    return trained


def test_nothing_is_done_twice(tmp_path, base, monkeypatch):
    trained = counted(monkeypatch)
    first = small_experiments.experiment(base, new_tasks=["buy"], seeds=[0, 1])
    run(tmp_path, first)
    assert len(trained) == len(set(trained)) == 4
    lines = (tmp_path / "work/tiny.jsonl").read_text()
    said = run(tmp_path, first)
    assert len(trained) == 4
    assert said == ["4 runs, 4 of them done"]
    assert (tmp_path / "work/tiny.jsonl").read_text() == lines

    again = [TREES, {**TREES, "name": "the same"}, {**TREES, "name": "more", "settings": {}}]
    second = small_experiments.experiment(base, name="other", variants=again, seeds=[0])
    run(tmp_path, second)
    assert len(trained) == 5  # only what no experiment had
    lines = Results(tmp_path / "work/other.jsonl").lines()
    assert lines[0]["digest"] == lines[1]["digest"] != lines[2]["digest"]
    assert lines[0]["test"] == lines[1]["test"]


def test_a_run_that_fails_leaves_what_was_done(tmp_path, base, monkeypatch):
    experiment = small_experiments.experiment(base, seeds=[0, 1, 2])
    original = runner_module.train_trees

    def fails(run, data):
        if run.seed == 1:
            raise KeyboardInterrupt
        return original(run, data)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runner_module, "train_trees", fails)
        run(tmp_path, experiment)
    results = Results(tmp_path / "work/tiny.jsonl")
    assert [line["seed"] for line in results.lines()] == [0]
    trained = counted(monkeypatch)
    run(tmp_path, experiment)
    assert len(trained) == 2
    assert [line["seed"] for line in results.lines()] == [0, 1, 2]


def test_no_more_trainings_than_allowed(tmp_path, base, monkeypatch):
    trained = counted(monkeypatch)
    experiment = small_experiments.experiment(base, seeds=[0, 1, 2])
    counts = []
    for _ in range(2):
        done = Runner(tmp_path / "work", most=2, report=str).run([experiment])
        counts.append((done, len(trained)))
    assert counts == [(False, 2), (True, 3)]


def test_lines_made_with_other_settings_are_refused_not_lost(tmp_path, base):
    run(tmp_path, small_experiments.experiment(base, seeds=[0, 1]))
    file = tmp_path / "work/tiny.jsonl"
    lines = file.read_text()
    changed = {**TREES, "settings": {"n_estimators": 3, "min_data_in_leaf": 5}}
    with pytest.raises(
        ModelError, match=r"tiny\.jsonl: .*'trees' with seed 0, 'trees' with seed 1"
    ):
        run(tmp_path, small_experiments.experiment(base, seeds=[1], variants=[changed]))
    assert file.read_text() == lines


@pytest.mark.parametrize(
    ("settings", "features", "message"),
    [
        ({"num_leafs": 3}, [], r"lightgbm has no parameters \['num_leafs'\]"),
        ({"eta": 0.5}, [], r"learning_rate is set=0.05, eta=0.5 will be ignored"),
        ({"seed": 5, "metric": "l1"}, [], r"\['metric', 'seed'\] follow from the task and the"),
        ({"application": "poisson"}, [], r"objective is set=regression, application=poisson"),
        ({"random_state": 3}, [], r"seed is set=0, random_state=3 will be ignored"),
        ({}, [{"kind": "multivalued", "name": "genres"}], r"\['genres'\] are such"),
    ],
)
def test_what_trees_cannot_do_is_told_before_anything_is_trained(
    tmp_path, settings, features, message
):
    features = [*small_runs.PLAIN["features"], *features]
    base = small_experiments.write_base(tmp_path, features=features)
    trees = {**TREES, "settings": settings}
    experiment = small_experiments.experiment(
        base, variants=[{"name": "first", "model": "mmoe", "new_task": "alone"}, trees]
    )
    with pytest.raises(SpecError, match=message):
        run(tmp_path, experiment)
    assert not (tmp_path / "work").exists()


def test_lines_that_an_experiment_still_has_are_kept(tmp_path, base):
    external = {"name": "elsewhere", "model": "external"}
    whole = small_experiments.experiment(
        base, variants=[TREES, external], new_tasks=["buy"], seeds=[0, 1]
    )
    run(tmp_path, whole)
    results = Results(tmp_path / "work/tiny.jsonl")
    results.add(small_experiments.line("elsewhere", 0, {"click": 0.8}))
    lines = results.lines()
    assert len(lines) == 5
    run(tmp_path, whole.reduced(seeds=1, new_tasks=1))
    assert results.lines() == lines


def test_a_stored_line_of_another_experiment_is_not_trained_again(tmp_path, base, monkeypatch):
    trained = counted(monkeypatch)
    first = small_experiments.experiment(base, seeds=[0])
    second = small_experiments.experiment(base, name="other", seeds=[0, 1])
    results = tmp_path / "results"
    Runner(tmp_path / "one", results, report=str).run([first])
    Runner(tmp_path / "another machine", results, report=str).run([second])
    assert len(trained) == 2
    (line,) = Results(results / "tiny.jsonl").lines()
    again, other = Results(results / "other.jsonl").lines()
    assert again == line | {"experiment": "other"}
    assert other["seed"] == 1


def test_a_picture_of_one_experiment_is_there_for_the_next(tmp_path, base):
    first = small_experiments.experiment(base, seeds=[0, 1])
    results = Results(tmp_path / "tiny.jsonl")
    for cell in plan(first):
        stored = small_experiments.line("trees", cell.seed, {"click": 0.8}, digest=cell.run.digest)
        results.add({**stored, "representations": {"shared": [[1, 2]]}})
    others = {"other": [1, 0], "third": [0, 1]}
    experiments = [small_experiments.experiment(base, name=n, seeds=s) for n, s in others.items()]
    Runner(tmp_path / "work", tmp_path, report=str).run(experiments)
    for name in others:
        lines = Results(tmp_path / f"{name}.jsonl").lines()
        assert [bool(line["representations"]) for line in lines] == [True, False]


def test_what_is_left_is_told(tmp_path, base):
    said = run(tmp_path, small_experiments.experiment(base, seeds=[0, 1]))
    assert said[0] == "2 runs, 0 of them done"
    assert said[1].startswith("about ")
    assert said[2] == "tiny: trees, seed 0"
    assert "1 runs left" in said[3]
    assert said[5].endswith("all done")


def test_a_new_task_by_prompt_tuning(tmp_path, base):
    variant = {"name": "prompt", "model": "mptrec"}
    experiment = small_experiments.experiment(
        base, variants=[variant], new_tasks=["buy"], seeds=[3], epochs=2
    )
    run(tmp_path, experiment)
    before, after = Results(tmp_path / "work/tiny.jsonl").lines()

    assert (before["tasks"], after["tasks"]) == (["click", "like"], ["click", "like", "buy"])
    assert after["old_tasks_identical"] is True
    assert {t: after["test"][t] for t in before["tasks"]} == before["test"]
    assert after["parameters"] == before["parameters"] + after["trained_parameters"]
    assert before["parameters"] == before["trained_parameters"]
    assert before["flops"]["train"] > 2 * before["flops"]["predict"] > 0
    assert np.sum(after["gates"]["buy"]) == pytest.approx(1, abs=1e-4)
    assert set(before["representations"]) == {"shared", "click", "like"}
    assert after["training"]["epochs"] == 2

    # The stored model gives the stored figures, computed by other means.
    directory = tmp_path / "work/trained" / after["digest"]
    assert json.loads((directory / "result.json").read_text())["test"] == after["test"]
    assert not (directory / "training").exists()
    model = keras.models.load_model(directory / "model.keras")
    rows = pd.read_csv(tmp_path / "synthetic-test.csv")
    predicted = model.predict(model.encoder.encode(rows), verbose=0)
    for task in after["tasks"]:
        auc = roc_auc_score(rows[task], predicted[task])
        assert after["test"][task]["auc"] == pytest.approx(auc, abs=1e-6)


def test_what_a_search_has_chosen_is_read_from_stored_lines(tmp_path, base, monkeypatch):
    variant = {"name": "alone", "model": "single_task"}
    space = {"learning_rate": {"kind": "float", "min": 1e-4, "max": 1e-2}}
    experiment = small_experiments.experiment(
        base, variants=[variant], seeds=[3, 4], epochs=1, tuning={"trials": 1, "stage1": space}
    )
    searched = []

    def search(run, *_):
        searched.append(run.seed)
        return {"learning_rate": 5e-3}

    monkeypatch.setattr(tuning, "tuned_values", search)
    results = tmp_path / "results"
    Runner(tmp_path / "one", results, report=str).run([experiment.reduced(seeds=1)])
    Runner(tmp_path / "another machine", results, report=str).run([experiment])
    lines = Results(results / "tiny.jsonl").lines()
    assert searched == [3]
    assert [line["seed"] for line in lines] == [3, 4]
    assert [line["training"]["learning_rate"] for line in lines] == [5e-3, 5e-3]
