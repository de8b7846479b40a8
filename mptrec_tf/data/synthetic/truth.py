"""The known truth behind synthetic rows: which labels they have, and why."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from mptrec_tf.data.mixing import fractions, mixed_bits
from mptrec_tf.errors import DataError

CALIBRATION_ROWS = 100_000
"""Rows on which rates and scores are made what they should be."""


def mixed(*numbers: Any) -> np.ndarray:
    """Numbers that look random and depend on the given ones alone.

    Args:
        *numbers: Integers or arrays of them, which are broadcast.

    Returns:
        Uint64 of their common shape.
    """
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = (state + np.asarray(number).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        state = mixed_bits(state)
    return state


class Zipf:
    """Numbers from 0 of which number `r` comes up in proportion to `(r + 1) ** -exponent`.

    Args:
        size: How many there are.
        exponent: 0 makes them equally frequent.

    Example:

    >>> Zipf(3, 1.0).draw(np.random.default_rng(0), 8)
    array([1, 0, 0, 0, 1, 2, 1, 1])
    """

    def __init__(self, size: int, exponent: float) -> None:
        self._bounds = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -exponent)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """So many numbers, int64."""
        found = np.searchsorted(self._bounds, rng.random(count) * self._bounds[-1], side="right")
        return np.minimum(found, len(self._bounds) - 1)


@dataclasses.dataclass(frozen=True)
class Truth:
    """Logits of all tasks as a function of the ids of a row.

    Each id of each column has an effect on one score that all tasks share and on one score for each
    task. The scores have mean 0, variance 1 and no correlation over the rows, and

        logit_k = bias_k + signal * (sqrt(correlation) * shared + sqrt(1 - correlation) * own_k)

    so that the logits of any two tasks have that correlation.

    Args:
        seed: Decides the effects.
        columns: The columns that have effects.
        tasks: The tasks.
        after: For a task, the one whose label must be 1 before its own can be.
        correlation: Of the logits of two tasks, from 0 to 1.
        signal: Standard deviation of a logit.
        mean: Mean of the raw scores, float (K + 1,).
        whitening: What makes them uncorrelated with variance 1, float (K + 1, K + 1).
        bias: Bias of each task, float (K,).
    """

    seed: int
    columns: tuple[str, ...]
    tasks: tuple[str, ...]
    after: Mapping[str, str]
    correlation: float
    signal: float
    mean: np.ndarray
    whitening: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(
        cls,
        ids: Mapping[str, np.ndarray],
        *,
        seed: int,
        rates: Mapping[str, float],
        after: Mapping[str, str],
        correlation: float,
        signal: float,
    ) -> "Truth":
        """The truth that has these rates on rows such as the given ones.

        Args:
            ids: Ids by column of `CALIBRATION_ROWS` rows.
            seed: Decides the effects.
            rates: By task the share of rows with label 1; of a task that comes after another, among
                those where the other's label is 1.
            after: For a task, the one whose label must be 1 before its own can be.
            correlation: Of the logits of two tasks.
            signal: Standard deviation of a logit.

        Raises:
            DataError: If a rate, the correlation or the signal cannot be.
        """
        _check(rates, correlation, signal)
        tasks = tuple(rates)
        raw = _raw_scores(ids, seed, len(tasks))
        mean = raw.mean(axis=0)
        whitening = np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
        start = cls(
            seed, tuple(ids), tasks, dict(after), correlation, signal, mean, whitening,
            np.zeros(len(tasks)),
        )  # fmt: skip
        logits = start.logits(ids)
        bias = np.zeros(len(tasks))
        for number, task in enumerate(tasks):
            weights = None
            if task in after:
                before = tasks.index(after[task])
                weights = expit(logits[:, before] + bias[before])
            bias[number] = _bias(logits[:, number], weights, rates[task])
        return dataclasses.replace(start, bias=bias)

    def scores(self, ids: Mapping[str, np.ndarray]) -> np.ndarray:
        """The shared score and that of each task, float (B, K + 1)."""
        columns = {name: ids[name] for name in self.columns}
        return (_raw_scores(columns, self.seed, len(self.tasks)) - self.mean) @ self.whitening

    def logits(self, ids: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits of all tasks, float (B, K)."""
        scores = self.scores(ids)
        shared, own = np.sqrt(self.correlation), np.sqrt(1 - self.correlation)
        return self.bias + self.signal * (shared * scores[:, :1] + own * scores[:, 1:])

    def labels(
        self, ids: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Labels drawn with the probabilities that the logits say, int64 (B,) by task."""
        probabilities = expit(self.logits(ids))
        drawn = (rng.random(probabilities.shape) < probabilities).astype(np.int64)
        labels = {task: drawn[:, number] for number, task in enumerate(self.tasks)}
        for task, before in self.after.items():
            labels[task] = labels[task] * labels[before]
        return labels

    def describe(self, ids: Mapping[str, np.ndarray]) -> dict[str, object]:
        """What can be said of it: plain data for a file beside the rows.

        Args:
            ids: Rows on which the best possible AUC is measured.
        """
        probabilities = expit(self.logits(ids))
        labels = self.labels(ids, np.random.default_rng([self.seed, 1]))
        best = {}
        for number, task in enumerate(self.tasks):
            chances = probabilities[:, number]
            if task in self.after:
                chances = chances * probabilities[:, self.tasks.index(self.after[task])]
            found = labels[task]
            best[task] = float(roc_auc_score(found, chances)) if 0 < found.mean() < 1 else None
        return {
            "columns": list(self.columns),
            "correlation": self.correlation,
            "signal": self.signal,
            "after": dict(self.after),
            "bias": dict(zip(self.tasks, self.bias.tolist(), strict=True)),
            "best_auc": best,
        }


def _raw_scores(ids: Mapping[str, np.ndarray], seed: int, tasks: int) -> np.ndarray:
    """Sums of an effect of variance 1 for each column, float (B, tasks + 1)."""
    total = np.zeros((len(next(iter(ids.values()))), tasks + 1))
    for number, values in enumerate(ids.values()):
        distinct, where = np.unique(values, return_inverse=True)
        effects = mixed(seed, number, np.arange(tasks + 1), distinct[:, None])
        total += ((fractions(effects) - 0.5) * np.sqrt(12.0))[where]
    return total


def _bias(logits: np.ndarray, weights: np.ndarray | None, rate: float) -> float:
    """What has to be added to logits for their mean probability to be a rate."""
    return float(
        brentq(lambda bias: np.average(expit(logits + bias), weights=weights) - rate, -60, 60)
    )


def _check(rates: Mapping[str, float], correlation: float, signal: float) -> None:
    for task, rate in rates.items():
        if not 0 < rate < 1:
            raise DataError(f"the rate of {task!r} is {rate}, expected more than 0 and less than 1")
    if not 0 <= correlation <= 1:
        raise DataError(f"the correlation is {correlation}, expected 0 to 1")
    if not 0 <= signal <= 10:
        raise DataError(f"the signal is {signal}, expected 0 to 10")


def rates_of(defaults: Mapping[str, float], given: Mapping[str, float] | None) -> dict[str, float]:
    """The rates of all tasks, those given in place of the defaults.

    Raises:
        DataError: If there is no such task.
    """
    unknown: Sequence[str] = sorted(set(given or {}) - set(defaults))
    if unknown:
        raise DataError(f"no task {unknown[0]!r}; the tasks are {list(defaults)}")
    return {**defaults, **(given or {})}
