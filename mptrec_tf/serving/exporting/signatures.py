"""The graph that an exported model serves: one parse, one backbone pass, every task's score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mptrec_tf.data import FeatureEncoder
from mptrec_tf.models import GrowingModel, MPTRec, PromptModule
from mptrec_tf.models.objectives import prediction
from mptrec_tf.serving.exporting.heads import Heads, group
from mptrec_tf.serving.layout import (
    COLUMNS,
    ENCODED,
    EXAMPLES,
    HEADS,
    INPUTS,
    SERVING_DEFAULT,
)
from mptrec_tf.spec import CategoricalFeature, Feature, MultiValuedFeature, NumericFeature, Task


class ServingGraph:
    """A model with its encoder, as one graph with a signature for each way to call it.

    | signature | method | inputs | outputs |
    | --- | --- | --- | --- |
    | `serving_default` | Predict | `examples`: string (B,), serialized `tf.Example` | by task |
    | `columns` | Predict | raw columns by name, see `column_specs` | by task |
    | `encoded` | Predict | what `FeatureEncoder` gives | by task |
    | binary, regression task | Regress | `inputs`: as `examples` | `outputs`: float32 (B,) |
    | multiclass task | Classify | `inputs`: as `examples` | `classes`, `scores`: (B, C) |

    "By task" is float32 (B,): the probability of a binary task, the number of a regression task; or
    float32 (B, C), the class probabilities of a multiclass task.

    Saving gives each signature a graph of its own; `write_saved_model` then makes
    `serving_default` and all tasks fetch from one, that of `heads`.

    Args:
        model: The model; its weights are shared with it.
    """

    def __init__(self, model: GrowingModel) -> None:
        self.tasks = model.tasks
        encoder = model.encoder
        specs = column_specs(encoder.features)
        # As arguments of a function: a column may be named as a keyword of Python is, or alike but
        # for case. The saved signature has the columns' own names, see `write_saved_model`.
        self.aliases = aliases = {column: f"column_{n}" for n, column in enumerate(specs)}

        heads_together = _heads_together(model)
        together = [name for heads in heads_together for name in heads.names]
        one_by_one = [task.name for task in model.tasks if task.name not in together]

        @tf.function(input_signature=[encoded_specs(encoder)])
        def score(encoded: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            representation = model.represent(encoded)
            logits = model.logits(representation, one_by_one)
            for heads in heads_together:
                logits |= heads(representation)
            return {task.name: prediction(task, logits[task.name]) for task in self.tasks}

        def columns(**columns: tf.Tensor) -> dict[str, tf.Tensor]:
            named = {column: columns[alias] for column, alias in aliases.items()}
            return score(_checked(encoder, encoder(named)))

        def encoded(**encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            return score(encoded)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
        def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(serialized, parse_specs(encoder.features))
            return score(_checked(encoder, encoder(parsed)))

        def heads(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            scores = parse(inputs)
            return {
                f"{task.name}/{output}": tensor
                for task in self.tasks
                for output, tensor in _head_outputs(task, scores).items()
            }

        self.signatures = {
            SERVING_DEFAULT: _of_examples(lambda examples: parse(examples), EXAMPLES),
            COLUMNS: _of_tensors(columns, {aliases[name]: spec for name, spec in specs.items()}),
            ENCODED: _of_tensors(encoded, encoded_specs(encoder)),
            HEADS: _of_examples(heads, INPUTS),
        }
        for task in self.tasks:
            self.signatures[task.name] = _of_examples(
                lambda inputs, task=task: _head_outputs(task, parse(inputs)), INPUTS
            )
        # Exactly what the graph reads: no adversary, no optimizer, no training state.
        self.module = tf.Module(name="served_model")
        self.module.weights = list(score.get_concrete_function().variables)
        self.module.tables = list(encoder.tables.values())


def parse_specs(features: Sequence[Feature]) -> dict[str, Any]:
    """How each feature is read from a `tf.Example`.

    A numeric feature is a float list of one number; if it is absent, the stand-in that the feature
    defines is used, and where it defines none the request is refused. A categorical feature is a
    bytes list of one text, missing if absent. A multi-valued one is a bytes list of any length.

    Args:
        features: The features.

    Returns:
        By column, what `tf.io.parse_example` takes.
    """
    return {feature.name: _parse_spec(feature) for feature in features}


def _parse_spec(feature: Feature) -> Any:
    if isinstance(feature, MultiValuedFeature):
        return tf.io.RaggedFeature(tf.string)
    if isinstance(feature, CategoricalFeature):
        return tf.io.FixedLenFeature((), tf.string, default_value="")
    return tf.io.FixedLenFeature((), tf.float32, default_value=feature.missing)


def column_specs(features: Sequence[Feature]) -> dict[str, tf.TensorSpec]:
    """The inputs of the signature `columns`.

    Args:
        features: The features.

    Returns:
        By column: float32 (B,) for a numeric feature, NaN where missing; string (B,) for a
        categorical one, `""` where missing; string (B, n) for a multi-valued one, padded with `""`.
    """
    return {feature.name: _column_spec(feature) for feature in features}


def _column_spec(feature: Feature) -> tf.TensorSpec:
    if isinstance(feature, NumericFeature):
        return tf.TensorSpec((None,), tf.float32)
    multivalued = isinstance(feature, MultiValuedFeature)
    return tf.TensorSpec((None, None) if multivalued else (None,), tf.string)


def encoded_specs(encoder: FeatureEncoder) -> dict[str, tf.TensorSpec]:
    """The inputs of the signature `encoded`: what the encoder gives."""
    widths = {
        "numeric": len(encoder.numeric_features),
        "categorical": len(encoder.categorical_features),
        "multivalued": sum(f.max_length for f in encoder.multivalued_features),
    }
    return {
        name: tf.TensorSpec((None, width), tf.float32 if name == "numeric" else tf.int32, name)
        for name, width in widths.items()
        if width
    }


def _heads_together(model: GrowingModel) -> list[Heads]:
    """The prompt modules that are computed several at once."""
    if not isinstance(model, MPTRec):
        return []
    modules = model.task_modules.modules
    groups, _ = group({n: m for n, m in modules.items() if isinstance(m, PromptModule)})
    return [Heads(members, np.asarray(model.prompts.prompts)) for members in groups]


def _of_examples(function: Any, name: str) -> Any:
    spec = tf.TensorSpec((None,), tf.string, name)
    return tf.function(function, input_signature=[spec]).get_concrete_function()


def _of_tensors(function: Any, specs: Mapping[str, tf.TensorSpec]) -> Any:
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()}
    return tf.function(function).get_concrete_function(**named)


def _head_outputs(task: Task, scores: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A task's score in the form that Regress or Classify requires."""
    score = scores[task.name]
    if task.classes is None:
        return {"outputs": score}
    return {
        "classes": tf.broadcast_to(tf.constant(task.classes), tf.shape(score)),
        "scores": score,
    }


def _checked(encoder: FeatureEncoder, encoded: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Refuses numbers that no training row can have had, instead of answering NaN."""
    if "numeric" not in encoded:
        return encoded
    names = [feature.name for feature in encoder.numeric_features]
    message = f"a number is NaN or infinite and has no stand-in, in one of the columns {names}"
    return {**encoded, "numeric": tf.debugging.check_numerics(encoded["numeric"], message)}
