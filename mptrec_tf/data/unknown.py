"""Columns whose values are all unknown to an encoder."""

import warnings
from collections.abc import Mapping

import numpy as np

from mptrec_tf.data.encoding import FIRST_ID, UNKNOWN_ID, FeatureEncoder

ENOUGH = 100
"""So many values by chance would hardly all be rare."""

SHOWN = 5


class UnknownValues:
    """Counts the values that an encoder does not know, of features with a vocabulary.

    Rows that spell a column otherwise, such as `3.0` for `3`, are encoded without an error, and
    tell a model nothing.

    Args:
        encoder: What encodes the rows.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        self._encoder = encoder
        self._columns: dict[str, tuple[str, slice]] = {}
        for part, features in (
            ("categorical", encoder.categorical_features),
            ("multivalued", encoder.multivalued_features),
        ):
            end = 0
            for feature in features:
                start, end = end, end + getattr(feature, "max_length", 1)
                if (
                    feature.hash_buckets is None
                    and encoder.vocabulary_size(feature.name) > FIRST_ID
                ):
                    self._columns[feature.name] = part, slice(start, end)
        self._unknown = dict.fromkeys(self._columns, 0)

    def update(self, encoded: Mapping[str, np.ndarray]) -> None:
        """Counts rows; a feature of which a value is known is done with.

        Args:
            encoded: What the encoder gives of them.
        """
        for name in list(self._unknown):
            part, columns = self._columns[name]
            ids = encoded[part][:, columns]
            if (ids >= FIRST_ID).any():
                del self._unknown[name]
            else:
                self._unknown[name] += int(np.count_nonzero(ids == UNKNOWN_ID))

    def warn(self, where: str) -> None:
        """Tells of the features of which no value is known.

        Args:
            where: What to call the rows.
        """
        for name, count in self._unknown.items():
            if count >= ENOUGH:
                known = self._encoder.vocabulary(name)[:SHOWN]
                warnings.warn(
                    f"{where}: no value of column {name!r} is in the vocabulary, which begins with "
                    f"{known}; all {count:,} are encoded as unknown: are they new, or spelled "
                    "otherwise?",
                    stacklevel=2,
                )
