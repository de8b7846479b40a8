"""What tuning may try, as the configuration declares it."""

import pytest

from mptrec_tf import SpecError
from mptrec_tf.config import Config, TunerConfig
from mptrec_tf.spec.parsing import dump, load_yaml, parse, to_yaml

YAML = """\
data: {train: train.csv, validation: validation.csv}
features: [{kind: numeric, name: größe}]
tasks: [{name: click, label: click, positive: "1e5"}]
stage1:
  tasks: [click]
  training: {learning_rate: 1e-3}
tuner:
  trials: 7
  stage1:
    learning_rate: {kind: float, min: 1e-4, max: 1e-2, log: true}
    embedding_dim: {kind: int, min: 4, max: 16}
    expert_units: {kind: choice, values: [[256, 128], [128]]}
    adversarial: {kind: choice, values: [assigned, null]}
  stage2:
    query_units: {kind: choice, values: [null, 8]}
"""


def test_a_written_configuration_reads_the_same(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(YAML, encoding="utf-8")
    config = Config.from_yaml(first)
    assert (config.stage1.training.learning_rate, config.tuner.trials) == (0.001, 7)
    assert config.tuner.stage1["learning_rate"].max == 0.01
    second.write_text(to_yaml(dump(config)), encoding="utf-8")
    assert Config.from_yaml(second) == config


@pytest.mark.parametrize("value", ["1e5", "-1.5E-3", 1e-7, 1e300, "2020-01-31", "null", "é"])
def test_texts_and_numbers_stay_apart_in_yaml(tmp_path, value):
    (tmp_path / "a.yaml").write_text(to_yaml({"value": value}), encoding="utf-8")
    assert load_yaml(tmp_path / "a.yaml") == {"value": value}


@pytest.mark.parametrize(
    ("name", "parameter", "message"),
    [
        ("expert_dropout", {"kind": "float", "min": 0, "max": 1.5}, "'expert_dropout' cannot be 1"),
        ("dropout", {"kind": "float", "min": 0, "max": 0.5}, "'dropout' cannot be tuned.*expert"),
        ("monitor", {"kind": "choice", "values": ["a", "b"]}, "'monitor' cannot be tuned"),
        ("adversarial", {"kind": "choice", "values": ["gan", None]}, "'gan'.*'periodic'"),
        ("batch_size", {"kind": "float", "min": 1, "max": 2}, "1.0.*valid integer"),
        ("expert_units", {"kind": "choice", "values": [[8], [8, 0]]}, r"\[8, 0\].*or equal to 1"),
        ("l2", {"kind": "float", "min": 0, "max": 1, "log": True}, "greater than 0.*got 0"),
        ("l2", {"kind": "float", "min": 2, "max": 1}, "min must be less than max, got 2.0 and 1"),
        ("epochs", {"kind": "int", "min": 3, "max": 3}, "min must be less than max, got 3 and 3"),
        ("epochs", {"kind": "int", "min": 1.5, "max": 3}, "epochs.min.*1.5"),
        ("epochs", {"kind": "choice", "values": [3]}, "epochs.values.*at least 2"),
        ("epochs", {"kind": "choice", "values": [3, 3]}, r"must differ, got \[3, 3\]"),
        ("epochs", {"kind": "uniform", "min": 1, "max": 3}, "'uniform'.*'float', 'int', 'choice'"),
        ("epochs", {"kind": "int", "min": 1, "max": 3, "step": 2}, "epochs.step: no such key"),
        ("epochs", 3, "epochs.*got 3"),
    ],
    ids=[
        "above-the-setting", "unknown", "monitor", "no-such-form", "float-for-int", "inner-value",
        "log-of-0", "turned-round", "empty", "not-whole", "one-choice", "twice", "kind", "key",
        "no-parameter",
    ],
)  # fmt: skip
def test_errors_name_the_key_the_value_and_what_is_allowed(name, parameter, message):
    with pytest.raises(SpecError, match=message) as error:
        parse(TunerConfig, {"stage1": {name: parameter}}, "c.yaml")
    assert str(error.value).startswith("c.yaml: stage1")


def test_a_stage_has_settings_of_its_own():
    parameter = {"kind": "choice", "values": [2, 4]}
    parse(TunerConfig, {"stage2": {"query_units": parameter}}, "c.yaml")
    with pytest.raises(SpecError, match="'query_units' cannot be tuned"):
        parse(TunerConfig, {"stage1": {"query_units": parameter}}, "c.yaml")
