"""What the statistics tell about each feature, training rows against test rows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipelines.components.schema import Statistics

BINS = 14
SHOWN, LONGEST = 3, 28


class Part(NamedTuple):
    """A feature in one split.

    Attributes:
        missing: Share of the rows in which it is missing.
        distinct: Number of categories, `None` of numbers.
        values: Its most frequent categories, or quantiles, in words.
        shares: Heights of the histogram, which has the same bins in both splits.
    """

    missing: float
    distinct: int | None
    values: str
    shares: list[float]


class FeatureRow(NamedTuple):
    """A feature.

    Attributes:
        name: Its name.
        kind: Its kind.
        train: The training rows.
        test: The test rows.
    """

    name: str
    kind: str
    train: Part
    test: Part


def feature_rows(train: Statistics, test: Statistics, kinds: Mapping[str, str]) -> list[FeatureRow]:
    """The features, in their order.

    Args:
        train: Statistics of the training rows.
        test: Statistics of the test rows.
        kinds: Kind of each feature.
    """
    rows = []
    for name, kind in kinds.items():
        columns = [_column(statistics, name) for statistics in (train, test)]
        shares = (_numbers if kind == "numeric" else _categories)(columns)
        parts = [
            _part(column, statistics.datasets[0].num_examples, kind, heights)
            for column, statistics, heights in zip(columns, (train, test), shares, strict=True)
        ]
        rows.append(FeatureRow(name, kind, *parts))
    return rows


def _column(statistics: Statistics, name: str) -> Any:
    """Statistics of a column; empty ones if it is always missing."""
    for column in statistics.datasets[0].features:
        if column.path.step == [name]:
            return column
    return statistics_pb2.FeatureNameStatistics()


def _part(column: Any, rows: int, kind: str, shares: list[float]) -> Part:
    numeric = kind == "numeric"
    stats = column.num_stats if numeric else column.string_stats
    present = stats.common_stats.num_non_missing
    missing = 1 - present / rows if rows else 0.0
    if not present:
        return Part(missing, None, "", shares)
    if numeric:
        text = " · ".join(f"{value:.4g}" for value in (stats.min, stats.median, stats.max))
        return Part(missing, None, text, shares)
    total = stats.common_stats.tot_num_values
    top = stats.rank_histogram.buckets[:SHOWN]
    text = ", ".join(f"{shorten(bucket.label)} {bucket.sample_count / total:.1%}" for bucket in top)
    return Part(missing, stats.unique, text, shares)


def shorten(text: str) -> str:
    """A text that is not too long for a cell or an axis."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _numbers(columns: list[Any]) -> list[list[float]]:
    """Shares in bins of equal width from the least value of all to the greatest."""
    stats = [column.num_stats for column in columns if column.HasField("num_stats")]
    if not stats:
        return [[] for _ in columns]
    low, high = min(s.min for s in stats), max(s.max for s in stats)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    return [_rebinned(column.num_stats, edges) for column in columns]


def _rebinned(stats: Any, edges: np.ndarray) -> list[float]:
    for histogram in stats.histograms:
        if histogram.type == statistics_pb2.Histogram.STANDARD:
            shares = np.zeros(len(edges) - 1)
            for bucket in histogram.buckets:
                if bucket.high_value > bucket.low_value:
                    ends = np.clip(edges, bucket.low_value, bucket.high_value)
                    parts = np.diff(ends) / (bucket.high_value - bucket.low_value)
                    shares += bucket.sample_count * parts
                else:
                    inside = np.searchsorted(edges, bucket.low_value, side="right") - 1
                    shares[min(inside, len(shares) - 1)] += bucket.sample_count
            return list((shares / max(shares.sum(), 1e-12)).tolist())
    return []


def _categories(columns: list[Any]) -> list[list[float]]:
    """Shares of the categories that are most frequent in the training rows."""
    counts = [
        {b.label: b.sample_count for b in column.string_stats.rank_histogram.buckets}
        for column in columns
    ]
    names = list(counts[0] or counts[1])[:BINS]
    totals = [column.string_stats.common_stats.tot_num_values or 1 for column in columns]
    return [
        [found.get(name, 0) / total for name in names]
        for found, total in zip(counts, totals, strict=True)
    ]
