"""LightGBM on the same rows: what models of this library are measured against from outside."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mptrec_tf.errors import SpecError
from mptrec_tf.evaluation.metrics import Scored
from mptrec_tf.experiments.data import EncodedParts
from mptrec_tf.spec import Feature, Task

DEFAULTS = {
    "n_estimators": 3000,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.9,
    "bagging_freq": 1,
}
PATIENCE = 50
UNKNOWN, IGNORED = "Unknown parameter:", "will be ignored"
"""What LightGBM's warnings about a setting have in them."""
OWN = {"objective": "regression", "metric": "rmse", "num_class": 1, "seed": 0}
"""What a run sets itself, here with values that go together."""
METRICS = {"binary": "auc", "multiclass": "multi_logloss", "regression": "rmse"}


class _Warnings:
    """A logger of LightGBM's that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def info(self, text: str) -> None:
        self.texts.append(text)

    warning = info


def check_trees(features: Sequence[Feature], settings: Mapping[str, Any]) -> None:
    """Finds out before any training what LightGBM cannot do.

    Args:
        features: The features.
        settings: As for `fit_trees`.

    Raises:
        ImportError: If lightgbm is not installed.
        SpecError: If there are multi-valued features, which it does not know, or a setting that
            follows from the task or the seed, or that it would leave out without a word: one that
            it does not know, or another name of one that is set here.
    """
    lightgbm = _lightgbm()
    many = [feature.name for feature in features if feature.kind == "multivalued"]
    if many:
        raise SpecError(f"lightgbm knows no multi-valued features, and {many} are such")
    if taken := sorted(OWN.keys() & settings.keys()):
        raise SpecError(f"settings: {taken} follow from the task and the seed of the run")
    heard = _Warnings()
    lightgbm.register_logger(heard)
    rows = lightgbm.Dataset(np.zeros((2, 1)), np.zeros(2))
    arguments = {**DEFAULTS, **OWN, **settings, "verbose": 1}
    del arguments["n_estimators"]  # of the training, not of a booster
    lightgbm.Booster(arguments, rows)
    unknown = [text.partition(UNKNOWN)[2].strip() for text in heard.texts if UNKNOWN in text]
    if unknown:
        raise SpecError(f"settings: lightgbm has no parameters {unknown}")
    ignored = [text.partition("[Warning]")[2].strip() for text in heard.texts if IGNORED in text]
    if ignored:
        raise SpecError(f"settings: give them by the names that are set here: {ignored}")


def fit_trees(
    tasks: list[Task], data: EncodedParts, settings: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Gradient boosted trees, one model for each task, with early stopping on validation.

    They get what a model gets: numbers as they are, categories as categories.

    Args:
        tasks: The tasks.
        data: The rows.
        settings: Arguments of LightGBM that differ from 3,000 rounds at most, a learning rate of
            0.05, 31 leaves, and 80 % of the columns and 90 % of the rows in a round.
        seed: Seed of what is drawn.

    Returns:
        `"scored"`: by part and task, labels and predictions; `"seconds"`; `"rounds"` by task.

    Raises:
        ImportError: If lightgbm is not installed.
    """
    lightgbm = _lightgbm()
    scored: dict[str, dict[str, Scored]] = {"validation": {}, "test": {}}
    rounds, seconds = {}, 0.0
    for task in tasks:
        parts = {part: _arrays(data, part, task) for part in ("train", "validation", "test")}
        known = {part: ~np.isnan(labels) for part, (_, labels, _) in parts.items()}
        numeric = len(data.encoder.numeric_features)
        sets: dict[str, Any] = {}
        for part in ("train", "validation"):
            x, y, weights = parts[part]
            sets[part] = lightgbm.Dataset(
                x[known[part]],
                y[known[part]],
                weight=None if weights is None else weights[known[part]],
                categorical_feature=list(range(numeric, x.shape[1])),
                reference=sets.get("train"),
            )
        own: dict[str, Any] = {"objective": task.kind, "metric": METRICS[task.kind], "seed": seed}
        if task.kind == "multiclass":
            own["num_class"] = task.num_outputs
        arguments = {**DEFAULTS, "verbose": -1, **settings, **own}
        most = arguments.pop("n_estimators")
        begun = time.perf_counter()
        booster = lightgbm.train(
            arguments,
            sets["train"],
            num_boost_round=most,
            valid_sets=[sets["validation"]],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        seconds += time.perf_counter() - begun
        rounds[task.name] = booster.best_iteration
        for part in scored:
            x, y, weights = parts[part]
            predictions = np.asarray(booster.predict(x), np.float32)
            scored[part][task.name] = Scored(task, y, predictions, weights)
    return {"scored": scored, "seconds": seconds, "rounds": rounds}


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise ImportError("trees need lightgbm: pip install 'mptrec-tf[bench]'") from error
    return lightgbm


def _arrays(
    data: EncodedParts, part: str, task: Task
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Features, labels and weights of a part."""
    features, labels, weights = [], [], []
    for x, y, w in data.batches(part, [task.name]):
        columns = [x[key].numpy() for key in ("numeric", "categorical") if key in x]
        features.append(np.concatenate(columns, axis=1).astype(np.float32))
        labels.append(y[task.name].numpy())
        weights += [w[task.name].numpy()] if w else []
    joined = np.concatenate(weights) if weights else None
    return np.concatenate(features), np.concatenate(labels), joined
