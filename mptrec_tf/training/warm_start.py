"""A new model that begins with what an earlier one learned, also when ids were added since."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mptrec_tf.data import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.models import MPTRec, load_model
from mptrec_tf.spec import NumericFeature
from mptrec_tf.training.matching import (
    changed_settings,
    columns_of,
    match_categorical,
    match_numeric,
)

ARCHITECTURE = ("embedding_dim", "expert_units", "tower_units", "activation")
OUTPUTS = ("kind", "classes")
"""Settings of a task that the last layer of its tower depends on."""
LABELS = ("label", "positive", "negative", "above", "mask")

Pairs = Sequence[tuple[Any, Any]]
"""Indices in the new model and their counterparts in the earlier one."""


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What a new model took from an earlier one; `print` it.

    Attributes:
        taken: By part of the model, such as `"feature 'city'"`, `"task 'click'"` or
            `"shared expert"`: what was taken.
        left: By part: what stayed as it was initialized, or is gone, and why.

    Example:

    >>> print(WarmStart(taken={"task 'click'": "tower"}, left={"task 'like'": "it is new"}))
    taken from the earlier model:
      task 'click': tower
    not:
      task 'like': it is new
    """

    taken: dict[str, str] = dataclasses.field(default_factory=dict)
    left: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        lines = []
        for title, parts in (("taken from the earlier model:", self.taken), ("not:", self.left)):
            if parts:
                lines += [title, *(f"  {part}: {text}" for part, text in parts.items())]
        return "\n".join(lines)


def warm_start(model: MPTRec, earlier: MPTRec | str | os.PathLike[str]) -> WarmStart:
    """Takes every weight that has a counterpart in an earlier model, in place.

    What belongs together is found by name, not by position:

    - embeddings by the text of their category, so a vocabulary may grow, shrink and change its
      order; hashed ones where the number of buckets is the same, compressed ones where each earlier
      category still has its id;
    - what experts and gates read by feature, where the feature means the same: a numeric one where
      its bins are the same (see `keep_bins`);
    - experts, prompts, gates, towers and the adversary's classifier by task. Of an earlier model's
      tasks, those of stage 1 are taken.

    Args:
        model: A new model that was not trained yet.
        earlier: The earlier model, or its `.keras` file. It is not changed.

    Returns:
        What was taken and what was not. What was taken equals the earlier model to the bit, and all
        else is as it was initialized.

    Raises:
        ModelError: If the model was trained already, the file is unusable, or one of
            `embedding_dim`, `expert_units`, `tower_units` and `activation` differs.

    Example:

    >>> def model_of(cities):
    ...     encoder = FeatureEncoder([CategoricalFeature("city")]).adapt({"city": cities})
    ...     return MPTRec(encoder, [Task("click", "click")], expert_units=(4,), tower_units=(2,))
    >>> yesterday, today = model_of(["Oslo", "Paris"]), model_of(["Lima", "Oslo", "Rome"])
    >>> print(warm_start(today, yesterday))
    taken from the earlier model:
      shared expert: all layers; its inputs by feature
      feature 'city': 1 category; 2 new; 1 of the earlier model gone
      task 'click': expert, prompt, gate, tower
      adversary: its classifier of the tasks above
    """
    if not isinstance(earlier, MPTRec):
        earlier = load_model(earlier)
    if model.trained_epochs:
        raise ModelError(
            f"the model was trained for {model.trained_epochs} epochs, which a warm start would "
            "undo; give a new model"
        )
    check_architecture(model.get_config(), earlier)
    report = WarmStart({"shared expert": "all layers; its inputs by feature"})
    inputs = _take_features(model, earlier, report)
    tasks = _match_tasks(model, earlier, report)
    _take_experts(model, earlier, inputs, tasks)
    _take_towers(model, earlier, tasks)
    _take_adversary(model, earlier, tasks, report)
    return report


def check_architecture(settings: Mapping[str, Any], earlier: MPTRec) -> None:
    """Refuses settings of a model that could take nothing from an earlier one.

    Args:
        settings: Arguments of `MPTRec`.
        earlier: The earlier model.

    Raises:
        ModelError: Names the settings that differ.
    """
    theirs = earlier.get_config()
    ours = {key: settings[key] for key in ARCHITECTURE}
    ours["activation"] = keras.activations.serialize(keras.activations.get(ours["activation"]))
    unequal = [
        f"{key} is {value!r} and was {theirs[key]!r}"
        for key, value in ours.items()
        if value != theirs[key]
    ]
    if unequal:
        raise ModelError(
            f"a warm start needs the architecture of the earlier model: {'; '.join(unequal)}"
        )


def keep_bins(encoder: FeatureEncoder, earlier: FeatureEncoder) -> FeatureEncoder:
    """An encoder with the bins (or mean and deviation) of an earlier one, its own vocabularies.

    Learned anew on other rows, bins move a little, and weights that were learned with some bins
    mean nothing with others. A model that is to go on from an earlier one keeps its bins.

    Args:
        encoder: An adapted encoder.
        earlier: The earlier one. Kept are the bins of the numeric features that both define alike.

    Returns:
        A new encoder.

    Example:

    >>> earlier = FeatureEncoder([NumericFeature("age", bins=2)]).adapt({"age": [20, 40, 60]})
    >>> encoder = FeatureEncoder([NumericFeature("age", bins=2)]).adapt({"age": [21, 41, 66]})
    >>> keep_bins(encoder, earlier).numeric_state
    {'age': [20.0, 40.0, 60.0]}
    """
    kept = encoder.copy()
    for feature in encoder.numeric_features:
        if feature in earlier.features:
            kept.numeric_state[feature.name] = earlier.numeric_state[feature.name]
    return kept


def _take_features(
    model: MPTRec, earlier: MPTRec, report: WarmStart
) -> tuple[np.ndarray, np.ndarray]:
    """Takes the embeddings; gives the columns of `x` that mean the same in both models."""
    old_features = {feature.name: feature for feature in earlier.encoder.features}
    columns, old_columns = columns_of(model), columns_of(earlier)
    tables: dict[int, np.ndarray] = {}
    inputs: list[int] = []
    old_inputs: list[int] = []
    for feature in model.encoder.features:
        name, part = feature.name, f"feature {feature.name!r}"
        if name not in old_features:
            report.left[part] = "new"
            continue
        old = old_features.pop(name)
        if isinstance(feature, NumericFeature):
            state = model.encoder.numeric_state[name]
            match = match_numeric(feature, old, state, earlier.encoder.numeric_state.get(name))
        else:
            match = match_categorical(feature, old, columns[name], old_columns.get(name))
        if isinstance(match, str):
            report.left[part] = match
            continue
        report.taken[part] = match.text
        inputs += _range(model.backbone.input_columns[name])
        old_inputs += _range(earlier.backbone.input_columns[name])
        if name in columns:
            table = columns[name].table.copy()
            table[match.rows] = old_columns[name].table[match.old_rows]
            table[list(match.ones)] = 1.0
            tables[columns[name].number] = table
    if model.backbone.embedding is not None:
        model.backbone.embedding.assign_column_tables(tables)
    report.left.update({f"feature {name!r}": "gone" for name in old_features})
    return np.array(inputs, int), np.array(old_inputs, int)


def _range(columns: slice) -> range:
    return range(columns.start, columns.stop)


def _match_tasks(model: MPTRec, earlier: MPTRec, report: WarmStart) -> list[tuple[int, int]]:
    """Numbers of the stage 1 tasks that both models have."""
    old_tasks = {task.name: number for number, task in enumerate(earlier.stage1_tasks)}
    added = {task.name for task in earlier.tasks} - old_tasks.keys()
    pairs = []
    for number, task in enumerate(model.stage1_tasks):
        part = f"task {task.name!r}"
        if task.name in old_tasks:
            old_number = old_tasks.pop(task.name)
            pairs.append((number, old_number))
            old = earlier.stage1_tasks[old_number]
            report.taken[part] = "expert, prompt, gate, tower" + changed_settings(task, old, LABELS)
            if change := changed_settings(task, old, OUTPUTS):
                report.left[part] = f"last layer of its tower{change}"
        else:
            report.left[part] = "new"
            if task.name in added:
                report.left[part] = "added in stage 2 of the earlier model, now of stage 1"
                added.remove(task.name)
    report.left.update({f"task {name!r}": "gone" for name in old_tasks})
    for name in sorted(added):
        report.left[f"task {name!r}"] = "added in stage 2 of the earlier model"
    return pairs


def _take_experts(
    model: MPTRec, earlier: MPTRec, inputs: tuple[np.ndarray, np.ndarray], tasks: Pairs
) -> None:
    """Experts, prompts and gates."""
    bank, old_bank = model.backbone.experts, earlier.backbone.experts
    experts = [(0, 0), *((new + 1, old + 1) for new, old in tasks)]
    columns, old_columns = inputs
    _copy(
        bank.kernels[0],
        old_bank.kernels[0],
        [(np.ix_(columns, [new]), np.ix_(old_columns, [old])) for new, old in experts],
    )
    _copy_all([*bank.kernels[1:], *bank.biases], [*old_bank.kernels[1:], *old_bank.biases], experts)
    _copy(model.prompts.prompts, earlier.prompts.prompts, tasks)
    choices = np.arange(model.gates.num_choices)
    _copy(
        model.gates.kernel,
        earlier.gates.kernel,
        [
            (
                np.ix_(columns, new * len(choices) + choices),
                np.ix_(old_columns, old * len(choices) + choices),
            )
            for new, old in tasks
        ],
    )


def _take_towers(model: MPTRec, earlier: MPTRec, tasks: Pairs) -> None:
    towers, old_towers = model.towers, earlier.towers
    hidden, old_hidden = towers.hidden, old_towers.hidden
    _copy_all([*hidden.kernels, *hidden.biases], [*old_hidden.kernels, *old_hidden.biases], tasks)
    for new, old in tasks:
        task, old_task = model.stage1_tasks[new], earlier.stage1_tasks[old]
        if not changed_settings(task, old_task, OUTPUTS):
            head, position = _head(model, new)
            old_head, old_position = _head(earlier, old)
            _copy_all(
                [*head.kernels, *head.biases],
                [*old_head.kernels, *old_head.biases],
                [(position, old_position)],
            )


def _head(model: MPTRec, number: int) -> tuple[Any, int]:
    """The bank with the last layer of a tower, and the tower's place there."""
    outputs = model.towers.num_outputs
    (head,) = (head for head in model.towers.heads if head.units[-1] == outputs[number])
    return head, outputs[:number].count(outputs[number])


def _take_adversary(model: MPTRec, earlier: MPTRec, tasks: Pairs, report: WarmStart) -> None:
    adversary, old_adversary = model.adversary, earlier.adversary
    form, old_form = (part and part.form for part in (adversary, old_adversary))
    if form != old_form:
        report.left["adversary"] = f"adversarial {form!r}, was {old_form!r}"
    elif adversary is not None and old_adversary is not None and tasks:
        report.taken["adversary"] = "its classifier of the tasks above"
        classifier, old_classifier = adversary.classifier, old_adversary.classifier
        columns = [(np.s_[:, new], np.s_[:, old]) for new, old in tasks]
        _copy(classifier.kernel, old_classifier.kernel, columns)
        _copy(classifier.bias, old_classifier.bias, tasks)


def _copy_all(
    weights: Sequence[keras.Variable], old_weights: Sequence[keras.Variable], pairs: Pairs
) -> None:
    for weight, old_weight in zip(weights, old_weights, strict=True):
        _copy(weight, old_weight, pairs)


def _copy(weight: keras.Variable, old_weight: keras.Variable, pairs: Pairs) -> None:
    values = np.array(keras.ops.convert_to_numpy(weight))
    old_values = keras.ops.convert_to_numpy(old_weight)
    for index, old_index in pairs:
        values[index] = old_values[old_index]
    weight.assign(values)
