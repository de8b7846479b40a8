import warnings

import pytest

from mptrec_tf import CategoricalFeature, FeatureEncoder, MultiValuedFeature
from mptrec_tf.data.unknown import UnknownValues

FEATURES = [
    MultiValuedFeature("tags", max_length=3),
    CategoricalFeature("city"),
    MultiValuedFeature("genres", max_length=2),
    MultiValuedFeature("words", hash_buckets=5, max_length=2),
]
ROWS = {"tags": ["a|b", "c"], "city": ["Oslo", "Rome"], "genres": ["x", "y|z"], "words": ["p", "q"]}


def warned_of(rows):
    """What is told of 60 times some rows."""
    encoder = FeatureEncoder(FEATURES).adapt(ROWS)
    unknown = UnknownValues(encoder)
    for _ in range(60):
        unknown.update(encoder.encode(rows))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unknown.warn("rows.csv")
    return [str(warning.message) for warning in caught]


def test_columns_with_a_known_value_are_not_warned_of():
    assert warned_of(ROWS) == []
    assert warned_of(ROWS | {"tags": ["1.0|2.0", "9.0|c"], "genres": ["", "n|x"]}) == []


@pytest.mark.parametrize(
    ("name", "cells", "count"),
    [("city", ["oslo", "rome"], 120), ("tags", ["A|B", "C"], 180), ("genres", ["X|Y|Z", "X"], 180)],
)
def test_a_column_without_a_known_value_is_warned_of(name, cells, count):
    (message,) = warned_of(ROWS | {name: cells})
    assert message.startswith(f"rows.csv: no value of column '{name}' is in the vocabulary, ")
    assert f"all {count} are encoded as unknown" in message


def test_padding_does_not_count():
    assert warned_of(ROWS | {"tags": ["", None], "genres": ["A", ""]}) == []  # 60 are too few
