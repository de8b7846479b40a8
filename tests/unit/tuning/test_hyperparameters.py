"""From the declared space to KerasTuner's hyper-parameters, and back to a configuration."""

import json

import keras_tuner
import pytest

from mptrec_tf import SpecError
from mptrec_tf.tuning import with_hyperparameters
from mptrec_tf.tuning.hyperparameters import hyperparameter_values


def declared(config, stage, **values):
    hp = keras_tuner.HyperParameters()
    hyperparameter_values(hp, config, stage)
    hp.values.update(values)
    return hp


def test_the_configuration_s_own_values_are_the_defaults(make_config):
    config = make_config()
    assert with_hyperparameters(config, "stage1", declared(config, "stage1")) == config
    assert with_hyperparameters(config, "stage2", declared(config, "stage2")) == config


def test_a_choice_may_spell_the_configuration_s_own_value_otherwise(make_config):
    config = make_config(
        tuner__stage2={
            "temperature": {"kind": "choice", "values": [50, 150, 500]},
            "tower_units": {"kind": "choice", "values": [[3], [2]]},
        }
    )
    hp = declared(config, "stage2")
    values = hyperparameter_values(hp, config, "stage2")
    assert values == {"temperature": 150, "tower_units": [2]}
    assert with_hyperparameters(config, "stage2", hp) == config


def test_a_value_outside_the_space_is_not_the_default(make_config):
    config = make_config(
        tuner__stage1={
            "learning_rate": {"kind": "float", "min": 0.01, "max": 0.1},
            "expert_units": {"kind": "choice", "values": [[16], [8]]},
        }
    )
    hp = declared(config, "stage1")
    values = hyperparameter_values(hp, config, "stage1")
    assert values == {"learning_rate": 0.01, "expert_units": [16]}


def test_values_reach_the_settings_that_they_name_and_nothing_else(make_config):
    config = make_config()
    hp = declared(config, "stage1", learning_rate=0.05, expert_units="[8, 4]")
    tried = with_hyperparameters(config, "stage1", hp)
    assert tried.stage1.training.learning_rate == 0.05
    assert tried.stage1.model.expert_units == (8, 4)
    assert tried.stage1.model.tower_units == (2,)
    assert (tried.stage2, tried.features, tried.tuner) == (
        config.stage2,
        config.features,
        config.tuner,
    )
    hp = declared(config, "stage2", query_units="3", input_projection=5)
    module = with_hyperparameters(config, "stage2", hp).stage2.module
    assert (module.query_units, module.input_projection) == (3, 5)
    hp = declared(config, "stage2", query_units="null")
    assert with_hyperparameters(config, "stage2", hp).stage2.module.query_units is None


def test_the_json_of_a_pipeline_gives_the_same_configuration(make_config):
    config = make_config()
    hp = declared(config, "stage1", learning_rate=0.05, expert_units="[8, 4]")
    stored = keras_tuner.HyperParameters.from_config(json.loads(json.dumps(hp.get_config())))
    assert with_hyperparameters(config, "stage1", stored) == with_hyperparameters(
        config, "stage1", hp
    )


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_what_kerastuner_proposes_stays_within_the_range(make_config, probability):
    config = make_config()
    hp = declared(config, "stage2")
    (units,) = (p for p in hp.space if p.name == "input_projection")
    hp.values["input_projection"] = units.prob_to_value(probability)
    found = hyperparameter_values(hp, config, "stage2")["input_projection"]
    assert 2 <= found <= 32


def test_a_stage_without_a_space_is_refused(make_config):
    config = make_config(tuner__stage2={})
    with pytest.raises(SpecError, match=r"tuner\.stage2"):
        hyperparameter_values(keras_tuner.HyperParameters(), config, "stage2")
