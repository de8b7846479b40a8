"""The search, with trials that are scored by a formula instead of a training."""

import errno
import importlib
import json
import math
import sys

import keras_tuner
import pytest

from mptrec_tf import ModelError, SpecError
from mptrec_tf.files import only_one
from mptrec_tf.tuning import Stage1HyperModel, StageTuner, oracle, tuner

SMALL = {
    "expert_units": {"kind": "choice", "values": [[4], [8, 4]]},
    "embedding_dim": {"kind": "int", "min": 7, "max": 8},
}


class Killed(BaseException):
    """What no `except Exception` stops, as a kill."""


class Formula(Stage1HyperModel):
    """Scores a trial by its settings, and remembers which were run."""

    def __init__(self, *args, score=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.score = score or (lambda values: -abs(math.log(values["learning_rate"] / 0.02)))
        self.runs = []

    def build(self, hp):
        self.values(hp)

    def fit(self, hp, model, *, directory, verbose=0):
        self.runs.append(self.values(hp))
        return {self.objective.metric: self.score(self.values(hp)), "epochs": 1, "seconds": 0.0}


@pytest.fixture
def make(make_config, data, tmp_path):
    """A tuner in the same directory each time, its hypermodel, and what it reports."""

    def make(score=None, trials=None, seed=0, rows=data, **changes):
        hypermodel = Formula(make_config(**changes), rows, seed, score=score)
        lines = []
        found = StageTuner(hypermodel, tmp_path / "search", trials=trials, report=lines.append)
        return found, hypermodel, lines

    return make


def test_the_largest_seed_is_one(make):
    search, *_ = make(trials=2, seed=2**32 - 1)
    search.search()
    assert [result.number for result in search.results()] == [1, 2]


def test_every_trial_has_its_score_and_the_best_is_found(make):
    search, hypermodel, lines = make(trials=10)
    search.search()
    results = search.results()
    assert [result.number for result in results] == list(range(1, 11))
    assert [result.objective for result in results] == [
        hypermodel.score(values) for values in hypermodel.runs
    ]
    assert search.best().objective == max(map(hypermodel.score, hypermodel.runs))
    best = search.best_config()
    assert best.stage1.training.learning_rate == search.best().values["learning_rate"]
    assert list(best.stage1.model.expert_units) == search.best().values["expert_units"]
    assert lines[0].startswith("trial 1 of 10: learning_rate 0.002, expert_units [4]")
    assert f"best so far {search.best().objective:.5f}" in lines[-1]


def test_a_loss_is_better_when_it_is_lower(make):
    search, hypermodel, _ = make(
        trials=4, stage1__training={"monitor": "loss"}, score=lambda v: v["learning_rate"]
    )
    search.search()
    assert search.best().objective == min(v["learning_rate"] for v in hypermodel.runs)


def test_the_first_trial_is_the_configuration_itself(make, make_config):
    search, *_ = make(trials=1)
    search.search()
    assert search.best_config() == make_config()


def test_nothing_is_tried_twice_and_a_small_space_is_exhausted(make):
    search, hypermodel, lines = make(trials=30, tuner__stage1=SMALL, score=lambda values: 1.0)
    search.search()
    tried = [json.dumps(values) for values in hypermodel.runs]
    assert len(tried) == len(set(tried)) == 4
    assert lines[-1] == "nothing untried was found after 4 trials"


def test_a_search_that_is_over_is_not_repeated_but_goes_on_with_more_trials(make):
    first, hypermodel, _ = make()
    first.search()
    assert len(hypermodel.runs) == 3
    again, hypermodel, _ = make()
    again.search()
    assert hypermodel.runs == []
    assert again.results() == first.results()
    more, hypermodel, lines = make(trials=5)
    more.search()
    assert len(hypermodel.runs) == 2
    assert more.results()[:3] == first.results()
    assert lines[0].startswith("trial 4 of 5")


@pytest.mark.parametrize("dies_at", range(1, 24, 3))  # each place of a trial, in one of three
def test_a_kill_at_any_write_loses_nothing(make, monkeypatch, tmp_path, dies_at):
    """The process dies before one of the writes of three trials."""
    whole, _, _ = make()
    whole.search()
    expected = whole.results()
    (tmp_path / "search").rename(tmp_path / "whole")

    writes = 0
    real = oracle.write_json

    def cut(value, path):
        nonlocal writes
        writes += 1
        if writes == dies_at:
            raise Killed
        real(value, path)

    killed, first, _ = make()
    for module in (oracle, tuner):
        monkeypatch.setattr(module, "write_json", cut)
    with pytest.raises(Killed):
        killed.search()
    for module in (oracle, tuner):
        monkeypatch.setattr(module, "write_json", real)

    search, second, _ = make()
    finished = {result.number for result in search.results()}
    search.search()
    assert search.results() == expected
    assert len(second.runs) == 3 - len(finished)
    assert len(first.runs) + len(second.runs) <= 4


def test_a_second_search_in_the_same_directory_is_refused(make, tmp_path):
    search, hypermodel, _ = make()
    with only_one(tmp_path / "search"), pytest.raises(ModelError, match="another process works"):
        search.search()
    assert hypermodel.runs == []
    search.search()
    assert len(hypermodel.runs) == 3


def test_a_failing_trial_is_reported_and_the_others_count(make):
    def score(values):
        if values["expert_units"] == [8, 4]:
            raise MemoryError("too large")
        return values["learning_rate"]

    search, _, lines = make(score, trials=8)
    search.search()
    results = search.results()
    failed = [result for result in results if result.error]
    assert 0 < len(failed) < 8
    assert all(result.values["expert_units"] == [8, 4] for result in failed)
    assert {result.reason for result in failed} == {"MemoryError: too large"}
    assert lines.count("  failed: MemoryError: too large") == len(failed)
    assert all(math.isfinite(result.objective) for result in results if not result.error)
    assert search.best().error is None


@pytest.mark.parametrize("trials", [2, 20])
def test_if_all_trials_fail_the_first_error_is_raised_early(make, trials):
    def score(values):
        raise TypeError(f"wrong for {values['expert_units']}")

    search, hypermodel, _ = make(score, trials=trials)
    with pytest.raises(RuntimeError, match=r"trials failed(.|\n)*TypeError: wrong for \[4\]"):
        search.search()
    assert len(hypermodel.runs) == min(trials, 3)
    with pytest.raises(ModelError, match="no trial has succeeded"):
        search.best_config()
    again, hypermodel, _ = make(lambda values: 0.5, trials=min(trials, 3) + 1)
    again.search()
    assert len(hypermodel.runs) == 1


def test_a_full_disk_ends_the_search_and_costs_no_trial(make):
    whole = []

    def score(values):
        if len(whole) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole.append(values)
        return values["learning_rate"]

    search, *_ = make(score)
    with pytest.raises(keras_tuner.errors.FatalError, match="No space left on device"):
        search.search()
    again, hypermodel, _ = make(lambda values: values["learning_rate"])
    again.search()
    assert [result.error for result in again.results()] == [None] * 3
    assert len(hypermodel.runs) == 2


def test_a_score_that_is_no_number_is_a_failure(make):
    search, _, lines = make(lambda v: math.nan if v["learning_rate"] == 0.002 else 0.5, trials=2)
    search.search()
    assert [result.error is None for result in search.results()] == [False, True]
    assert lines[1] == "  failed: val_mean_auc is not a number"


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"tuner__stage1": SMALL},
        {"stage1__model": {"expert_units": [16]}},
        {"stage1__training": {"epochs": 9}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_search_in_the_same_directory_is_refused(make, changes):
    make()
    with pytest.raises(ModelError, match="search holds the search of another configuration"):
        make(**changes)


def test_other_rows_in_the_same_directory_are_refused(make, data):
    make()
    with pytest.raises(ModelError, match="other rows"):
        make(rows=data._replace(train=data.validation))


def test_no_trials_are_refused(make):
    with pytest.raises(SpecError, match="trials must be 1 or more, got 0"):
        make(trials=0)


@pytest.mark.parametrize("package", ["keras_tuner", "matplotlib"])
def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "mptrec_tf.tuning")
    with pytest.raises(ImportError, match=rf"{package}: pip install 'mptrec-tf\[tuner\]'"):
        importlib.import_module("mptrec_tf.tuning")
