"""Features: what the model reads from a row of raw data."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mptrec_tf.spec.parsing import STRICT, raises_spec_errors

Name = Annotated[str, Field(min_length=1)]
LARGEST = 3.4028234663852886e38
"""What a number, held as float32, can be at most."""

Strings = Annotated[tuple[str, ...], Field(strict=False)]

MOST_BUCKETS = 2**31 - 2
"""So that every id is an int32."""


@raises_spec_errors
@dataclass(frozen=True, config=STRICT)
class NumericFeature:
    """A column of numbers.

    Args:
        name: Column name.
        encoding: `"piecewise_linear"` (default) encodes a value by its position within bins that
            hold about equally many training rows, which keeps heavy tails readable;
            `"standardize"` gives one value, `(x - mean) / standard deviation`.
        bins: Most bins of the piecewise-linear encoding. Defaults to 32.
        missing: Value that stands in for an empty cell or NaN. Defaults to `None`: such a cell is
            an error.

    Example:

    >>> NumericFeature("age", bins=16).encoding
    'piecewise_linear'
    """

    name: Name
    encoding: Literal["piecewise_linear", "standardize"] = "piecewise_linear"
    bins: Annotated[int, Field(ge=1)] = 32
    missing: Annotated[float, Field(ge=-LARGEST, le=LARGEST)] | None = None
    kind: Literal["numeric"] = "numeric"


@raises_spec_errors
@dataclass(frozen=True, config=STRICT)
class CategoricalFeature:
    """A column with one category in each row. Whole numbers are read as their decimal text.

    Truth values are read as `0` and `1`, which a CSV file may spell otherwise: a vocabulary of
    nothing but these two, `False` and `True`, `false` and `true` or `FALSE` and `TRUE` knows all
    four spellings.

    The vocabulary is learned by `FeatureEncoder.adapt`, unless `vocabulary` or `hash_buckets` says
    otherwise. Ids: 0 is a missing value, 1 a value outside the vocabulary, 2 and up the vocabulary;
    with `hash_buckets`, 0 is missing and 1 and up are the buckets.

    Args:
        name: Column name.
        vocabulary: The known categories, in the order of their ids. Defaults to `None`.
        hash_buckets: Number of buckets that categories are hashed into, fewer than 2^31 - 1.
            Defaults to `None`.
        min_count: With a learned vocabulary, how often a category must occur in the training data
            to get an id of its own. Defaults to 1.
        max_size: With a learned vocabulary, how many categories (the most frequent ones) get an id
            of their own. Defaults to `None`, no bound.
        missing_values: Texts that mean a missing value, beside an empty cell. Defaults to none.
        embedding_dim: Width of the embedding. Defaults to `None`: the model's `embedding_dim`.
        quotient_remainder: Compresses the embeddings, for vocabularies of millions: with the
            divisor `m`, `n` ids share `m + n / m` rows, and the embedding of id `i` is the product
            of row `i mod m` and row `floor(i / m)`, so each id keeps one of its own. A quarter of
            the memory takes `m = n / 4`, the least `m = sqrt(n)`. Ids stay as they are. Defaults to
            `None`, a row for each id. See arXiv:1909.02107.

    Example:

    >>> CategoricalFeature("sex", vocabulary=("Female", "Male")).vocabulary
    ('Female', 'Male')
    """

    name: Name
    vocabulary: Strings | None = None
    hash_buckets: Annotated[int, Field(ge=1, le=MOST_BUCKETS)] | None = None
    min_count: Annotated[int, Field(ge=1)] = 1
    max_size: Annotated[int, Field(ge=1)] | None = None
    missing_values: Strings = ()
    embedding_dim: Annotated[int, Field(ge=1)] | None = None
    quotient_remainder: Annotated[int, Field(ge=2)] | None = None
    kind: Literal["categorical"] = "categorical"

    # Not a validator: those run again whenever the feature becomes part of a spec or an encoder.
    def __post_init__(self) -> None:
        if self.vocabulary is not None:
            if self.hash_buckets is not None:
                raise ValueError(
                    f"feature {self.name!r}: give vocabulary or hash_buckets, not both"
                )
            repeated = sorted(v for v, times in Counter(self.vocabulary).items() if times > 1)
            if repeated:
                raise ValueError(f"feature {self.name!r}: the vocabulary repeats {repeated}")
            missing = sorted({"", *self.missing_values} & set(self.vocabulary))
            if missing:
                raise ValueError(
                    f"feature {self.name!r}: {missing} cannot be in the vocabulary, "
                    "they mean a missing value"
                )


@raises_spec_errors
@dataclass(frozen=True, config=STRICT)
class MultiValuedFeature(CategoricalFeature):
    """A column with several categories in each row: a list, or text with a separator.

    Takes all of `CategoricalFeature`, and:

    Args:
        max_length: How many values of a row are read; further ones are cut off. Defaults to 16.
        separator: What separates the values in a text column. Defaults to `"|"`.
        pooling: `"mean"` (default), `"sum"` or `"max"` over the embeddings of a row's values. A row
            without values gets zeros.

    Example:

    >>> MultiValuedFeature("tags", hash_buckets=1000, pooling="sum").max_length
    16
    """

    max_length: Annotated[int, Field(ge=1)] = 16
    separator: Annotated[str, Field(min_length=1)] = "|"
    pooling: Literal["mean", "sum", "max"] = "mean"
    kind: Literal["multivalued"] = "multivalued"  # type: ignore[assignment]


Feature = Annotated[
    NumericFeature | CategoricalFeature | MultiValuedFeature, Field(discriminator="kind")
]
"""Any feature; in YAML, `kind` tells which."""
