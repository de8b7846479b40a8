"""The AUC within groups of rows, such as those of one user."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from mptrec_tf.evaluation.rows import binary_rows


class GroupedAUC(NamedTuple):
    """The AUC within groups.

    Attributes:
        auc: The mean of the groups' AUC, weighted by their rows; NaN where no group has one.
        groups: How many groups it is of.
        left_out: How many groups have labels of one class only, and so no AUC.
        rows_without_group: How many rows are in no group.

    Example:

    >>> grouped_auc(np.array([0, 1, 1]), np.array([0.1, 0.9, 0.5]), np.array(["u", "u", "v"])).auc
    1.0
    """

    auc: float
    groups: int
    left_out: int
    rows_without_group: int


def grouped_auc(
    labels: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray | None = None,
) -> GroupedAUC:
    """How well rows are ordered within each group, where the order between groups is no matter.

    Each group's AUC is exact, with ties counted half; a group counts by its number of rows, or by
    their weight. Takes one sort, whatever the number of groups. Rows that weigh nothing are as if
    they were not there; those whose group is an empty cell are counted and left out.

    Args:
        labels: 0 and 1, (rows,).
        predictions: Scores, finite, (rows,).
        groups: What a row's group is called, (rows,); `""`, `None` or NaN for no group.
        weights: Weights of the rows, 0 or more, (rows,). Defaults to `None`, equal ones.

    Raises:
        DataError: If these are of different lengths, or hold other values; names the argument.

    Example:

    >>> grouped_auc(np.array([0, 1, 1]), np.array([0.1, 0.9, 0.5]), np.array(["u", "u", "v"]))
    GroupedAUC(auc=1.0, groups=1, left_out=1, rows_without_group=0)

    Reference: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
    arXiv:1706.06978, section 6.2, with rows in place of impressions.
    """
    labels, predictions, weights = binary_rows(labels, predictions, weights, groups=groups)
    names = pd.Series(groups)
    grouped = (names.notna() & (names != "")).to_numpy()
    counted = (weights > 0) & grouped
    groupless = int(np.count_nonzero((weights > 0) & ~grouped))
    if not counted.any():
        return GroupedAUC(float("nan"), 0, 0, groupless)
    codes, _ = pd.factorize(names, use_na_sentinel=False)
    codes, scores = codes[counted], predictions[counted]
    order = np.lexsort((scores, codes))
    codes, scores = codes[order], scores[order]
    positive = (weights * labels)[counted][order]
    negative = weights[counted][order] - positive

    # Rows of one group and one score are a tie; each is as good as half below the other.
    starts = np.ones(len(codes), bool)
    starts[1:] = (codes[1:] != codes[:-1]) | (scores[1:] != scores[:-1])
    firsts = np.flatnonzero(starts)
    group = codes[firsts]
    up, down = (np.add.reduceat(part, firsts) for part in (positive, negative))
    size = codes.max() + 1
    positives, negatives = (np.bincount(group, part, size) for part in (up, down))
    # As groups are sorted by code, what came before a group is what the codes below it hold.
    below = np.cumsum(down) - down - (np.cumsum(negatives) - negatives)[group]
    pairs = np.bincount(group, up * (below + down / 2), size)

    both = (positives > 0) & (negatives > 0)
    present = positives + negatives > 0
    if not both.any():
        return GroupedAUC(float("nan"), 0, int(present.sum()), groupless)
    areas = pairs[both] / (positives[both] * negatives[both])
    mean = float(np.average(areas, weights=(positives + negatives)[both]))
    return GroupedAUC(mean, int(both.sum()), int((present & ~both).sum()), groupless)
