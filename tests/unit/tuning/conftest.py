"""A learnable problem of few rows, and a configuration with a search space."""

import copy

import numpy as np
import pandas as pd
import pytest

from mptrec_tf.config import Config, Sources
from mptrec_tf.spec.parsing import parse
from mptrec_tf.training.stages import stage1_data

TRAINING = {"epochs": 2, "batch_size": 64, "jit_compile": False, "steps_per_execution": 1}
CONFIG = {
    "data": {"train": "-", "validation": "-"},
    "features": [{"kind": "numeric", "name": "age"}],
    "tasks": [
        {"name": "click", "label": "click"},
        {"name": "buy", "label": "buy"},
        {"name": "price", "label": "price", "kind": "regression"},
    ],
    "stage1": {
        "tasks": ["click"],
        "model": {"expert_units": [4], "tower_units": [2], "expert_dropout": 0.0},
        "training": TRAINING,
    },
    "stage2": {"module": {"tower_units": [2]}, "training": TRAINING},
    "tuner": {
        "trials": 3,
        "stage1": {
            "learning_rate": {"kind": "float", "min": 1e-3, "max": 1e-1, "log": True},
            "expert_units": {"kind": "choice", "values": [[4], [8, 4]]},
        },
        "stage2": {
            "query_units": {"kind": "choice", "values": [None, 3]},
            "input_projection": {"kind": "int", "min": 2, "max": 32, "log": True},
        },
    },
}


@pytest.fixture
def make_config():
    """A configuration with some parts of `tuner` or of a stage replaced."""

    def make(**changes):
        plain = copy.deepcopy(CONFIG)
        for path, value in changes.items():
            section, key = path.split("__")
            plain[section][key] = value
        return parse(Config, plain, "the test")

    return make


@pytest.fixture(scope="session")
def sources():
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, 120)
    rows = pd.DataFrame(
        {
            "age": age,
            "click": (age + rng.normal(0, 15, 120) > 45).astype(int),
            "buy": (age + rng.normal(0, 15, 120) < 40).astype(int),
            "price": age / 10.0,
        }
    )
    return Sources(rows[:80], rows[80:], "test-rows-that-are-not-there.csv")


@pytest.fixture
def data(make_config, sources):
    return stage1_data(make_config(), sources)
