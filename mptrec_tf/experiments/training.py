"""One run: its model made, trained, scored."""

import hashlib
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mptrec_tf.data import FeatureEncoder
from mptrec_tf.evaluation.batches import graph
from mptrec_tf.evaluation.metrics import Scored
from mptrec_tf.experiments.costs import matmul_flops
from mptrec_tf.experiments.data import EncodedParts
from mptrec_tf.experiments.insight import gate_means, representations
from mptrec_tf.experiments.plan import MODULES, Run
from mptrec_tf.experiments.trees import fit_trees
from mptrec_tf.models.parameters import count_parameters
from mptrec_tf.models.registry import model_class
from mptrec_tf.training.fitting import CACHE, fit_stage, with_cache

SCORED = ("validation", "test")
MODEL_FILE = "model.keras"
TRAINING = "training"


def new_model(run: Run, encoder: FeatureEncoder) -> Any:
    """The model of a run without parent, initialized, not compiled.

    Args:
        run: The run.
        encoder: An adapted encoder of its features.
    """
    tasks = run.config.spec.with_tasks(*run.tasks).tasks
    keras.utils.set_random_seed(run.seed)
    return model_class(run.model)(encoder, tasks, **run.arguments, seed=run.seed)


def extended_model(run: Run, parent: pathlib.Path) -> Any:
    """The model of a run with parent: the parent's, with the new task added.

    Args:
        run: The run.
        parent: The parent's `.keras` file.
    """
    model = keras.models.load_model(parent)
    (task,) = run.config.spec.with_tasks(*run.tasks).tasks
    keras.utils.set_random_seed(run.seed)
    if run.module is None:
        model.add_task(task)
    else:
        model.add_task(task, module=MODULES[run.module](**run.arguments, seed=run.seed))
    return model


def train_trees(run: Run, data: EncodedParts) -> dict[str, Any]:
    """The result of a run of LightGBM.

    Args:
        run: The run.
        data: Its rows.
    """
    tasks = list(run.config.spec.with_tasks(*run.tasks).tasks)
    trained = fit_trees(tasks, data, run.arguments, run.seed)
    return {
        "tuned": None,
        "trials": 0,
        "tasks": list(run.tasks),
        **{part: _metrics(trained["scored"][part]) for part in SCORED},
        "predictions": None,
        "old_tasks_identical": None,
        "parameters": None,
        "trained_parameters": None,
        "flops": None,
        "epochs": max(trained["rounds"].values()),
        "best_epoch": max(trained["rounds"].values()),
        "seconds": trained["seconds"],
        "gates": None,
        "representations": None,
    }


def train(
    run: Run,
    data: EncodedParts,
    directory: pathlib.Path,
    parent: pathlib.Path | None,
    *,
    verbose: int = 0,
) -> tuple[Any, dict[str, Any]]:
    """Trains a run with early stopping on validation, and scores validation and test once.

    Args:
        run: The run, with the settings that a search has chosen.
        data: Its rows.
        directory: Where the state of the training is kept; one that was cut off goes on.
        parent: The parent's `.keras` file, if it has one.
        verbose: As in `keras.Model.fit`. Defaults to 0.

    Returns:
        The model and the result, as plain data.

    Raises:
        ModelError: If the directory holds another training.
    """
    stage = data.stage(run.tasks)
    begun = time.perf_counter()
    if parent is None:
        model = new_model(run, data.encoder)
    else:
        model = extended_model(run, parent)
        stage2 = run.config.stage2
        stage = with_cache(model, stage, stage2.cache, directory / CACHE, stage2.cache_dtype)
    trained = fit_stage(
        model,
        run.stage.training,
        stage,
        directory / TRAINING,
        identity=run.identity,
        cache=None,  # where there is one, the rows have it
        seed=run.seed,
        verbose=verbose,
    )
    spent = time.perf_counter() - begun
    names = [task.name for task in model.tasks]
    parameters = count_parameters(model)
    scored = {part: score(model, data, part, names) for part in SCORED}
    return model, {
        "tasks": names,
        **{part: _metrics(scored[part]) for part in SCORED},
        "predictions": {name: _digest([scored[part][name] for part in SCORED]) for name in names},
        "parameters": parameters.total,
        "trained_parameters": parameters.trained,
        "flops": _flops(model, stage.train.batches(run.stage.training.batch_size), data),
        "epochs": len(trained.epochs),
        "best_epoch": trained.best_epoch + 1,
        # The epochs alone do not count what a model does before them; of one that was cut off and
        # went on, nothing else is known.
        "seconds": max(spent, trained.seconds),
        "gates": gate_means(model, data),
        "representations": representations(model, data) if parent is None else None,
    }


def score(model: Any, data: EncodedParts, part: str, tasks: Sequence[str]) -> dict[str, Scored]:
    """Labels and predictions of some tasks on a part.

    Args:
        model: The model.
        data: The rows.
        part: `"validation"` or `"test"`.
        tasks: The tasks.
    """
    predict, pieces = None, []
    for x, y, weights in data.batches(part, tasks):
        predict = predict or graph(lambda batch: model(batch), x)
        outputs = predict(x)
        pieces.append(({name: outputs[name] for name in tasks}, y, weights))
    outputs, labels, weights = tf.nest.map_structure(
        lambda *piece: np.concatenate([array.numpy() for array in piece]), *pieces
    )
    labels = {name: np.asarray(values) for name, values in model.measured(labels).items()}
    return {
        name: Scored(model.task(name), labels[name], outputs[name], weights.get(name))
        for name in tasks
    }


def _metrics(scored: dict[str, Scored]) -> dict[str, dict[str, float]]:
    return {name: task.metrics() for name, task in scored.items()}


def _digest(parts: Sequence[Scored]) -> str:
    """A short digest over every bit of a task's predictions."""
    digest = hashlib.sha256()
    for scored in parts:
        digest.update(scored.predictions.tobytes())
    return digest.hexdigest()[:16]


def _flops(model: Any, train: tf.data.Dataset, data: EncodedParts) -> dict[str, float]:
    """Operations for an example: of a training step as it was run, of predicting all tasks."""
    batch = next(iter(train))
    rows = len(tf.nest.flatten(batch)[0])
    x, _, _ = next(data.batches("validation", ()))
    return {
        "train": matmul_flops(lambda batch: model.learn(batch).loss, batch) / rows,
        "predict": matmul_flops(lambda x: model(x), x) / len(next(iter(x.values()))),
    }
