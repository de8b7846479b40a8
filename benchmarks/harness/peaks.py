"""What this machine can do at most: a plain matrix product, and a copy. Prints JSON."""

import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from harness.protocol import Worker

SECONDS = 3.0
TRIES = 10
SIZE = 1024
COPIED = 64 << 20


def measure() -> dict[str, float]:
    """The best of many tries, every core used.

    Returns:
        `flops`, operations a second of a float32 product of two square matrices, by NumPy or
        TensorFlow, whichever is faster; `bandwidth`, bytes a second, read and written, of a copy
        much larger than any cache.
    """
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((SIZE, SIZE), np.float32) for _ in range(2)]
    tensors = [tf.constant(matrix) for matrix in matrices]
    product = min(
        best_seconds(lambda: np.matmul(*matrices)),
        best_seconds(lambda: tf.matmul(*tensors).numpy()),
    )
    source = np.ones(COPIED, np.float32)
    target = np.zeros_like(source)
    copy = best_seconds(lambda: np.copyto(target, source))
    return {"flops": 2 * SIZE**3 / product, "bandwidth": 2 * source.nbytes / copy}


def best_seconds(call: Callable[[], object]) -> float:
    """The shortest of many calls, of which the first one does not count."""
    call()
    seconds, begun = [], time.perf_counter()
    while len(seconds) < TRIES or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    Worker().ready(measure())
