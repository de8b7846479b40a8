"""Experiments from YAML: what is refused, and what the message names."""

import pytest
import small_experiments

from mptrec_tf.errors import SpecError
from mptrec_tf.experiments import Experiment
from mptrec_tf.experiments.plan import plan

MPTREC = {"name": "a", "model": "mptrec"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_experiments.write_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"epoch": 3}, ["epoch", "no such key"]),
        ({"epochs": 0}, ["epochs", "greater than or equal to 1", "0"]),
        ({"reference": "b"}, ["reference", "'b'", "['trees']"]),
        ({"variants": [MPTREC, MPTREC]}, ["variant 'a' is given twice"]),
        ({"tasks": ["click"], "new_tasks": ["click"]}, ["task 'click' is given twice"]),
        ({"seeds": []}, ["seeds", "at least 1 item"]),
        ({"name": "A b"}, ["name", "pattern"]),
        (
            {"variants": [{**MPTREC, "new_task": "joined"}]},
            ["variants[0] (a).new_task", "'added', 'together' or 'alone'", "'joined'"],
        ),
        (
            {"variants": [{"name": "a", "model": "mmoe", "module": "probe"}]},
            ["module", "model: mptrec", "mmoe"],
        ),
        (
            {"variants": [{"name": "a", "model": "external", "new_task": "alone"}]},
            ["variants[0] (a)", "external takes no other key than name"],
        ),
        (
            {"tuning": {"stage1": {"depth": {"kind": "int", "min": 1, "max": 3}}}},
            ["tuning.stage1", "'depth' cannot be tuned", "learning_rate"],
        ),
    ],
)
def test_what_does_not_fit_is_named(changes, names):
    with pytest.raises(SpecError) as error:
        small_experiments.experiment("base.yaml", **changes)
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"variants": [{"name": "a", "model": "moe"}]}, ["tiny", "'a'", "'moe'", "mptrec"]),
        (
            {"variants": [{**MPTREC, "settings": {"experts": 3}}]},
            ["'a'", "settings", "'experts'", "expert_units"],
        ),
        (
            {"variants": [{**MPTREC, "settings": {"expert_dropout": 2.0}}]},
            ["'a'", "settings", "expert_dropout", "less than 1", "2.0"],
        ),
        (
            {"new_tasks": ["buy"], "variants": [{**MPTREC, "module": "adapter"}]},
            ["'a'", "module", "'adapter'", "prompt"],
        ),
        (
            {"new_tasks": ["buy"], "variants": [{**MPTREC, "module_settings": {"rank": 4}}]},
            ["'a'", "module_settings", "'rank'", "temperature"],
        ),
        ({"new_tasks": ["rent"]}, ["'rent'", "['click', 'like', 'buy']"]),
        (
            {"new_tasks": ["buy"], "variants": [{"name": "t", "model": "lightgbm"}]},
            ["'t'", "new_task", "alone"],
        ),
    ],
)
def test_what_does_not_fit_the_base_is_named_before_anything_runs(base, changes, names):
    with pytest.raises(SpecError) as error:
        plan(small_experiments.experiment(base, **changes))
    for name in names:
        assert name in str(error.value)


def test_a_base_that_is_not_there_is_named():
    with pytest.raises(SpecError, match=r"absent\.yaml: no such file"):
        plan(small_experiments.experiment("absent.yaml"))


def test_a_file_reads_as_the_same_experiment(tmp_path, base):
    path = small_experiments.write_experiment(tmp_path / "e.yaml", base, seeds=[3, 1])
    assert Experiment.from_yaml(path) == small_experiments.experiment(base, seeds=[3, 1])


def test_reduced_takes_the_first_seeds_and_tasks(base):
    whole = small_experiments.experiment(
        base,
        new_tasks=["buy"],
        tuning={"stage1": {"learning_rate": {"kind": "float", "min": 1e-3, "max": 1e-2}}},
    )
    small = whole.reduced(seeds=2, epochs=3, tuning=False)
    assert (small.seeds, small.epochs, small.tuning) == ((0, 1), 3, None)
    assert small.new_tasks == whole.new_tasks
    assert whole.reduced() == whole
