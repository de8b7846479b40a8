"""The published Census-income run: its rows, its model, and what a peer needs to be the same.

Imports TensorFlow, so what talks to workers only should not import it.
"""

import dataclasses
import json
import pathlib

import keras
import numpy as np

from mptrec_tf import FeatureEncoder, MPTRec, NumericFeature, Task
from mptrec_tf.data import census_income
from mptrec_tf.data.datasets import encode_rows

BATCH = 256
LEARNING_RATE = 1e-3
NEW_TASK = "education"
MODEL = {
    "embedding_dim": 4,
    "expert_units": (256, 128),
    "tower_units": (64, 32),
    "generic_weight": 0.9,
    "adversarial": "assigned",
    "adversarial_weight": 0.1,
    "l2_embedding": 6e-3,
    "l2": 3e-5,
}
MODULE = {"temperature": 150.0, "input_projection": 0, "tower_units": (64, 32), "l2": 3e-5}

PEER_NAMES = {
    "embedding/table_4": "table",
    "experts/kernel_0": "expert_kernel_0",
    "experts/bias_0": "expert_bias_0",
    "experts/kernel_1": "expert_kernel_1",
    "experts/bias_1": "expert_bias_1",
    "prompts/prompts": "prompts",
    "gates/kernel": "gates",
    "towers/hidden/kernel_0": "tower_kernel_0",
    "towers/hidden/bias_0": "tower_bias_0",
    "towers/hidden/kernel_1": "tower_kernel_1",
    "towers/hidden/bias_1": "tower_bias_1",
    "towers/head_1/kernel_0": "tower_kernel_2",
    "towers/head_1/bias_0": "tower_bias_2",
    "classifier/kernel": "classifier_kernel",
    "classifier/bias": "classifier_bias",
    f"{NEW_TASK}/prompt/prompts": "new_prompt",
    f"{NEW_TASK}/attention/query_hidden/kernel": "new_query_hidden",
    f"{NEW_TASK}/attention/query_output/kernel": "new_query_output",
    f"{NEW_TASK}/attention/query_norm/gamma": "new_norm_scale",
    f"{NEW_TASK}/attention/query_norm/beta": "new_norm_shift",
    f"{NEW_TASK}/gate/kernel": "new_gate",
    f"{NEW_TASK}/tower/hidden/kernel_0": "new_tower_kernel_0",
    f"{NEW_TASK}/tower/hidden/bias_0": "new_tower_bias_0",
    f"{NEW_TASK}/tower/hidden/kernel_1": "new_tower_kernel_1",
    f"{NEW_TASK}/tower/hidden/bias_1": "new_tower_bias_1",
    f"{NEW_TASK}/tower/head_1/kernel_0": "new_tower_kernel_2",
    f"{NEW_TASK}/tower/head_1/bias_0": "new_tower_bias_2",
}
"""How a weight's path ends, and what the peers call it."""


def spec() -> tuple[list, tuple[Task, ...]]:
    """Features, numbers standardized as published, and the three tasks."""
    whole = census_income.spec()
    features = [
        dataclasses.replace(f, encoding="standardize") if isinstance(f, NumericFeature) else f
        for f in whole.features
    ]
    return features, whole.tasks


def load(rows: int | None = None) -> tuple[FeatureEncoder, dict, dict]:
    """Encoder, inputs and labels of the training rows, cut to whole batches.

    Args:
        rows: At most so many. Defaults to `None`, all.
    """
    features, tasks = spec()
    source = str(census_income.get(progress=False).train)
    encoder = FeatureEncoder(features).adapt(source)
    x, y = encode_rows(source, encoder, tasks)
    number = len(x["numeric"]) if rows is None else min(rows, len(x["numeric"]))
    number -= number % BATCH
    return (
        encoder,
        {name: array[:number] for name, array in x.items()},
        {name: array[:number] for name, array in y.items()},
    )


def build(encoder: FeatureEncoder) -> MPTRec:
    """The published model for income and marital, initialized, not compiled."""
    keras.utils.set_random_seed(0)
    return MPTRec(encoder, spec()[1][:2], **MODEL)


def add_new_task(model: MPTRec) -> None:
    """Adds education with the published module."""
    model.add_task(census_income.spec().task(NEW_TASK), **MODULE)


def prepare(directory: pathlib.Path, rows: int | None = None) -> None:
    """Writes all that a peer needs: encoded rows, settings, and what one step must give.

    `rows.npz`, `settings.json`, and `stage1.npz` and `stage2.npz`: weights, and for the first batch
    the loss and the gradient of each weight, got by one step of plain gradient descent.

    Args:
        directory: Where.
        rows: At most so many rows. Defaults to `None`, all.
    """
    encoder, x, y = load(rows)
    directory.mkdir(parents=True, exist_ok=True)
    labels = np.stack([y[task.name] for task in spec()[1]])
    np.savez(directory / "rows.npz", **x, labels=labels)

    names = [feature.name for feature in encoder.categorical_features]
    sizes = [encoder.vocabulary_size(name) for name in names]
    numeric = [encoder.numeric_state[f.name] for f in encoder.numeric_features]
    model = build(encoder)
    settings = {
        **MODEL,
        "temperature": MODULE["temperature"],
        "learning_rate": LEARNING_RATE,
        "epsilon": keras.optimizers.Adam().epsilon,
        "batch": BATCH,
        "tasks": [task.name for task in model.stage1_tasks],
        "offsets": np.cumsum([0, *sizes[:-1]]).tolist(),
        "means": [mean for mean, _ in numeric],
        "deviations": [deviation for _, deviation in numeric],
        "progress": 0.3,
    }
    (directory / "settings.json").write_text(json.dumps(settings, indent=1))

    first = {name: array[:BATCH] for name, array in x.items()}
    known = {name: array[:BATCH] for name, array in y.items()}
    old = {name: labels for name, labels in known.items() if name != NEW_TASK}
    model.compile(keras.optimizers.SGD(1.0))
    model.begin_epoch(settings["progress"], None)
    _one_step(model, first, old, directory / "stage1.npz")
    model.count_epoch()
    add_new_task(model)
    _one_step(model, first, {NEW_TASK: known[NEW_TASK]}, directory / "stage2.npz")


def _one_step(model: MPTRec, x: dict, y: dict, path: pathlib.Path) -> None:
    before = peer_weights(model)
    loss = model.train_on_batch(x, y, return_dict=True)["loss"]
    after = peer_weights(model)
    trained = {_peer_name(weight.path) for weight in model.trainable_weights}
    gradients = {f"gradient/{name}": before[name] - after[name] for name in trained}
    np.savez(path, loss=np.float32(loss), **before, **gradients)


def peer_weights(model: MPTRec) -> dict[str, np.ndarray]:
    """The weights by the names that the peers use."""
    weights = {_peer_name(w.path): w.numpy() for w in model.weights if not _is_state(w.path)}
    for name in ("new_prompt", "new_norm_scale", "new_norm_shift"):
        if name in weights:
            weights[name] = weights[name].reshape(-1)
    return weights


def _is_state(path: str) -> bool:
    return path.endswith("/progress")


def _peer_name(path: str) -> str:
    for suffix, name in PEER_NAMES.items():
        if f"/{path}".endswith(f"/{suffix}"):
            return name
    raise SystemExit(f"the weight {path} is none that the peers know: see PEER_NAMES")
