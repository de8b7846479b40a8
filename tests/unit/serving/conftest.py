"""A model with every kind of feature and task, exported after each stage."""

import numpy as np
import pandas as pd
import pytest

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    MPTRec,
    MultiValuedFeature,
    NumericFeature,
    Task,
    make_dataset,
)
from mptrec_tf.serving import export

FEATURES = (
    NumericFeature("age"),
    NumericFeature("wage per hour", missing=-1.0, encoding="standardize"),
    CategoricalFeature("city", missing_values=("?",)),
    CategoricalFeature("device", hash_buckets=7),
    MultiValuedFeature("tags", max_length=3),
)
TASKS = (
    Task("click", "click"),
    Task("visits", "visits", kind="regression"),
    Task("color", "color", kind="multiclass", classes=("red", "green", "blue")),
)
BUY = Task("buy", "buy")


@pytest.fixture(scope="session")
def rows():
    rng, size = np.random.default_rng(0), 200
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, size),
            "wage per hour": np.where(rng.random(size) < 0.2, np.nan, rng.random(size) * 100),
            "city": rng.choice(["Lima", "Oslo", "Rome", "?", ""], size),
            "device": rng.choice(["phone", "tablet", "toaster"], size),
            "tags": [list(rng.choice(["a", "b", "c"], rng.integers(0, 5))) for _ in range(size)],
            "click": rng.integers(0, 2, size),
            "visits": rng.random(size),
            "color": rng.choice(["red", "green", "blue"], size),
            "buy": rng.integers(0, 2, size),
        }
    )


@pytest.fixture(scope="session")
def make_model(rows):
    """Makes a model that was trained for an epoch."""

    def make(tasks=TASKS):
        encoder = FeatureEncoder(FEATURES).adapt(rows)
        model = MPTRec(encoder, tasks, expert_units=(8, 4), tower_units=(4,))
        model.compile("adam", jit_compile=False)
        model.fit(make_dataset(rows, encoder, tasks), verbose=0)
        return model

    return make


@pytest.fixture(scope="session")
def model(make_model):
    """A model that no test changes."""
    return make_model()


@pytest.fixture(scope="session")
def exported(rows, make_model, tmp_path_factory):
    """Base path of two versions, and for each task what the Keras model gave."""
    base_path = tmp_path_factory.mktemp("serving") / "shop"
    model = make_model()
    export(model, base_path, rows=rows, metrics={"click": {"auc": 0.5}})
    model.add_task(BUY, tower_units=(4,))
    model.fit(make_dataset(rows, model.encoder, [BUY]), verbose=0)
    export(model, base_path)
    return base_path, model.predict(model.encoder.encode(rows), verbose=0)
