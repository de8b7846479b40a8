import itertools

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from mptrec_tf.data.sketches import CategoryCounts, NumberCounts
from mptrec_tf.layers import NumericEncoding


def categories(*parts):
    counts = CategoryCounts()
    for part in parts:
        counts.update(pa.array(part, pa.string()))
    return counts


def numbers(*parts, **arguments):
    counts = NumberCounts(**arguments)
    for part in parts:
        counts.update(np.asarray(part, np.float64))
    return counts


def test_vocabulary_is_in_order_of_frequency_and_then_of_the_alphabet():
    counts = categories(["b", "a", "c", None, "c"], ["ä", "b", "c", "Z"])
    assert counts.vocabulary() == ["c", "b", "Z", "a", "ä"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["c", "b", "a", "d"]),
        ({"min_count": 2}, ["c", "b"]),
        ({"max_size": 3}, ["c", "b", "a"]),
        ({"max_size": 9}, ["c", "b", "a", "d"]),
        ({"without": ("c",), "max_size": 2}, ["b", "a"]),
        ({"min_count": 4}, []),
    ],
)
def test_vocabulary_keeps_what_is_frequent_enough(arguments, expected):
    assert categories(["c", "c", "c", "b", "b", "a", "d", ""]).vocabulary(**arguments) == expected


@hypothesis.given(st.lists(st.lists(st.text("abc", max_size=2)), max_size=4), st.randoms())
def test_vocabulary_depends_on_neither_order_nor_split(parts, random):
    rows = [row for part in parts for row in part]
    random.shuffle(rows)
    merged = CategoryCounts()
    for part in parts:
        merged.merge(categories(part))
    assert merged.vocabulary() == categories(rows).vocabulary()


@pytest.mark.parametrize(
    ("values", "bins", "expected"),
    [
        ([], 4, [0, 1]),
        ([5, 5], 4, [5, 6]),
        ([2.0**60], 4, [2.0**60, 2.0**60 + 2.0**37]),
        ([3, 1, 2], 4, [1, 2, 3]),
        ([0, 1, 2, 3, 4, 5, 6, 7], 2, [0, 4, 7]),
        ([0, 1, 2, 3, 4, 5, 6, 7], 4, [0, 2, 4, 6, 7]),
        ([0, 1, 2, 3, 4, 5, 6, 7], 1, [0, 7]),
        # Half of the rows are 0: one bin for them, the other three for the tail.
        ([0] * 6 + [1, 2, 3, 4, 5, 6], 4, [0, 1, 3, 5, 6]),
        # The heavy value is the last one.
        ([1, 2, 3, 4, *[5] * 16], 3, [1, 5]),
        ([np.nan, 1, 2, np.nan], 4, [1, 2]),
        ([-0.0, 0.0, 1e-40, 1.0], 4, [0, 1]),
    ],
)
def test_bins_hold_equally_many_rows_and_heavy_values_a_bin_of_their_own(values, bins, expected):
    assert numbers(values).boundaries(bins) == expected


def test_mean_and_deviation():
    assert numbers([1, 2], [3, 6, np.nan]).mean_and_deviation() == (3.0, np.std([1, 2, 3, 6]))
    assert numbers([7, 7]).mean_and_deviation() == (7.0, 1.0)
    assert numbers([]).mean_and_deviation() == (0.0, 1.0)


floats = st.floats(-(2.0**100), 2.0**100, width=32)


@hypothesis.given(
    st.lists(st.lists(floats, max_size=30), max_size=4), st.integers(1, 20), st.randoms()
)
def test_numbers_depend_on_neither_order_nor_split_even_when_memory_is_short(
    parts, max_distinct, random
):
    rows = [row for part in parts for row in part]
    whole = numbers(rows, max_distinct=max_distinct)
    random.shuffle(rows)
    one_by_one = numbers(*[[row] for row in rows], max_distinct=max_distinct)
    merged = NumberCounts(max_distinct)
    for part in reversed(parts):
        merged.merge(numbers(part, max_distinct=max_distinct))
    for other in (one_by_one, merged):
        assert other.boundaries(8) == whole.boundaries(8)
        assert other.mean_and_deviation() == whole.mean_and_deviation()


@hypothesis.settings(max_examples=50)
@hypothesis.given(st.lists(floats, max_size=60), st.integers(1, 9))
def test_bins_are_ascending_within_the_data_and_usable(values, bins):
    edges = numbers(values).boundaries(bins)
    assert 2 <= len(edges) <= bins + 1
    assert all(low < high for low, high in itertools.pairwise(edges))
    distinct = {value if abs(value) >= NumberCounts.SMALLEST else 0.0 for value in values}
    if len(distinct) > 1:
        assert edges[0] == min(distinct)
        assert edges[-1] == max(distinct)
        assert set(edges) <= distinct
    encoded = NumericEncoding([edges])(np.array(edges, "float32")[:, None]).numpy()
    np.testing.assert_array_equal(encoded, np.tri(len(edges), len(edges) - 1, -1))


def test_memory_is_bounded_and_the_error_relative_to_the_value():
    values = np.random.default_rng(0).lognormal(0, 3, 20_000).astype(np.float32)
    counts = numbers(*np.split(values, 20), max_distinct=1_000)
    assert len(counts._values) <= 1_000
    assert counts._counts.sum() == 20_000
    edges = counts.boundaries(10)
    exact = numbers(values).boundaries(10)
    np.testing.assert_allclose(edges, exact, rtol=0.1)
    assert edges != exact
