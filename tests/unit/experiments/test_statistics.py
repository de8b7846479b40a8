"""Figures over seeds against SciPy's and ones computed by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mptrec_tf.experiments.statistics import difference, estimate

A = {0: 0.80, 1: 0.82, 2: 0.81}
B = {0: 0.79, 1: 0.80, 2: 0.82}


def test_estimate():
    found = estimate(A)
    assert found.mean == pytest.approx(0.81)
    assert found.deviation == pytest.approx(0.01)  # sqrt((1 + 1 + 0) / 2) / 100
    values = list(A.values())
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_has_no_spread():
    found = estimate({3: 0.5})
    assert found.mean == 0.5
    assert all(map(math.isnan, found[2:]))


def test_difference():
    # Differences 0.01, 0.02, -0.01: mean 0.02 / 3, sample variance 7 / 3e4, so t = 0.75593.
    t = (0.02 / 3) / math.sqrt(7 / 3e4 / 3)
    assert t == pytest.approx(0.75593, abs=1e-5)
    found = difference(A, B)
    assert found.found.mean == pytest.approx(0.02 / 3)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 2))


def test_pairs_are_by_seed():
    found = difference({2: 0.81, 1: 0.82, 0: 0.80, 7: 0.1}, B)
    assert found.found.mean == pytest.approx(difference(A, B).found.mean)
    assert found.p == pytest.approx(difference(A, B).p)
    one = difference(A, {0: 0.5})
    assert (one.found.mean, one.p) == (pytest.approx(0.3), None)
    assert difference(A, A).p == 1.0
    assert difference(A, {5: 0.8}) is None


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        ({0: 0.75, 1: 0.75}, {0: 0.5, 1: 0.5}),
        ({0: 0.75, 1: 0.76, 2: 0.75}, {0: 0.70, 1: 0.71, 2: 0.70}),  # but for rounding
        ({0: 0.90001, 1: 0.75001}, {0: 0.9, 1: 0.75}),
    ],
)
def test_a_difference_that_all_seeds_share_is_not_tested(values, reference):
    found = difference(values, reference)
    assert found.p is None
    assert found.found.mean == pytest.approx(values[0] - reference[0])
    nearly = difference({**values, 0: values[0] + 1e-9}, reference)
    assert nearly.p == pytest.approx(0.0, abs=1e-3)
