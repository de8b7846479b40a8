"""A configuration of the real pipelines on a few synthetic rows, small enough for many runs."""

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mptrec_tf.config import Config
from mptrec_tf.spec.parsing import parse

ROWS = {"train": 400, "validation": 120, "test": 120}
TRAINING = {"epochs": 4, "batch_size": 64, "jit_compile": False, "steps_per_execution": 1}
PLAIN: dict[str, Any] = {
    "features": [
        {"kind": "numeric", "name": "age"},
        {"kind": "numeric", "name": "hours"},
        {"kind": "categorical", "name": "city"},
        {"kind": "categorical", "name": "plan"},
    ],
    "tasks": [
        {"name": "click", "label": "click"},
        {"name": "like", "label": "like"},
        {"name": "buy", "label": "buy"},
    ],
    "stage1": {
        "tasks": ["click", "like"],
        "model": {"expert_units": [8, 4], "tower_units": [4], "embedding_dim": 4},
        "training": TRAINING,
    },
    "stage2": {"module": {"tower_units": [4], "input_projection": 4}, "training": TRAINING},
    "pipeline": {"name": "synthetic"},
}


def write_rows(directory: pathlib.Path) -> None:
    """Writes synthetic rows, a CSV file for each part.

    Args:
        directory: Where to.
    """
    rng = np.random.default_rng(0)
    number = sum(ROWS.values())
    rows = pd.DataFrame(
        {
            "age": rng.integers(18, 80, number),
            "hours": rng.gamma(2.0, 10.0, number).round(1),
            "city": rng.choice(["Lima", "Oslo", "Rome"], number),
            "plan": rng.choice(["free", "paid"], number),
        }
    )
    score = (rows["age"] - 48) / 12 + (rows["city"] == "Oslo") - (rows["hours"] - 20) / 20
    for task, sign in (("click", 1), ("like", -1), ("buy", 1)):
        rows[task] = (rng.random(number) < 1 / (1 + np.exp(-sign * score))).astype(int)
    begin = 0
    for part, count in ROWS.items():
        rows[begin : begin + count].to_csv(directory / f"synthetic-{part}.csv", index=False)
        begin += count


def plain(rows: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """The configuration as plain data.

    Args:
        rows: Directory of the rows.
        **changes: Sections to replace; what is given of `pipeline` is added to it.
    """
    data = {part: str(rows / f"synthetic-{part}.csv") for part in ROWS}
    pipeline = PLAIN["pipeline"] | changes.pop("pipeline", {})
    return {"data": data, **PLAIN, **changes, "pipeline": pipeline}


def config(rows: pathlib.Path, **changes: Any) -> Config:
    """The configuration; see `plain`."""
    return parse(Config, plain(rows, **changes), "the configuration")


def write_config(file: pathlib.Path, rows: pathlib.Path, **changes: Any) -> pathlib.Path:
    """Writes the configuration; see `plain`.

    Args:
        file: The file.
        rows: Directory of the rows.
        **changes: As in `plain`.

    Returns:
        The file.
    """
    file.write_text(yaml.safe_dump(plain(rows, **changes), sort_keys=False))
    return file
