"""A run of both stages in figures: quality before and after, what changed, what it cost."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

import mptrec_tf
from mptrec_tf.config import Config, Sources
from mptrec_tf.data import read_chunks
from mptrec_tf.evaluation.insight import histogram, weights_in_use
from mptrec_tf.evaluation.metrics import Scored, score
from mptrec_tf.models import MPTRec, load_model
from mptrec_tf.models.parameters import count_parameters
from mptrec_tf.spec.parsing import dump
from mptrec_tf.training import Trained
from mptrec_tf.training.stages import MODEL_FILE, STAGE1_FILE

Predictions = Mapping[str, Scored]


def two_stage_results(
    config: Config,
    sources: Sources,
    directory: str | os.PathLike[str],
    stage1: Trained,
    stage2: Trained,
    *,
    seed: int,
) -> dict[str, Any]:
    """Scores the saved models of both stages and compares them.

    Args:
        config: The configuration of the run.
        sources: Its rows; those of `test` are read here for the first time.
        directory: Where `pretrain` and `prompt_tune` wrote `stage1.keras` and `model.keras`.
        stage1: What `pretrain` returned.
        stage2: What `prompt_tune` returned.
        seed: The seed of the run.

    Returns:
        Plain data, ready for JSON and for `mptrec_tf.evaluation.report`: `"stage1"` and `"stage2"`
        (metrics of every task on every part, learning curves, parameters), `"old_tasks"` (the
        comparison), `"gate_weights"`, `"prompt_weights"`, `"seconds"`, `"rows"`, `"settings"`,
        `"versions"`, `"seed"`.

    Example:

    ```python
    sources, path = config.data.sources(), "runs/census"
    stage1 = pretrain(config, sources, path)
    stage2 = prompt_tune(config, load_model(f"{path}/stage1.keras"), "education", sources, path)
    two_stage_results(config, sources, path, stage1, stage2, seed=0)["stage2"]["test"]
    ```
    """
    before = load_model(pathlib.Path(directory) / STAGE1_FILE)
    after = load_model(pathlib.Path(directory) / MODEL_FILE)
    parts = {"validation": sources.validation, "test": sources.test}
    parts = {part: source for part, source in parts.items() if source is not None}
    scored_before = {part: score(before, source) for part, source in parts.items()}
    scored_after = {part: score(after, source) for part, source in parts.items()}
    old_tasks = compare_old_tasks(before, after, scored_before, scored_after)
    weights = weights_in_use(after, sources.validation)
    new_task = after.tasks[-1].name
    parameters = count_parameters(after)
    return {
        "seed": seed,
        "stage1": {
            "tasks": [task.name for task in before.tasks],
            **{part: _metrics(scored) for part, scored in scored_before.items()},
            "epochs": stage1.epochs,
            "best_epoch": stage1.best_epoch,
        },
        "stage2": {
            "task": new_task,
            **{part: _metrics(scored) for part, scored in scored_after.items()},
            "trainable_parameters": parameters.trained,
            "total_parameters": parameters.total,
            "old_tasks_identical": old_tasks["identical"],
            "epochs": stage2.epochs,
            "best_epoch": stage2.best_epoch,
        },
        "old_tasks": old_tasks,
        "gate_weights": histogram(weights.gates, 0.0, 1.0),
        "prompt_weights": {
            task: histogram(attention, *_range(attention))
            for task, attention in weights.prompts.items()
        },
        "seconds": {"stage1": stage1.seconds, "stage2": stage2.seconds},
        "rows": {
            "train": sum(c.table.num_rows for c in read_chunks(sources.train, tasks=config.tasks)),
            **{part: len(scored[new_task].labels) for part, scored in scored_after.items()},
        },
        "settings": settings(config),
        "versions": versions(),
    }


def compare_old_tasks(
    before: MPTRec,
    after: MPTRec,
    scored_before: Mapping[str, Predictions],
    scored_after: Mapping[str, Predictions],
) -> dict[str, Any]:
    """Whether stage 2 left the older tasks as they were, bit for bit.

    Args:
        before: The model before stage 2.
        after: The model after it.
        scored_before: By part of the data, what `score` gave for `before`.
        scored_after: The same for `after`.

    Returns:
        `"identical"`, `"rows"` that were compared, `"differing_rows"` by task, and the fingerprints
        of the older weights, `"weights_before"` and `"weights_after"`.
    """
    differing = {
        task.name: sum(
            _differing_rows(
                scored_before[part][task.name].predictions,
                scored_after[part][task.name].predictions,
            )
            for part in scored_before
        )
        for task in before.tasks
    }
    fingerprints = before.fingerprint(), after.fingerprint(frozen_only=True)
    return {
        "identical": not any(differing.values()) and fingerprints[0] == fingerprints[1],
        "rows": sum(len(next(iter(scored.values())).labels) for scored in scored_before.values()),
        "differing_rows": differing,
        "weights_before": fingerprints[0],
        "weights_after": fingerprints[1],
    }


def settings(config: Config) -> dict[str, Any]:
    """A configuration as plain data, the training settings with their defaults."""
    stages = {
        "stage1": dataclasses.asdict(config.stage1),
        "stage2": dataclasses.asdict(config.stage2),
    }
    return {
        **json.loads(json.dumps(stages)),
        "data": dump(config.data),
        "tasks": dump(config.tasks),
        "features": dump(config.features),
    }


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    packages = ("tensorflow", "keras", "numpy", "scikit-learn")
    return {
        "mptrec_tf": mptrec_tf.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        "machine": f"{platform.machine()}, {_usable_cpus()} CPUs, "
        f"{len(tf.config.list_physical_devices('GPU'))} GPUs",
    }


def _usable_cpus() -> int | None:
    """Fewer than there are where the process is bound to some."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def _metrics(scored: Predictions) -> dict[str, dict[str, float]]:
    return {name: task.metrics() for name, task in scored.items()}


def _differing_rows(before: np.ndarray, after: np.ndarray) -> int:
    """Rows in which any bit differs."""
    differs = before.view(np.uint32) != after.view(np.uint32)
    return int(np.count_nonzero(differs.reshape(len(differs), -1).any(axis=1)))


def _range(values: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The values' range with a margin, within [0, 1]."""
    low = min(float(v.min()) for v in values.values())
    high = max(float(v.max()) for v in values.values())
    margin = max(0.1 * (high - low), 0.005)
    return max(low - margin, 0.0), min(high + margin, 1.0)
