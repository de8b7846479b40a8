"""From the search space of a configuration to KerasTuner's hyper-parameters, and back."""

import dataclasses
import json
from typing import Any

import keras_tuner

from mptrec_tf.config import Config, Stage, parts_of, with_settings
from mptrec_tf.errors import SpecError
from mptrec_tf.spec.parsing import dump
from mptrec_tf.spec.space import Choice, Parameter


def space_of(config: Config, stage: Stage) -> dict[str, Parameter]:
    """What may be tried for a stage, by name of the setting.

    Raises:
        SpecError: If the configuration declares nothing.
    """
    space: dict[str, Parameter] = getattr(config.tuner, stage)
    if not space:
        raise SpecError(f"tuner.{stage}: the configuration declares nothing that could be tuned")
    return space


def hyperparameter_values(
    hp: keras_tuner.HyperParameters, config: Config, stage: Stage
) -> dict[str, Any]:
    """Declares the search space of a stage, and reads what is to be tried.

    Where the space contains the configuration's own value, that is the default.

    Args:
        hp: KerasTuner's hyper-parameters, in which choices are JSON texts.
        config: The configuration.
        stage: `"stage1"` or `"stage2"`.

    Returns:
        By name of the setting, its value.
    """
    own = {
        field.name: dump(getattr(part, field.name))
        for part in parts_of(config, stage).values()
        for field in dataclasses.fields(part)
    }
    return {
        key: _value(hp, key, parameter, own[key])
        for key, parameter in space_of(config, stage).items()
    }


def with_hyperparameters(config: Config, stage: Stage, hp: keras_tuner.HyperParameters) -> Config:
    """A configuration with the values that KerasTuner chose.

    Args:
        config: The configuration whose search space `hp` was declared from.
        stage: `"stage1"` or `"stage2"`.
        hp: Such as `tuner.get_best_hyperparameters()[0]`, or read from the JSON of a TFX pipeline
            by `keras_tuner.HyperParameters.from_config`.

    Returns:
        The configuration of the trial.

    Example:

    ```python
    best = with_hyperparameters(config, "stage1", tuner.get_best_hyperparameters()[0])
    pretrain(best, config.data.sources(), "runs/tuned")
    ```
    """
    return with_settings(config, stage, hyperparameter_values(hp, config, stage))


def _value(hp: keras_tuner.HyperParameters, name: str, parameter: Parameter, own: Any) -> Any:
    if isinstance(parameter, Choice):
        texts = [json.dumps(value) for value in parameter.values]
        # Values are compared, not texts: YAML may spell 150.0 as 150. As JSON, tuples are lists.
        plain = json.loads(json.dumps(own))
        default = next((text for text in texts if json.loads(text) == plain), None)
        return json.loads(hp.Choice(name, texts, default=default))
    inside = isinstance(own, int | float) and parameter.min <= own <= parameter.max
    declare = {
        "min_value": parameter.min,
        "max_value": parameter.max,
        "sampling": "log" if parameter.log else "linear",
        "default": own if inside else None,
    }
    value = hp.Int(name, **declare) if parameter.kind == "int" else hp.Float(name, **declare)
    # KerasTuner's logarithmic Int may give a value just outside.
    return min(max(value, parameter.min), parameter.max)
