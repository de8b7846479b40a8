"""Tiny data and models, shared by the tests of the models."""

import json
import os
import subprocess
import sys
import tempfile

import keras
import numpy as np
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

TASKS = {
    task.name: task
    for task in (
        Task("click", "click"),
        Task("like", "like", loss_weight=0.5),
        Task("kind", "kind", kind="multiclass", classes=("u", "v", "w")),
        Task("price", "price", kind="regression"),
        Task("buy", "buy"),
        Task("share", "share"),
        Task("grade", "kind", kind="multiclass", classes=("u", "v", "w")),
        Task("cost", "price", kind="regression"),
    )
}
SMALL = {"embedding_dim": 4, "expert_units": (8, 6), "tower_units": (5,)}


@pytest.fixture(scope="session")
def rows():
    """96 rows; `click` follows from the age, `buy` from the city, the rest is noise."""
    rng, count = np.random.default_rng(0), 96
    age = rng.integers(18, 80, count)
    city = rng.choice(["Lima", "Oslo", "Rome"], count)
    return {
        "age": age,
        "gain": np.where(rng.random(count) < 0.2, 99_999, rng.integers(0, 500, count)),
        "city": city,
        "tags": rng.choice(["a|b", "b", "", "a|c|d"], count),
        "click": (age > 45).astype(int),
        "like": rng.integers(0, 2, count),
        "kind": rng.choice(["u", "v", "w"], count),
        "price": rng.normal(2, 1, count),
        "buy": (city == "Rome").astype(int),
        "share": rng.integers(0, 2, count),
    }


@pytest.fixture(scope="session")
def encoder(rows):
    features = [
        NumericFeature("age", bins=4),
        CategoricalFeature("city"),
        MultiValuedFeature("tags", max_length=3, embedding_dim=3),
        NumericFeature("gain", encoding="standardize"),
    ]
    return FeatureEncoder(features).adapt(rows)


@pytest.fixture(scope="session")
def tasks():
    """The tasks that `rows` has labels of, by name."""
    return TASKS


@pytest.fixture(scope="session")
def dataset(rows, encoder):
    """Makes a dataset of 96 rows with the labels of the tasks named."""

    def make(*names, batch_size=40):
        return make_dataset(rows, encoder, [TASKS[n] for n in names], batch_size=batch_size)

    return make


@pytest.fixture(scope="session")
def arrays(rows, encoder):
    """Makes `(x, y)` of NumPy arrays with the labels of the tasks named; `y` may be changed."""

    def make(*names):
        data = make_dataset(rows, encoder, [TASKS[n] for n in names], batch_size=96)
        x, y = next(data.as_numpy_iterator())
        return x, {name: labels.copy() for name, labels in y.items()}

    return make


@pytest.fixture(scope="session")
def make_model(encoder):
    """Makes a small model of the tasks named, to be run eagerly, which saves the tracing."""

    def make(*names, compile_with=None, **settings):
        model = MPTRec(encoder, [TASKS[n] for n in names], **SMALL, **settings)
        model.compile(**{"optimizer": "adam", "run_eagerly": True, **(compile_with or {})})
        return model

    return make


@pytest.fixture(scope="session")
def pretrained(make_model, arrays):
    """A model of `click` and `like` after stage 1, to be copied."""
    keras.utils.set_random_seed(3)
    model = make_model("click", "like", expert_dropout=0.5)
    model.fit(*arrays("click", "like"), batch_size=48, verbose=0)
    return model


@pytest.fixture(scope="session")
def copy_of():
    """Makes an independent copy of a model with the same weights, compiled as asked."""

    def copy(model, **compile_with):
        twin = MPTRec.from_config(model.get_config())
        with tempfile.TemporaryDirectory() as directory:  # a configuration holds no vocabularies
            model.encoder.save_assets(directory)
            twin.encoder.load_assets(directory)
        twin.compile(**{"optimizer": "adam", "run_eagerly": True, **compile_with})
        twin.set_weights(model.get_weights())
        return twin

    return copy


@pytest.fixture
def trained(pretrained, copy_of):
    """A copy of `pretrained`, which the test may change."""
    return copy_of(pretrained)


REPLICAS = """
import contextlib, json, sys

import keras
import numpy as np
import tensorflow as tf

import mptrec_tf as mpt
from mptrec_tf.models import MODELS

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rows = json.load(open(sys.argv[1]))
features = [mpt.NumericFeature("age", bins=4), mpt.CategoricalFeature("city")]
encoder = mpt.FeatureEncoder(features).adapt(rows)


def report_of(replicas):
    keras.utils.set_random_seed(1)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = make_model()
    assert model.distribute_strategy.num_replicas_in_sync == replicas
    return {**train(model), "iterations": int(model.optimizer.iterations.numpy())}
"""


@pytest.fixture
def one_and_two_replicas(rows, tmp_path):
    """Runs a program that makes and trains a model, with one replica and with two.

    The program defines `make_model()`, which compiles it, and `train(model)`, which gives what is
    reported; it has `rows`, `encoder` and `MODELS`. Both reports have `iterations`, too.
    """

    def run(program):
        columns = {name: np.asarray(values).tolist() for name, values in rows.items()}
        given, found = tmp_path / "rows.json", tmp_path / "report.json"
        given.write_text(json.dumps(columns))
        script = tmp_path / "replicas.py"
        ending = "json.dump([report_of(1), report_of(2)], open(sys.argv[2], 'w'))"
        script.write_text("\n".join([REPLICAS, program, ending]))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, script, given, found], check=True, env=environment)
        return json.loads(found.read_text())

    return run
