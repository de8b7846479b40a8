"""Experiments on a few synthetic rows, and stored results made by hand."""

import pathlib
from typing import Any

import small_runs
import yaml

from mptrec_tf.experiments import Experiment
from mptrec_tf.spec.parsing import parse

TREES: dict[str, Any] = {
    "name": "trees",
    "model": "lightgbm",
    "new_task": "alone",
    "settings": {"n_estimators": 5, "min_data_in_leaf": 5},
}


def write_base(directory: pathlib.Path, **changes: Any) -> pathlib.Path:
    """Writes synthetic rows and a configuration of them.

    Args:
        directory: Where to.
        **changes: As in `small_runs.plain`.

    Returns:
        The configuration's file.
    """
    small_runs.write_rows(directory)
    return small_runs.write_config(directory / "base.yaml", directory, **changes)


def plain(base: pathlib.Path | str, **changes: Any) -> dict[str, Any]:
    """An experiment with one variant of trees, as plain data.

    Args:
        base: The base's file.
        **changes: Keys to replace.
    """
    return {"name": "tiny", "title": "Tiny", "base": str(base), "variants": [TREES], **changes}


def experiment(base: pathlib.Path | str, **changes: Any) -> Experiment:
    """The experiment; see `plain`."""
    return parse(Experiment, plain(base, **changes), "the experiment")


def write_experiment(file: pathlib.Path, base: pathlib.Path | str, **changes: Any) -> pathlib.Path:
    """Writes the experiment; see `plain`."""
    file.write_text(yaml.safe_dump(plain(base, **changes), sort_keys=False))
    return file


def line(
    variant: str, seed: int, aucs: dict[str, float], new_tasks: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    """A line of results.

    Args:
        variant: The variant.
        seed: The seed.
        aucs: Test AUC by task.
        new_tasks: The tasks that have come.
        **more: What is to be replaced.
    """
    metrics = {task: {"auc": auc, "log_loss": 0.5, "rows": 100} for task, auc in aucs.items()}
    return {
        "experiment": "tiny",
        "variant": variant,
        "new_tasks": list(new_tasks),
        "seed": seed,
        "digest": f"{variant}{seed}{new_tasks}",
        "model": "mptrec",
        "training": {"epochs": 3},
        "tuned": None,
        "trials": 0,
        "tasks": list(aucs),
        "validation": metrics,
        "test": metrics,
        "old_tasks_identical": None,
        "parameters": 1000,
        "trained_parameters": 1000,
        "flops": {"train": 2_500_000.0, "predict": 800_000.0},
        "epochs": 3,
        "best_epoch": 2,
        "seconds": 10.0 + seed,
        "gates": None,
        "representations": None,
        "rows": {"train": 400, "validation": 120, "test": 120},
        "versions": {"mptrec_tf": "0.1.0"},
        **more,
    }
