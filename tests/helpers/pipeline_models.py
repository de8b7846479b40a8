"""Small models of both stages as Trainer writes them, and the examples that they are asked."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    MPTRec,
    NumericFeature,
    Task,
    make_dataset,
    save_model,
)
from mptrec_tf.data import read_chunks
from mptrec_tf.serving import Manifest, write_version
from pipelines.examples import open_writer, raw_examples

FEATURES = (NumericFeature("age"), CategoricalFeature("city"))
TASKS = (
    Task("click", "click"),
    Task("visits", "visits", kind="regression"),
    Task("color", "color", kind="multiclass", classes=("red", "green", "blue")),
)
BUY = Task("buy", "buy")
ROWS = 300
SERVING = "Format-Serving"


class Stages(NamedTuple):
    """A model after stage 2, and what was written after each stage.

    Attributes:
        model: The model with the task "buy".
        base: URI of the model of stage 1.
        base_file: Its Keras model.
        candidate: URI of the model of stage 2.
    """

    model: MPTRec
    base: pathlib.Path
    base_file: pathlib.Path
    candidate: pathlib.Path


def make_rows() -> dict[str, np.ndarray]:
    """Synthetic rows; nobody lives in "Rome"."""
    rng = np.random.default_rng(0)
    return {
        "age": rng.integers(18, 80, ROWS),
        "city": rng.choice(["Lima", "Oslo", ""], ROWS),
        "click": rng.integers(0, 2, ROWS),
        "visits": rng.random(ROWS),
        "color": rng.choice(["red", "green", "blue"], ROWS),
        "buy": rng.integers(0, 2, ROWS),
    }


def make_stages(directory: pathlib.Path) -> Stages:
    """Trains both stages for an epoch and writes them.

    Args:
        directory: Where to.
    """
    keras.utils.set_random_seed(0)
    rows = make_rows()
    known = {**rows, "city": np.where(np.arange(ROWS) < 5, "Rome", rows["city"])}
    encoder = FeatureEncoder(FEATURES).adapt(known)
    model = MPTRec(encoder, TASKS, expert_units=(8, 4), tower_units=(4,))
    model.compile("adam", jit_compile=False)
    model.fit(make_dataset(rows, encoder, TASKS), verbose=0)
    base, base_file = write(model, directory / "base"), directory / "base.keras"
    save_model(model, base_file)
    model.add_task(BUY, tower_units=(4,))
    model.fit(make_dataset(rows, encoder, [BUY]), verbose=0)
    return Stages(model, base, base_file, write(model, directory / "candidate"))


def write(model: MPTRec, uri: pathlib.Path) -> pathlib.Path:
    """Writes a model as an artifact.

    Args:
        model: The model.
        uri: Where to.

    Returns:
        `uri`.
    """
    write_version(model, uri / SERVING, name="shop", warmup_batch_sizes=(1,))
    return uri


def manifest(uri: pathlib.Path) -> Manifest:
    """The manifest of a model artifact."""
    return Manifest.read(uri / SERVING)


@contextlib.contextmanager
def last_bit_changed(weight, index: tuple[int, ...]) -> Iterator[None]:
    """One number of a weight is the next larger one, for as long as the block runs.

    Args:
        weight: A Keras variable.
        index: Which number.
    """
    before = np.array(weight)
    after = before.copy()
    after[index] = np.nextafter(before[index], np.inf, dtype=np.float32)
    weight.assign(after)
    yield
    weight.assign(before)


def write_examples(uri: pathlib.Path, split: str) -> pathlib.Path:
    """Writes the rows as raw examples into two files of a split.

    Args:
        uri: Where to.
        split: Name of the split.

    Returns:
        `uri`.
    """
    (chunk,) = read_chunks(make_rows(), FEATURES, [BUY])
    examples = raw_examples(chunk, FEATURES, [BUY])
    for number, part in enumerate((examples[:100], examples[100:])):
        with open_writer(str(uri / f"Split-{split}"), number) as writer:
            for example in part:
                writer.write(example)
    return uri
