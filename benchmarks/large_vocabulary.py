"""What a large vocabulary costs: a training step with 10 million ids against 10 thousand.

One categorical column, ids that follow Zipf's law, two tasks, batch 4,096; all data are synthetic.
Whole steps of `MPTRec` through `fit`, with `LazyAdam` and with Keras' own Adam; and where a Python
with PyTorch is given, the same layers there (`large_vocabulary_torch.py`) with Adam and with
`SparseAdam` on `nn.Embedding(sparse=True)`. Variants and sizes take turns.

    python benchmarks/large_vocabulary.py --torch .venv-torch/bin/python

Prints the figures as JSON: seconds a step of every repetition, and the ratio of ours.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import mptrec_tf as mpt
from mptrec_tf.optimizers import LazyAdam

SIZES = {"small": 10_000, "large": 10_000_000}
BATCH, STEPS = 4096, {"sparse": 20, "dense": 4}
EXPONENT = 1.05
TORCH = pathlib.Path(__file__).with_name("large_vocabulary_torch.py")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", help="a Python that has PyTorch")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    print(json.dumps(measure(args.repetitions, args.torch), indent=1))


def measure(repetitions: int = 5, torch_python: str | None = None) -> dict[str, Any]:
    """Seconds a step of every variant at both sizes.

    Args:
        repetitions: How often each is measured, in turns. Defaults to 5.
        torch_python: A Python that has PyTorch. Defaults to `None`: without PyTorch.

    Returns:
        `median`, `min` and `max` of our step with 10 million ids over ours with 10 thousand, pair
        by pair; `seconds` by variant and size (`"small"`, `"large"`), one a repetition.
    """
    variants: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for name, make, kind in (
            ("ours, LazyAdam", LazyAdam, "sparse"),
            ("ours, Keras' Adam", keras.optimizers.Adam, "dense"),
        ):
            sized = {size: Ours(make(), ids, STEPS[kind]) for size, ids in SIZES.items()}
            variants[name] = lambda size, sized=sized: sized[size].seconds_a_step()
        if torch_python is not None:
            peer = stack.enter_context(_peer(torch_python))
            for kind in ("sparse", "dense"):
                variants[f"PyTorch, {'SparseAdam' if kind == 'sparse' else 'Adam'}"] = (
                    lambda size, kind=kind: _ask(peer, kind, size)
                )
        seconds = {name: {size: [] for size in SIZES} for name in variants}
        for repetition in range(repetitions + 1):
            for name, measure_step in variants.items():
                for size in SIZES:
                    taken = measure_step(size)
                    if repetition:  # the first one warms up
                        seconds[name][size].append(taken)
    ours = seconds["ours, LazyAdam"]
    ratios = np.divide(ours["large"], ours["small"])
    return {
        "median": float(np.median(ratios)),
        "min": float(ratios.min()),
        "max": float(ratios.max()),
        "ids": SIZES,
        "batch": BATCH,
        "seconds": seconds,
    }


class Ours:
    """A model with a vocabulary of some size, and its training data.

    Args:
        optimizer: Its optimizer.
        ids: Size of the vocabulary.
        steps: Steps of a repetition.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, ids: int, steps: int) -> None:
        keras.utils.set_random_seed(0)
        encoder = mpt.FeatureEncoder([mpt.CategoricalFeature("item", hash_buckets=ids - 1)])
        tasks = [mpt.Task("click", "click"), mpt.Task("like", "like")]
        self.model = mpt.MPTRec(encoder, tasks)
        self.model.compile(optimizer)
        self.steps = steps
        items, labels = examples(ids, steps)
        y = {task.name: labels[:, index] for index, task in enumerate(tasks)}
        data = tf.data.Dataset.from_tensor_slices(({"categorical": items[:, None]}, y))
        self.data = data.batch(BATCH, drop_remainder=True).prefetch(2)

    def seconds_a_step(self) -> float:
        """Trains an epoch."""
        clock = Clock()
        self.model.fit(self.data, verbose=0, callbacks=[clock])
        return clock.seconds / self.steps


class Clock(keras.callbacks.Callback):
    """Takes the time of an epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds = time.perf_counter() - self._begun


def examples(ids: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic rows.

    Returns:
        Ids, int32 (rows,), the frequent ones anywhere in the table; labels, float32 (rows, 2).
    """
    rng = np.random.default_rng(0)
    rows = BATCH * steps
    share = np.cumsum(np.arange(1, ids + 1, dtype=np.float64) ** -EXPONENT)
    ranks = np.searchsorted(share, rng.random(rows) * share[-1])
    labels = rng.integers(0, 2, (rows, 2)).astype(np.float32)
    return rng.permutation(ids).astype(np.int32)[ranks], labels


@contextlib.contextmanager
def _peer(python: str) -> Iterator[subprocess.Popen]:
    command = [python, str(TORCH)]
    process = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.stdin.close()


def _ask(process: subprocess.Popen, kind: str, size: str) -> float:
    ids, steps = SIZES[size], STEPS[kind]
    process.stdin.write(json.dumps({"kind": kind, "ids": ids, "steps": steps, "batch": BATCH}))
    process.stdin.write("\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"{TORCH.name} ended with code {process.wait()}; see its errors above")
    return json.loads(answer)["seconds_a_step"]


if __name__ == "__main__":
    main()
