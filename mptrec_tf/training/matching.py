"""What of a feature means the same in two models."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mptrec_tf.data.encoding import FIRST_ID, other_spellings
from mptrec_tf.models import MPTRec
from mptrec_tf.spec import CategoricalFeature, Feature, NumericFeature

SETTINGS = ("missing", "missing_values", "max_length", "separator", "pooling")
"""Settings under which a feature's weights keep their use, but read something else."""


class Column(NamedTuple):
    """A categorical column of a model.

    Attributes:
        number: Its number, as `FeatureEmbedding.column_tables` counts.
        table: Its rows, float32 (rows, dim).
        divisor: What compresses it, or `None`.
        vocabulary: Its categories; empty where it is hashed.
    """

    number: int
    table: np.ndarray
    divisor: int | None
    vocabulary: list[str]


class Match(NamedTuple):
    """What can be taken over.

    Attributes:
        rows: Rows of the new table that have a counterpart; none for a numeric feature.
        old_rows: Their counterparts.
        text: What is taken, for people.
        ones: Rows of the new table that become ones.
    """

    rows: Sequence[int]
    old_rows: Sequence[int]
    text: str
    ones: Sequence[int] = ()


def columns_of(model: MPTRec) -> dict[str, Column]:
    """The categorical columns of a model, by name."""
    embedding, encoder = model.backbone.embedding, model.encoder
    if embedding is None:
        return {}
    features = [*encoder.categorical_features, *encoder.multivalued_features]
    parts = zip(features, embedding.column_tables(), embedding.applied_divisors, strict=True)
    return {
        feature.name: Column(number, table, divisor, encoder.vocabulary(feature.name))
        for number, (feature, table, divisor) in enumerate(parts)
    }


def match_numeric(
    feature: NumericFeature, old: Feature, state: list[float], old_state: list[float] | None
) -> Match | str:
    """What can be taken over of a numeric feature, or why nothing can.

    Args:
        feature: The feature.
        old: The feature of that name in the earlier model.
        state: Its bins, or mean and deviation.
        old_state: Those of the earlier one, `None` if that is not numeric.
    """
    if not isinstance(old, NumericFeature) or old_state is None:
        return f"numeric, was {old.kind}"
    if feature.encoding != old.encoding:
        return f"encoding {feature.encoding!r}, was {old.encoding!r}"
    if feature.encoding == "standardize":
        if state != old_state:
            return f"mean and deviation {_numbers(state)}, were {_numbers(old_state)}"
        return Match((), (), "1 input" + _changes(feature, old))
    if state != old_state:
        return f"its bins have the edges {_numbers(state)}, had {_numbers(old_state)}"
    return Match((), (), _count(len(state) - 1, "input", "inputs") + _changes(feature, old))


def match_categorical(
    feature: CategoricalFeature, old: Feature, column: Column, old_column: Column | None
) -> Match | str:
    """What can be taken over of a categorical feature, or why nothing can.

    Args:
        feature: The feature.
        old: The feature of that name in the earlier model.
        column: Its column.
        old_column: That of the earlier one, `None` if that is numeric.
    """
    if not isinstance(old, CategoricalFeature) or old.kind != feature.kind or old_column is None:
        return f"{feature.kind}, was {old.kind}"
    # Rows of an uncompressed column are the remainder rows of one that ids outgrow.
    outgrown = old_column.divisor is None and len(old_column.table) <= (column.divisor or 0)
    old_divisor = column.divisor if outgrown else old_column.divisor
    settings = {
        "embedding_dim": (column.table.shape[1], old_column.table.shape[1]),
        "hash_buckets": (feature.hash_buckets, old.hash_buckets),
        "quotient_remainder": (column.divisor, old_divisor),
    }
    for key, (value, old_value) in settings.items():
        if value != old_value:
            return f"{key} {value}, was {old_value}"
    changes = _changes(feature, old)
    if feature.hash_buckets is not None:
        rows = range(len(column.table))
        return Match(rows, rows, f"{feature.hash_buckets:,} buckets{changes}")
    old_ids = {text: FIRST_ID + i for i, text in enumerate(old_column.vocabulary)}
    ones: Sequence[int] = ()
    if column.divisor is not None:
        if column.vocabulary[: len(old_ids)] != old_column.vocabulary:
            return "compressed, and the earlier categories no longer have the same ids"
        ones = [column.divisor] if outgrown else []  # the quotient row of the earlier ids
        old_rows: Sequence[int] = range(len(old_column.table))
        rows_of_old: Sequence[int] = old_rows  # quotient rows come last, and further ones after
        common = len(old_ids)
    else:
        old_ids |= other_spellings(old_column.vocabulary)
        found = [(i, t) for i, t in enumerate(column.vocabulary, FIRST_ID) if t in old_ids]
        rows_of_old = [*range(FIRST_ID), *(i for i, _ in found)]
        old_rows = [*range(FIRST_ID), *(old_ids[text] for _, text in found)]
        common = len(found)
    text = _count(common, "category", "categories")
    if new := len(column.vocabulary) - common:
        text += f"; {new:,} new"
    if gone := len(old_column.vocabulary) - common:
        text += f"; {gone:,} of the earlier model gone"
    return Match(rows_of_old, old_rows, text + changes, ones)


def changed_settings(new: Any, old: Any, keys: Sequence[str]) -> str:
    """Which of some settings differ, for people; empty if none does."""
    return "".join(
        f"; {key} {getattr(new, key)!r}, was {getattr(old, key)!r}"
        for key in keys
        if getattr(new, key, None) != getattr(old, key, None)
    )


def _changes(feature: Feature, old: Feature) -> str:
    return changed_settings(feature, old, SETTINGS)


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _numbers(values: list[float]) -> str:
    """Numbers, shortened in the middle."""
    texts = [f"{value:g}" for value in values]
    if len(texts) > 6:
        texts = [*texts[:3], "...", *texts[-2:]]
    return f"[{', '.join(texts)}]"
