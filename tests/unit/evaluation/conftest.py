"""One small model for every kind of task, and the rows that it was trained on."""

import numpy as np
import pandas as pd
import pytest

from mptrec_tf import CategoricalFeature, FeatureEncoder, MPTRec, NumericFeature, Task, make_dataset

TASKS = [
    Task("click", "click", weight="weight"),
    Task("kind", "kind", kind="multiclass", classes=("u", "v", "w")),
    Task("price", "price", kind="regression", mask="has_price"),
]


@pytest.fixture(scope="package")
def rows():
    """301 rows; a few have no label."""
    rng, count = np.random.default_rng(1), 301
    age = rng.uniform(18, 80, count)
    return pd.DataFrame(
        {
            "age": age,
            "city": rng.choice(["Lima", "Oslo", "Rome"], count),
            "click": np.where(rng.random(count) < 0.1, np.nan, rng.random(count) < age / 80),
            "weight": rng.integers(0, 4, count),
            "kind": rng.choice(["u", "v", "w", None], count),
            "price": rng.normal(2, 1, count),
            "has_price": rng.integers(0, 2, count),
            "buy": (age > 40).astype(int),
        }
    )


@pytest.fixture(scope="package")
def model(rows):
    encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    model = MPTRec(encoder, TASKS, embedding_dim=2, expert_units=(8, 4), tower_units=(4,))
    model.compile("adam", jit_compile=False)
    model.fit(make_dataset(rows, encoder, TASKS, batch_size=64), epochs=2, verbose=0)
    return model
