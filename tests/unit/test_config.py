"""The configuration of a run."""

import pathlib

import pytest
import yaml

from mptrec_tf import SpecError
from mptrec_tf.balancing import BALANCINGS
from mptrec_tf.config import Config, TrainingConfig, with_settings
from mptrec_tf.data import census_income
from mptrec_tf.spec.parsing import dump

CENSUS = pathlib.Path(__file__).parents[2] / "configs/census_income.yaml"
SMALL = {
    "data": {"train": "train.csv", "validation": ["a.csv", "b.csv"]},
    "features": [{"kind": "numeric", "name": "age"}],
    "tasks": [{"name": "click", "label": "click"}, {"name": "like", "label": "like"}],
    "stage1": {"tasks": ["click"]},
}


def read(tmp_path, **changes):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return Config.from_yaml(path)


def test_the_shipped_configuration_is_the_data_set_s_own_spec():
    assert Config.from_yaml(CENSUS).spec == census_income.spec()


def test_defaults(tmp_path):
    config = read(tmp_path)
    assert config.data.sources() == ("train.csv", ("a.csv", "b.csv"), None)
    assert config.stage1.model.adversarial == "representations"
    assert config.stage1.training.monitor is None
    assert config.stage2.cache == "auto"


@pytest.mark.parametrize("cache", ["auto", "memory", "disk", None])
def test_where_representations_are_kept(tmp_path, cache):
    assert read(tmp_path, stage2={"cache": cache}).stage2.cache == cache


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage1": {"tasks": ["clik"]}}, "no task 'clik'"),
        ({"stage1": {"tasks": ["click", "click"]}}, "'click' is given twice"),
        ({"stage1": {"tasks": []}}, "stage1.tasks"),
        ({"stage1": {"tasks": ["click"], "model": {"expert_dropout": 1.5}}}, "1.5"),
        ({"stage1": {"tasks": ["click"], "model": {"dropout": 0.5}}}, "no such key"),
        ({"stage1": {"tasks": ["click"], "model": {"activation": "rleu"}}}, "got 'rleu'"),
        ({"stage1": {"tasks": ["click"], "training": {"epochs": "ten"}}}, "'ten'"),
        ({"stage1": {"tasks": ["click"], "model": {"adversarial": "gan"}}}, "'gan'"),
        ({"data": {"dataset": "census-income", "train": "x.csv"}}, "not both"),
        ({"data": {"validation": "x.csv"}}, "give dataset, or train and validation"),
        ({"data": {"train": "x.csv"}}, "give data.validation, or pipeline.split"),
        ({"pipeline": {"split": {"column": "user"}}}, "not both"),
        (
            {
                "data": {"train": "x.csv", "test": "y.csv"},
                "pipeline": {"split": {"column": "user"}},
            },
            "data.test: pipeline.split parts",
        ),
        ({"pipeline": {"thresholds": [{"task": "click", "metric": "mse", "max": 1}]}}, "'mse'"),
        ({"pipeline": {"thresholds": [{"task": "click"}]}}, "min, max or worse_by"),
        ({"data": {"dataset": "iris"}}, "'iris'"),
        ({"stage2": {"cache": "ram"}}, "stage2.cache"),
        ({"features": [{"kind": "numeric", "name": "click"}]}, "'click' is also a feature"),
        (
            {"stage2": {"module": {"embedding_dim": 2, "embedding_features": ["age"]}}},
            "'age' is none of the",
        ),
        (
            {"stage2": {"module": {"embedding_features": ["age"]}}},
            "embedding_features=['age'] needs an embedding_dim above 0",
        ),
        (
            {"stage2": {"module": {"embedding_dim": 2, "input_projection": 0}}},
            "embedding_dim=2 needs an input_projection above 0",
        ),
        (
            {
                "stage2": {"module": {"embedding_dim": 2}},
                "tuner": {"stage2": {"input_projection": {"kind": "choice", "values": [0, 8]}}},
            },
            "tuner.stage2: embedding_dim=2 needs an input_projection above 0",
        ),
        (
            {
                "stage2": {"module": {"embedding_dim": 2, "embedding_features": ["city"]}},
                "tuner": {"stage2": {"embedding_dim": {"kind": "choice", "values": [0, 2]}}},
                "features": [{"kind": "categorical", "name": "city"}],
            },
            "tuner.stage2: embedding_features=['city'] needs an embedding_dim above 0",
        ),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_errors_name_the_key_and_the_value(tmp_path, changes, message):
    with pytest.raises(SpecError) as error:
        read(tmp_path, **changes)
    assert message in str(error.value)
    assert "config.yaml" in str(error.value)
    assert "ArgsKwargs" not in str(error.value)


def test_the_optimizer_of_the_tables(tmp_path):
    training = {"embedding_optimizer": "adagrad", "embedding_learning_rate": 0.05}
    config = read(tmp_path, stage1={**SMALL["stage1"], "training": training})
    assert config.stage1.training.embedding_optimizer == "adagrad"
    assert config.stage1.training.embedding_learning_rate == 0.05
    assert config.stage2.training.embedding_optimizer == "adam"
    assert dump(config.stage1.training) == training
    assert dump(config.stage2.training) == {}  # a training that began before these settings goes on
    with pytest.raises(SpecError, match=r"embedding_optimizer.*'adam', 'lazy_adam' or 'adagrad'"):
        read(tmp_path, stage1={**SMALL["stage1"], "training": {"embedding_optimizer": "sgd"}})


def test_the_optimizer_of_the_tables_can_be_tuned(tmp_path):
    space = {
        "embedding_optimizer": {"kind": "choice", "values": ["adam", "lazy_adam", "adagrad"]},
        "embedding_learning_rate": {"kind": "float", "min": 1e-3, "max": 0.1, "log": True},
    }
    assert set(read(tmp_path, tuner={"stage1": space}).tuner.stage1) == set(space)
    wrong = {"embedding_optimizer": {"kind": "choice", "values": ["adam", "sgd"]}}
    with pytest.raises(SpecError, match="embedding_optimizer' cannot be 'sgd'"):
        read(tmp_path, tuner={"stage1": wrong})


def test_an_activation_to_be_tried_is_one(tmp_path):
    wrong = {"activation": {"kind": "choice", "values": ["gelu", "rleu"]}}
    with pytest.raises(SpecError, match="'activation' cannot be 'rleu': must be an activation"):
        read(tmp_path, tuner={"stage1": wrong})


def test_every_balancing_can_be_configured():
    for name in BALANCINGS:
        assert TrainingConfig(balancing=name).balancing == name
    with pytest.raises(ValueError, match="'gradnorm', 'pcgrad' or 'famo'"):
        TrainingConfig(balancing="gradnrom")


def test_chosen_settings_reach_the_part_that_has_them_and_are_checked(tmp_path):
    config = read(tmp_path, stage2={"module": {"dropout": 0.2}, "cache": "disk"})
    chosen = with_settings(config, "stage2", {"tower_units": [8], "learning_rate": 0.01})
    assert dump(chosen.stage2) == {
        "module": {"tower_units": [8], "dropout": 0.2},
        "training": {"learning_rate": 0.01},
        "cache": "disk",
    }
    with pytest.raises(SpecError, match=r"the chosen settings of stage2: module\.dropout: .*got 2"):
        with_settings(config, "stage2", {"dropout": 2.0})
