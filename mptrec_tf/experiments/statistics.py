"""Figures over seeds: means, intervals, paired tests."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""By how much of the figures two differences may differ and yet be the same."""


class Estimate(NamedTuple):
    """A figure over seeds.

    Attributes:
        values: By seed.
        mean: Their mean.
        deviation: Their sample standard deviation; NaN of one seed.
        low: Where the mean's 95 % interval by Student's t begins; NaN of one seed.
        high: Where it ends.
    """

    values: dict[int, float]
    mean: float
    deviation: float
    low: float
    high: float


def estimate(values: Mapping[int, float]) -> Estimate:
    """Mean, standard deviation and interval of a figure over seeds.

    Args:
        values: By seed.

    Example:

    >>> estimate({0: 1.0, 1: 2.0, 2: 3.0})[1:3]
    (2.0, 1.0)
    """
    numbers = np.array(list(values.values()), float)
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return Estimate(dict(values), mean, *[float("nan")] * 3)
    deviation = float(numbers.std(ddof=1))
    error = deviation / np.sqrt(len(numbers))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1) * error)
    return Estimate(dict(values), mean, deviation, mean - half, mean + half)


class Difference(NamedTuple):
    """How a figure differs from another, over the seeds that both have.

    Attributes:
        found: The differences.
        p: The two-sided p-value of Student's paired t-test; 1 where nothing differs, `None` of one
            seed, and where all seeds differ alike, which leaves nothing to test by.
    """

    found: Estimate
    p: float | None


def difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """A figure minus another, seed by seed.

    Args:
        values: By seed.
        reference: By seed, what is subtracted.

    Returns:
        `None` where they have no seed in common.

    Example:

    >>> difference({0: 3.0, 1: 5.0, 2: 9.0}, {0: 1.0, 1: 2.0}).found.mean
    2.5
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    found = estimate({seed: values[seed] - reference[seed] for seed in seeds})
    if len(seeds) == 1:
        return Difference(found, None)
    if not any(found.values.values()):
        return Difference(found, 1.0)
    first, second = ([part[seed] for seed in seeds] for part in (values, reference))
    if found.deviation <= ROUNDING * max(map(abs, first + second)):
        return Difference(found, None)
    return Difference(found, float(stats.ttest_rel(first, second).pvalue))
