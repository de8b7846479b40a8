"""Whether predicted probabilities are those that come true."""

import numbers
from typing import NamedTuple

import numpy as np

from mptrec_tf.evaluation.rows import binary_rows

BINS = 15


class Reliability(NamedTuple):
    """What was predicted and what came true, in bins of equally many rows.

    Attributes:
        predicted: Mean prediction in each bin, float (bins,).
        observed: Fraction of positive labels in each bin, float (bins,).
        weights: Rows in each bin, or their weight, float (bins,).

    Example:

    >>> Reliability(np.array([0.25, 0.75]), np.array([0.0, 1.0]), np.array([10, 10])).error
    0.25
    """

    predicted: np.ndarray
    observed: np.ndarray
    weights: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: mean of `|observed - predicted|` over the rows.

        NaN where there is no bin.
        """
        if not len(self.weights):
            return float("nan")
        return float(np.average(np.abs(self.observed - self.predicted), weights=self.weights))


def reliability(
    labels: np.ndarray,
    predictions: np.ndarray,
    weights: np.ndarray | None = None,
    bins: int = BINS,
) -> Reliability:
    """Compares predictions with labels, in bins of equally many rows.

    Bins of equal width, as in the paper, would put nearly all rows of a rare event into the first
    one. Rows of one prediction share a bin, so there may be fewer bins than asked for, and none
    where no row weighs anything. A row that weighs 2 is as two rows.

    Args:
        labels: 0 and 1, (rows,).
        predictions: Probabilities, (rows,).
        weights: Weights of the rows, 0 or more, (rows,). Defaults to `None`, equal ones.
        bins: Most bins, 1 or more. Defaults to 15.

    Raises:
        DataError: If the rows are of different lengths, or hold other values; names the argument.
        ValueError: If `bins` is not 1 or more.

    Example:

    >>> reliability(np.array([0, 0, 1, 1]), np.array([0.1, 0.1, 0.6, 0.6]), bins=2).error
    0.25

    Reference: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599,
    section 2; bins of equally many rows: Nguyen and O'Connor, EMNLP 2015, arXiv:1508.05154.
    """
    if not isinstance(bins, numbers.Integral) or bins < 1:
        raise ValueError(f"bins must be a whole number, 1 or more. Received: {bins!r}")
    labels, predictions, weights = binary_rows(labels, predictions, weights)
    if not weights.any():
        return Reliability(*np.zeros((3, 0)))
    values, which = np.unique(predictions, return_inverse=True)
    sums, positives = (
        np.bincount(which, part, len(values)) for part in (weights, weights * labels)
    )
    middles = np.cumsum(sums) - sums / 2
    places = np.floor(middles / sums.sum() * bins).astype(int)
    totals = np.bincount(places, sums)
    used = totals > 0
    predicted, observed = (
        np.bincount(places, part)[used] / totals[used] for part in (sums * values, positives)
    )
    return Reliability(predicted, observed, totals[used])
