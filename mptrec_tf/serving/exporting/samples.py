"""Raw rows, and the forms in which requests carry them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mptrec_tf.data import FeatureEncoder, read_chunks
from mptrec_tf.data.columns import as_floats, as_lists, as_strings
from mptrec_tf.data.readers import Source
from mptrec_tf.spec import Feature, MultiValuedFeature, NumericFeature

Columns = dict[str, list[Any]]
"""By column: numbers, NaN where missing; texts, `""` where missing; or lists of texts."""

UNKNOWN = "\x1funknown"


def made_up_rows(encoder: FeatureEncoder, count: int) -> Columns:
    """Synthetic rows from what the encoder knows: its bins and its categories.

    Args:
        encoder: An adapted encoder.
        count: How many rows.

    Returns:
        The columns.
    """
    columns: Columns = {}
    for position, feature in enumerate(encoder.features):
        if isinstance(feature, NumericFeature):
            values: list[Any] = list(encoder.numeric_state[feature.name])
            values += [math.nan] if feature.missing is not None else []
        else:
            known = encoder.vocabulary(feature.name) or [f"hashed {n}" for n in range(count)]
            values = [*known[:count], ""]
            if isinstance(feature, MultiValuedFeature):
                values = [values[:n] for n in range(min(len(values), feature.max_length) + 1)]
        # Columns start at different places, so that the rows differ in more than one of them.
        columns[feature.name] = list(
            itertools.islice(itertools.cycle(values), position, position + count)
        )
    return columns


def unknown_categories(encoder: FeatureEncoder, columns: Columns) -> Columns:
    """The first row, with a category in each categorical column that no vocabulary has."""
    row = {name: values[:1] for name, values in columns.items()}
    row |= {feature.name: [UNKNOWN] for feature in encoder.categorical_features}
    return row | {feature.name: [[UNKNOWN]] for feature in encoder.multivalued_features}


def raw_rows(features: Sequence[Feature], source: Source, count: int | None = None) -> Columns:
    """Rows of a source as a request would carry them.

    Args:
        features: The columns to read.
        source: A frame, a dict of columns, or files.
        count: How many rows, the first ones. Defaults to `None`, all.

    Returns:
        The columns.

    Raises:
        DataError: If the data do not fit the features.
    """
    columns: Columns = {feature.name: [] for feature in features}
    rows = 0
    for chunk in read_chunks(source, features):
        for feature in features:
            column, where = chunk.table[feature.name], chunk.where
            if isinstance(feature, NumericFeature):
                values = as_floats(column, feature.name, where).tolist()
            elif isinstance(feature, MultiValuedFeature):
                lists = as_lists(column, feature.name, feature.separator, where)
                values = [texts or [] for texts in lists.to_pylist()]
            else:
                texts = as_strings(column, feature.name, where)
                values = texts.fill_null("").to_pylist()
            columns[feature.name] += values
        rows += chunk.table.num_rows
        if count is not None and rows >= count:
            break
    return {name: values[:count] for name, values in columns.items()}


def to_examples(features: Sequence[Feature], columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """Rows as serialized `tf.Example`s, missing cells left out.

    Args:
        features: The features.
        columns: Raw columns.

    Returns:
        An example for each row.
    """
    names = [feature.name for feature in features]
    rows = zip(*(columns[name] for name in names), strict=True)
    return [_example(dict(zip(names, row, strict=True))) for row in rows]


def _example(row: Mapping[str, Any]) -> bytes:
    example = tf.train.Example()
    for name, value in row.items():
        feature = example.features.feature
        if isinstance(value, float | int):
            if not np.isnan(value):
                feature[name].float_list.value.append(value)
        elif isinstance(value, str):
            if value:
                feature[name].bytes_list.value.append(value.encode())
        else:
            feature[name].bytes_list.value.extend(text.encode() for text in value)
    return example.SerializeToString(deterministic=True)


def to_arrays(
    features: Sequence[Feature], columns: Mapping[str, Sequence[Any]]
) -> dict[str, np.ndarray]:
    """Rows as the signature `columns` takes them.

    Args:
        features: The features.
        columns: Raw columns.

    Returns:
        By column, float32 (B,), or bytes in an object array (B,), or (B, n) padded with `b""`.
    """
    return {feature.name: _array(feature, columns[feature.name]) for feature in features}


def _array(feature: Feature, values: Sequence[Any]) -> np.ndarray:
    if isinstance(feature, NumericFeature):
        return np.array(values, np.float32)
    if not isinstance(feature, MultiValuedFeature):
        return np.array([text.encode() for text in values], object)
    width = max(1, *map(len, values)) if values else 1
    padded = np.full((len(values), width), b"", object)
    for row, texts in enumerate(values):
        padded[row, : len(texts)] = [text.encode() for text in texts]
    return padded
