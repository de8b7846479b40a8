"""Calibration, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from mptrec_tf.evaluation import plots, reliability


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    predictions = rng.beta(1, 20, 3000)  # a rare event
    return (rng.random(3000) < predictions**0.8).astype(float), predictions


def test_bins_are_those_of_scikit_learn(rows):
    found = reliability(*rows, bins=12)
    observed, predicted = calibration_curve(*rows, n_bins=12, strategy="quantile")
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    np.testing.assert_array_equal(found.weights, 250)
    assert found.error == pytest.approx(np.abs(observed - predicted).mean())


def test_a_weight_counts_as_that_many_rows(rows):
    labels, predictions = (part[:200] for part in rows)
    weights = np.arange(200) % 3
    weighted = reliability(labels, predictions, weights)
    repeated = reliability(np.repeat(labels, weights), np.repeat(predictions, weights))
    for found, expected in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(found, expected)


def test_by_hand_with_ties_and_without_a_spread():
    labels, predictions = np.array([0, 1, 1, 1, 0]), np.array([0.2, 0.2, 0.2, 0.8, 0.8])
    found = reliability(labels, predictions, bins=2)
    np.testing.assert_allclose(found.predicted, [0.2, 0.8])
    np.testing.assert_allclose(found.observed, [2 / 3, 1 / 2])
    assert found.error == pytest.approx((3 * (2 / 3 - 0.2) + 2 * 0.3) / 5)
    assert reliability(labels, np.full(5, 0.5)).error == pytest.approx(0.1)


def test_predictions_that_come_true_are_calibrated():
    rng = np.random.default_rng(1)
    predictions = rng.random(100_000)
    labels = rng.random(100_000) < predictions
    assert reliability(labels, predictions).error < 0.01
    assert reliability(labels, predictions**2).error > 0.1


def test_the_plot_shows_every_bin(rows):
    svg = plots.reliability("click", reliability(*rows, bins=7))
    assert svg.startswith("<svg")
    assert "click: calibration error" in svg
    assert svg.count("<use ") >= 7
