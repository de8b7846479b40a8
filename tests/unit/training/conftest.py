"""A learnable synthetic problem in files, and a configuration for it."""

import numpy as np
import pandas as pd
import pytest

from mptrec_tf.config import Config, Sources
from mptrec_tf.spec.parsing import parse

TRAINING = {"epochs": 3, "batch_size": 64, "jit_compile": False, "steps_per_execution": 1}


@pytest.fixture(scope="session")
def frame():
    rng, rows = np.random.default_rng(0), 300
    age, city = rng.integers(18, 80, rows), rng.choice(["Lima", "Oslo", "Rome"], rows)
    return pd.DataFrame(
        {
            "age": age,
            "city": city,
            "click": (age > 45).astype(int),
            "like": (city == "Rome").astype(int),
            "buy": ((age > 45) & (city != "Lima")).astype(int),
            "price": age / 10.0,
        }
    )


@pytest.fixture(scope="session")
def sources(frame, tmp_path_factory):
    directory = tmp_path_factory.mktemp("rows")
    frame[:200].to_csv(directory / "train.csv", index=False)
    frame[200:].to_csv(directory / "validation.csv", index=False)
    return Sources(str(directory / "train.csv"), str(directory / "validation.csv"), None)


@pytest.fixture(scope="session")
def make_config():
    def make(model=None, training=None, stream=False, stage2=None):
        model = {"expert_units": [8, 4], "tower_units": [4], "embedding_dim": 2, **(model or {})}
        training = {**TRAINING, **(training or {})}
        plain = {
            "data": {"train": "-", "validation": "-", "stream": stream},
            "features": [
                {"kind": "numeric", "name": "age"},
                {"kind": "categorical", "name": "city"},
            ],
            "tasks": [
                {"name": "click", "label": "click"},
                {"name": "like", "label": "like"},
                {"name": "buy", "label": "buy"},
                {"name": "price", "label": "price", "kind": "regression"},
            ],
            "stage1": {"tasks": ["click", "like"], "model": model, "training": training},
            "stage2": {
                "module": {"tower_units": [4]},
                "training": training,
                **(stage2 or {}),
            },
        }
        return parse(Config, plain, "the test")

    return make
