"""What one pass over data of any size learns about a column, mergeable and independent of order.

Because neither the order of the rows nor how they were split over workers matters, a notebook and a
Beam pipeline that see the same rows learn the same vocabulary and the same bins.
"""

import collections
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class CategoryCounts:
    """How often each category occurs in a column.

    Example:

    >>> counts = CategoryCounts()
    >>> counts.update(pa.array(["a", "b", "b", None]))
    >>> counts.vocabulary()
    ['b', 'a']
    """

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()

    def update(self, values: pa.Array) -> None:
        """Counts the texts of an array; null is not counted."""
        for entry in pc.value_counts(values.drop_null()).to_pylist():
            self._counts[entry["values"]] += entry["counts"]

    def merge(self, other: "CategoryCounts") -> None:
        """Adds what another worker counted."""
        self._counts.update(other._counts)

    def vocabulary(
        self, min_count: int = 1, max_size: int | None = None, without: Iterable[str] = ()
    ) -> list[str]:
        """The categories, the most frequent first, equally frequent ones in alphabetical order.

        Args:
            min_count: Leaves out categories that occur less often.
            max_size: Keeps at most so many.
            without: Texts that are no category, such as those for a missing value.
        """
        left_out = {"", *without}
        kept = [
            (-count, value)
            for value, count in self._counts.items()
            if count >= min_count and value not in left_out
        ]
        return [value for _, value in sorted(kept)[:max_size]]


class NumberCounts:
    """How often each number occurs in a column: a histogram to take quantiles from.

    Exact up to `max_distinct` different float32 values. Beyond that, values are cut to as many
    significant bits as keep their number below the bound, so that memory stays bounded and the
    error relative to the value.

    Args:
        max_distinct: Most different values that are held. Defaults to 65,536.

    Example:

    >>> counts = NumberCounts()
    >>> counts.update(np.array([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]))
    >>> counts.boundaries(bins=2)
    [0.0, 1.0, 3.0]
    """

    MANTISSA_BITS = 24
    SMALLEST = np.float32(2.0**-102)
    """Nearer to 0 counts as 0, so that any two numbers differ by a normal float32: kernels that
    flush subnormal ones to 0 would divide by 0."""

    def __init__(self, max_distinct: int = 65_536) -> None:
        self._max_distinct = max_distinct
        self._bits = self.MANTISSA_BITS
        self._values = np.empty(0, np.float32)
        self._counts = np.empty(0, np.int64)

    def update(self, values: np.ndarray) -> None:
        """Counts numbers; NaN is not counted."""
        values = values.astype(np.float32)
        distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        self._add(distinct, counts, self.MANTISSA_BITS)

    def merge(self, other: "NumberCounts") -> None:
        """Adds what another worker counted."""
        self._add(other._values, other._counts, other._bits)

    def _add(self, values: np.ndarray, counts: np.ndarray, bits: int) -> None:
        self._values = np.concatenate([self._values, values])
        self._counts = np.concatenate([self._counts, counts])
        self._bits = min(self._bits, bits)
        self._group()
        while len(self._values) > self._max_distinct:
            self._bits -= 1
            self._group()

    def _group(self) -> None:
        values = np.where(np.abs(self._values) < self.SMALLEST, np.float32(0), self._values)
        if self._bits < self.MANTISSA_BITS:
            mantissa, exponent = np.frexp(values)
            cut = np.trunc(np.ldexp(mantissa, self._bits))
            values = np.ldexp(cut, exponent - self._bits).astype(np.float32)
        self._values, inverse = np.unique(values, return_inverse=True)
        grouped = np.zeros(len(self._values), np.int64)
        np.add.at(grouped, inverse, self._counts)
        self._counts = grouped

    def mean_and_deviation(self) -> tuple[float, float]:
        """Mean and standard deviation; the deviation of a constant column is given as 1."""
        values, total = self._values.astype(np.float64), max(int(self._counts.sum()), 1)
        mean = float((values * self._counts).sum() / total)
        deviation = float(np.sqrt((self._counts * (values - mean) ** 2).sum() / total))
        return mean, deviation if deviation > 0 else 1.0

    def boundaries(self, bins: int) -> list[float]:
        """Edges of at most `bins` bins that hold about equally many numbers.

        A value that alone outweighs a bin gets a bin of its own and the others share what remains
        (as LightGBM places its bins), so a column that is mostly zero still resolves its tail.

        Args:
            bins: Most bins.

        Returns:
            Ascending edges, one more than there are bins; the first and the last are the smallest
            and the largest number.
        """
        values = self._values.tolist()
        if len(values) < 2:
            low = values[0] if values else 0.0
            return [low, low + max(1.0, float(np.spacing(np.float32(abs(low)))))]
        if len(values) <= bins + 1:
            return values
        edges = [values[0]]
        remaining, left, filled = int(self._counts.sum()), bins, 0
        for following, count in zip(values[1:], self._counts.tolist(), strict=False):
            filled += count
            if left > 1 and filled * left >= remaining:
                edges.append(following)
                remaining, left, filled = remaining - filled, left - 1, 0
        if edges[-1] < values[-1]:
            edges.append(values[-1])
        return edges
