"""From raw columns to the ids and numbers that models read."""

import json
import os
import pathlib
import re
import types
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from mptrec_tf.data.columns import as_floats, as_lists, as_strings
from mptrec_tf.data.readers import Chunk, Source, read_chunks
from mptrec_tf.data.sketches import CategoryCounts, NumberCounts
from mptrec_tf.errors import DataError, ModelError, SpecError
from mptrec_tf.spec import (
    CategoricalFeature,
    DataSpec,
    Feature,
    MultiValuedFeature,
    NumericFeature,
    Task,
)
from mptrec_tf.spec.given import given_features
from mptrec_tf.spec.parsing import dump, parse

VOCABULARIES = "vocabularies.json"
MISSING_ID, UNKNOWN_ID, FIRST_ID = 0, 1, 2

TRUTH_VALUES = (("0", "1"), ("False", "True"), ("false", "true"), ("FALSE", "TRUE"))
"""How truth values are spelled: as numbers from frames and Parquet files, in CSV files as words."""

Encoded = dict[str, Any]
"""`"numeric"` float32 (B, N), `"categorical"` int32 (B, C), `"multivalued"` int32 (B, L)."""


@keras.saving.register_keras_serializable("mptrec_tf")
class FeatureEncoder(keras.layers.Layer):
    """Turns raw columns into three tensors: numbers, category ids, ids of multi-valued columns.

    Learns vocabularies and bins in one pass over training data of any size (`adapt`), on training
    data alone. A category that was not seen then becomes the unknown id, never an error. It works
    in front of a model, in `tf.data`, and inside an exported graph.

    `to_json` holds all of an encoder. `get_config` leaves the learned vocabularies to the assets of
    a model file: an encoder of a configuration alone knows how many ids there are, and encodes only
    what needs no learned vocabulary.

    Args:
        features: The features, as `DataSpec.features` holds them.
        numeric_state: Bin edges (piecewise-linear) or `[mean, standard deviation]` by column, as
            `get_config` gives it. Defaults to `None`: learned by `adapt`.
        vocabulary_sizes: Ids by column, as `get_config` gives it. Defaults to `None`.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Input: a dict of tensors by column name: float (B,) for numeric features, string, integer or
    bool (B,) for categorical ones, string `RaggedTensor` (B, None) or dense (B, n), padded with
    `""`, for multi-valued ones.

    Output: a dict with those of these keys for which there are features:

    - `"numeric"`: float32 (B, N), a column for each numeric feature;
    - `"categorical"`: int32 (B, C), a column for each categorical feature, 0 missing, 1 unknown;
    - `"multivalued"`: int32 (B, L), `max_length` columns for each multi-valued feature, padded
      with 0.

    Example:

    >>> encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")])
    >>> encoder = encoder.adapt({"age": [31, 45], "city": ["Oslo", "Rome"]})
    >>> encoder({"age": tf.constant([40.0]), "city": tf.constant(["Paris"])})["categorical"].numpy()
    array([[1]], dtype=int32)
    """

    def __init__(
        self,
        features: Sequence[Feature],
        numeric_state: Mapping[str, list[float]] | None = None,
        vocabulary_sizes: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs = {"trainable": False, "autocast": False, **kwargs}
        super().__init__(**kwargs)
        self.features = DataSpec(given_features(features)).features
        self._numeric_state = {k: list(v) for k, v in (numeric_state or {}).items()}
        self._sizes = dict(vocabulary_sizes or {})
        # A mapping that Keras does not track: tracking goes through all entries of all lists.
        self._vocabularies: Mapping[str, list[str]] = types.MappingProxyType({})
        self._tables: dict[str, tf.lookup.StaticHashTable] = {}
        self._adaptable = True
        self.built = True
        if vocabulary_sizes is not None:
            self._set_vocabularies({})
        elif numeric_state is None and not any(map(_must_adapt, self.features)):
            self._set_state({}, {})

    @property
    def numeric_features(self) -> list[NumericFeature]:
        """The numeric features, in the order of the columns of `"numeric"`."""
        return [f for f in self.features if isinstance(f, NumericFeature)]

    @property
    def categorical_features(self) -> list[CategoricalFeature]:
        """The features with one category a row, in the order of the columns of `"categorical"`."""
        return [f for f in self.features if type(f) is CategoricalFeature]

    @property
    def multivalued_features(self) -> list[MultiValuedFeature]:
        """The multi-valued features, in the order of their parts of `"multivalued"`."""
        return [f for f in self.features if isinstance(f, MultiValuedFeature)]

    @property
    def is_adapted(self) -> bool:
        """Whether every vocabulary and every bin is known."""
        return all(
            feature.name in (self._numeric_state if _is_numeric(feature) else self._sizes)
            for feature in self.features
        )

    @property
    def numeric_state(self) -> dict[str, list[float]]:
        """Bin edges, or mean and standard deviation, by numeric column."""
        self._require_adapted()
        return self._numeric_state

    @property
    def tables(self) -> dict[str, tf.lookup.StaticHashTable]:
        """The lookup tables that `call` uses, by column, for what must track them at export."""
        return self._tables

    def vocabulary_size(self, name: str) -> int:
        """How many ids a categorical column has, the missing and the unknown one included."""
        self._require_adapted()
        return self._sizes[name]

    def vocabulary(self, name: str) -> list[str]:
        """The known categories of a column; the first has the id 2. Empty for a hashed column.

        Raises:
            ModelError: If the encoder was made from a configuration, which does not hold them.
        """
        self._require_adapted()
        self._require_vocabularies([name])
        return self._vocabularies.get(name, [])

    def adapt(self, source: Source, progress: bool = False) -> "FeatureEncoder":
        """Learns vocabularies and bins in one pass.

        Args:
            source: Training data, and only those: a frame, a dict of columns, or files.
            progress: Whether to show a progress bar. Defaults to `False`.

        Returns:
            This encoder.

        Raises:
            DataError: If a column is missing or holds values of another type.
            ModelError: If this is the encoder of a model, whose tables belong to its ids.
        """
        self._require_adaptable()
        sketches = EncodingSketches(self.features)
        label = "learning the encoding" if progress else None
        for chunk in read_chunks(source, self.features, progress=label):
            sketches.update(chunk)
        return self.take(sketches)

    def take(self, sketches: "EncodingSketches") -> "FeatureEncoder":
        """Takes the encoding from counts that were made elsewhere, such as in a Beam pipeline.

        Args:
            sketches: Counts of the columns of these features.

        Returns:
            This encoder.

        Raises:
            ModelError: If this is the encoder of a model.
        """
        self._require_adaptable()
        numeric_state = {}
        for feature in self.numeric_features:
            counts = sketches.numbers[feature.name]
            numeric_state[feature.name] = (
                counts.boundaries(feature.bins)
                if feature.encoding == "piecewise_linear"
                else list(counts.mean_and_deviation())
            )
        learned = {
            f.name: sketches.categories[f.name].vocabulary(
                f.min_count, f.max_size, f.missing_values
            )
            for f in self.features
            if isinstance(f, CategoricalFeature) and f.name in sketches.categories
        }
        self._set_state(numeric_state, learned)
        for name, vocabulary in learned.items():
            _warn_of_decimals(name, vocabulary)
        return self

    def copy(self, adaptable: bool = True) -> "FeatureEncoder":
        """An encoder that encodes alike and keeps doing so when this one is adapted again.

        What both know is shared, so it costs nothing, however large the vocabularies are.

        Args:
            adaptable: Whether the copy may be adapted, which that of a model may not. Defaults to
                `True`.

        Example:

        >>> encoder = FeatureEncoder([CategoricalFeature("city")]).adapt({"city": ["Oslo"]})
        >>> twin = encoder.copy()
        >>> encoder.adapt({"city": ["Rome"]}).vocabulary("city"), twin.vocabulary("city")
        (['Rome'], ['Oslo'])
        """
        twin = FeatureEncoder(self.features, numeric_state={}, **super().get_config())
        twin._numeric_state, twin._sizes = dict(self._numeric_state), dict(self._sizes)
        twin._vocabularies, twin._tables = self._vocabularies, dict(self._tables)
        twin._adaptable = adaptable
        return twin

    @property
    def output_names(self) -> tuple[str, ...]:
        """The keys of what the encoder gives."""
        parts = {
            "numeric": self.numeric_features,
            "categorical": self.categorical_features,
            "multivalued": self.multivalued_features,
        }
        return tuple(name for name, features in parts.items() if features)

    def differences(self, other: "FeatureEncoder") -> list[str]:
        """Names of the features that another encoder encodes otherwise; all, if in another order.

        Encoders that were copied, or adapted to the same rows, have none. Bins and widths of
        embeddings are a model's: the encoder gives numbers as they are, and ids.

        Args:
            other: The other encoder.

        Example:

        >>> oslo = FeatureEncoder([CategoricalFeature("city")]).adapt({"city": ["Oslo"]})
        >>> rome = FeatureEncoder([CategoricalFeature("city")]).adapt({"city": ["Rome"]})
        >>> oslo.differences(rome), oslo.differences(oslo.copy())
        (['city'], [])
        """
        names = [feature.name for feature in self.features]
        if names != [feature.name for feature in other.features]:
            return names
        return [
            mine.name
            for mine, theirs in zip(self.features, other.features, strict=True)
            if _rules_of(mine) != _rules_of(theirs) or not self._agrees(other, mine.name)
        ]

    def _agrees(self, other: "FeatureEncoder", name: str) -> bool:
        """Whether the ids of a feature are the same, as far as both know them."""
        vocabularies = self._vocabularies.get(name), other._vocabularies.get(name)
        same = None in vocabularies or vocabularies[0] == vocabularies[1]
        return same and self._sizes.get(name) == other._sizes.get(name)

    def to_json(self) -> str:
        """The encoding as text: equal texts mean equal encodings."""
        self._require_adapted()
        self._require_vocabularies()
        return json.dumps(
            {
                "features": [dump(feature) for feature in self.features],
                "numeric_state": self._numeric_state,
                "vocabularies": dict(self._vocabularies),
            },
            ensure_ascii=False,
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> "FeatureEncoder":
        """The inverse of `to_json`."""
        state = json.loads(text)
        spec = parse(DataSpec, {"features": state["features"]}, "the encoding")
        encoder = cls(spec.features, numeric_state={})
        encoder._set_state(state["numeric_state"], state["vocabularies"])
        return encoder

    def _set_state(
        self, numeric_state: dict[str, list[float]], learned: Mapping[str, list[str]]
    ) -> None:
        self._numeric_state = numeric_state
        self._sizes = {
            f.name: f.hash_buckets + 1
            for f in self.features
            if isinstance(f, CategoricalFeature) and f.hash_buckets is not None
        }
        unseen: dict[str, list[str]] = {
            f.name: [] for f in filter(_learns_vocabulary, self.features)
        }
        self._set_vocabularies({**unseen, **learned})

    def _set_vocabularies(self, learned: Mapping[str, list[str]]) -> None:
        """Takes the vocabularies that are learned or fixed; leaves the sizes of the others."""
        vocabularies, tables = {}, {}
        for feature in filter(_looks_up, self.features):
            name = feature.name
            if feature.vocabulary is None and name not in learned:
                continue
            vocabulary = learned.get(name, list(feature.vocabulary or ()))
            vocabularies[name] = vocabulary
            known = self._tables.get(name)
            if known is None or self._vocabularies[name] != vocabulary:
                known = _lookup_table(vocabulary, feature.missing_values)
            tables[name] = known
        sizes = {name: len(vocabulary) + FIRST_ID for name, vocabulary in vocabularies.items()}
        self._vocabularies = types.MappingProxyType(vocabularies)
        self._sizes, self._tables = {**self._sizes, **sizes}, tables

    def call(self, inputs: Mapping[str, Any]) -> Encoded:
        """Encodes a batch of raw columns inside a graph; see the class for the shapes."""
        self._require_adapted()
        missing = [f.name for f in self.features if f.name not in inputs]
        if missing:
            raise DataError(f"the input lacks {missing}; it has {sorted(inputs)}")
        outputs: Encoded = {}
        if self.numeric_features:
            outputs["numeric"] = tf.stack(
                [_fill(f, tf.cast(inputs[f.name], tf.float32)) for f in self.numeric_features], -1
            )
        if self.categorical_features:
            ids = [self._ids(f, inputs[f.name]) for f in self.categorical_features]
            outputs["categorical"] = tf.cast(tf.stack(ids, -1), tf.int32)
        if self.multivalued_features:
            outputs["multivalued"] = tf.concat(
                [self._padded_ids(f, inputs[f.name]) for f in self.multivalued_features], -1
            )
        return outputs

    def encode_chunk(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Encodes rows that were read from a source; see the class for the shapes.

        The result equals `call`'s. Each different text of a column is looked up once.

        Args:
            chunk: Rows with a column for each feature.

        Raises:
            DataError: If a value does not fit its feature, or a number is missing where the feature
                defines no stand-in.
        """
        self._require_adapted()
        rows, outputs = chunk.table.num_rows, {}
        if self.numeric_features:
            outputs["numeric"] = np.stack(
                [numbers_of(f, chunk) for f in self.numeric_features], axis=-1
            ).astype(np.float32)
        if self.categorical_features:
            outputs["categorical"] = np.stack(
                [self._ids_of_texts(f, texts_of(f, chunk)) for f in self.categorical_features], -1
            )
        if self.multivalued_features:
            parts = []
            for feature in self.multivalued_features:
                lists = lists_of(feature, chunk)
                ids = self._ids_of_texts(feature, lists.flatten())
                part = np.full((rows, feature.max_length), MISSING_ID, np.int32)
                lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
                row = np.repeat(np.arange(rows), lengths)
                position = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                kept = position < feature.max_length
                part[row[kept], position[kept]] = ids[kept]
                parts.append(part)
            outputs["multivalued"] = np.concatenate(parts, axis=-1)
        return outputs

    def encode(self, source: Source) -> dict[str, np.ndarray]:
        """Encodes all rows of a source into memory.

        Args:
            source: A frame, a dict of columns, or files.

        Returns:
            Arrays as a model's `predict` takes them.

        Raises:
            DataError: If the data do not fit the features.
        """
        chunks = [self.encode_chunk(c) for c in read_chunks(source, self.features)]
        return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}

    def _ids_of_texts(self, feature: CategoricalFeature, texts: pa.Array) -> np.ndarray:
        encoded = texts.fill_null("").dictionary_encode()
        distinct = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
        ids = self._ids(feature, tf.constant(distinct, tf.string)).numpy().astype(np.int32)
        return ids[encoded.indices.to_numpy(zero_copy_only=False)]

    def _ids(self, feature: CategoricalFeature, values: Any) -> Any:
        values = tf.convert_to_tensor(values)
        if values.dtype.is_bool:
            values = tf.cast(values, tf.int32)
        if values.dtype.is_integer:
            values = tf.strings.as_string(values)
        if feature.hash_buckets is None:
            self._require_vocabularies([feature.name])
            return self._tables[feature.name].lookup(values)
        ids = tf.strings.to_hash_bucket_fast(values, feature.hash_buckets) + 1
        missing = tf.equal(values, "")
        for text in feature.missing_values:
            missing |= tf.equal(values, text)
        return tf.where(missing, tf.constant(MISSING_ID, ids.dtype), ids)

    def _padded_ids(self, feature: MultiValuedFeature, values: Any) -> Any:
        if isinstance(values, tf.SparseTensor):
            values = tf.RaggedTensor.from_sparse(values)
        if isinstance(values, tf.RaggedTensor):
            values = values.to_tensor("", shape=(None, feature.max_length))
        values = tf.convert_to_tensor(values)[:, : feature.max_length]
        ids = tf.cast(self._ids(feature, values), tf.int32)
        ids = tf.pad(ids, [[0, 0], [0, feature.max_length - tf.shape(ids)[1]]])
        return tf.ensure_shape(ids, (None, feature.max_length))

    def _require_adaptable(self) -> None:
        if not self._adaptable:
            raise ModelError(
                "this encoder belongs to a model, which was made for its ids and bins; adapt "
                "another one, FeatureEncoder(encoder.features), for another model"
            )

    def _require_adapted(self) -> None:
        if not self.is_adapted:
            raise ModelError("the encoder has not learned its encoding yet; call adapt(data) first")

    def _require_vocabularies(self, names: Sequence[str] | None = None) -> None:
        for feature in filter(_looks_up, self.features):
            if feature.name not in self._tables and (names is None or feature.name in names):
                raise ModelError(
                    f"the vocabulary of {feature.name!r} is not loaded: a configuration holds none "
                    "that was learned; load the model file, or use FeatureEncoder.from_json"
                )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "features": [dump(feature) for feature in self.features],
            "numeric_state": self._numeric_state if self.is_adapted else None,
            "vocabulary_sizes": self._sizes if self.is_adapted else None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureEncoder":
        config = dict(config)
        spec = parse(DataSpec, {"features": config.pop("features")}, "the encoder's configuration")
        return cls(spec.features, **config)

    def save_assets(self, directory: str) -> None:
        """Writes the vocabularies; called by Keras when a model is saved.

        Raises:
            ModelError: If the encoder was made from a configuration, which does not hold them.
        """
        if self.is_adapted:
            self._require_vocabularies()
        text = json.dumps(dict(self._vocabularies), ensure_ascii=False)
        pathlib.Path(directory, VOCABULARIES).write_text(text, encoding="utf-8")

    def load_assets(self, directory: str | os.PathLike[str]) -> None:
        """Reads the vocabularies; called by Keras when a model is loaded."""
        text = pathlib.Path(directory, VOCABULARIES).read_text(encoding="utf-8")
        vocabularies = json.loads(text)
        missing = {f.name for f in filter(_looks_up, self.features)} - vocabularies.keys()
        if missing:
            raise ModelError(f"the file lacks the vocabularies of {sorted(missing)}")
        for name, vocabulary in vocabularies.items():
            if self._sizes.get(name) != len(vocabulary) + FIRST_ID:
                raise ModelError(
                    f"the vocabulary of {name!r} has {len(vocabulary)} entries, but the model's "
                    f"configuration says {self._sizes.get(name, FIRST_ID) - FIRST_ID}"
                )
        self._set_state(self._numeric_state, vocabularies)


class EncodingSketches:
    """What one pass over rows learns about all columns; mergeable, independent of order.

    Args:
        features: The features.

    Attributes:
        numbers: `NumberCounts` by numeric column.
        categories: `CategoryCounts` by categorical column whose vocabulary is learned.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)
        self.numbers = {f.name: NumberCounts() for f in self._features if _is_numeric(f)}
        self.categories = {
            f.name: CategoryCounts() for f in self._features if _learns_vocabulary(f)
        }

    def update(self, chunk: Chunk) -> None:
        """Counts rows.

        Raises:
            DataError: If a value does not fit its feature.
        """
        for feature in self._features:
            if isinstance(feature, NumericFeature):
                self.numbers[feature.name].update(numbers_of(feature, chunk))
            elif feature.name in self.categories:
                self.categories[feature.name].update(texts_of(feature, chunk))

    def merge(self, other: "EncodingSketches") -> None:
        """Adds what another worker counted."""
        for name, numbers in self.numbers.items():
            numbers.merge(other.numbers[name])
        for name, categories in self.categories.items():
            categories.merge(other.categories[name])


def check_same_features(encoder: FeatureEncoder, spec: DataSpec, where: str) -> None:
    """Refuses a model whose features are not those of a spec.

    Args:
        encoder: The model's encoder.
        spec: The spec.
        where: What to call the model in an error, such as its file.

    Raises:
        SpecError: Lists the features that only one side has, or that both define differently.

    Example:

    >>> encoder = FeatureEncoder([NumericFeature("age")])
    >>> check_same_features(encoder, DataSpec([NumericFeature("age")]), "model.keras")
    >>> check_same_features(encoder, DataSpec([NumericFeature("price")]), "model.keras")
    Traceback (most recent call last):
    mptrec_tf.errors.SpecError: model.keras was made from another spec: 'age' is only in ...
    """
    theirs = {f.name: f for f in encoder.features}
    ours = {f.name: f for f in spec.features}
    differences = [f"{name!r} is only in the spec" for name in ours.keys() - theirs.keys()]
    differences += [f"{name!r} is only in the model" for name in theirs.keys() - ours.keys()]
    differences += [
        f"{name!r} is {dump(theirs[name])} in the model and {dump(ours[name])} in the spec"
        for name in ours.keys() & theirs.keys()
        if ours[name] != theirs[name]
    ]
    if differences:
        raise SpecError(f"{where} was made from another spec: " + "; ".join(sorted(differences)))


def check_same_tasks(tasks: Iterable[Task], spec: DataSpec, where: str) -> None:
    """Refuses a model of which a task is defined otherwise than in a spec.

    Args:
        tasks: The model's tasks; those that the spec lacks pass.
        spec: The spec.
        where: What to call the model in an error, such as its file.

    Raises:
        SpecError: Names the task and how each side defines it.

    Example:

    >>> spec = DataSpec([NumericFeature("age")], [Task("buy", "paid")])
    >>> check_same_tasks([Task("buy", "bought")], spec, "model.keras")
    Traceback (most recent call last):
    mptrec_tf.errors.SpecError: model.keras was made from another spec: the task 'buy' is ...
    """
    ours = {task.name: task for task in spec.tasks}
    for task in tasks:
        if ours.get(task.name, task) != task:
            raise SpecError(
                f"{where} was made from another spec: the task {task.name!r} is {dump(task)} in "
                f"the model and {dump(ours[task.name])} in the spec"
            )


def _rules_of(feature: Feature) -> list[Any]:
    """What of a feature decides how it is encoded, beside what is learned."""
    names = ("kind", "missing", "hash_buckets", "missing_values", "max_length", "separator")
    return [getattr(feature, name, None) for name in names]


def _warn_of_decimals(name: str, vocabulary: Sequence[str]) -> None:
    """Tells of whole numbers that a file spells as pandas does where some cells are empty."""
    common = vocabulary[:1000]
    if len(common) >= 20 and all(re.fullmatch(r"-?\d+\.0", text) for text in common):
        whole = common[0].removesuffix(".0")
        warnings.warn(
            f"the categories of {name!r} are {common[0]!r} and others that end in '.0', as pandas "
            f"writes whole numbers where cells are empty. The numbers in a frame give {whole!r}, "
            "which is another category: write the column as whole numbers, such as pandas' Int64",
            stacklevel=3,
        )


def _is_numeric(feature: Feature) -> bool:
    return isinstance(feature, NumericFeature)


def _learns_vocabulary(feature: Feature) -> bool:
    return _looks_up(feature) and feature.vocabulary is None


def _looks_up(feature: Feature) -> TypeGuard[CategoricalFeature]:
    return isinstance(feature, CategoricalFeature) and feature.hash_buckets is None


def _must_adapt(feature: Feature) -> bool:
    return _is_numeric(feature) or _learns_vocabulary(feature)


def _lookup_table(
    vocabulary: list[str], missing_values: Sequence[str]
) -> tf.lookup.StaticHashTable:
    missing = sorted({"", *missing_values})  # none of them is ever in a vocabulary
    others = {t: i for t, i in other_spellings(vocabulary).items() if t not in missing}
    keys = tf.constant([*missing, *others, *vocabulary], tf.string)
    known = range(FIRST_ID, FIRST_ID + len(vocabulary))
    ids = [*[MISSING_ID] * len(missing), *others.values(), *known]
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(keys, tf.constant(ids, tf.int64)), UNKNOWN_ID
    )


def other_spellings(vocabulary: list[str]) -> dict[str, int]:
    """Ids of further texts, where a vocabulary holds truth values: their other spellings."""
    for spelling in TRUTH_VALUES:
        if vocabulary and len(vocabulary) <= 2 and set(vocabulary) <= set(spelling):
            return {
                other[spelling.index(text)]: FIRST_ID + place
                for place, text in enumerate(vocabulary)
                for other in TRUTH_VALUES
                if other != spelling
            }
    return {}


def _fill(feature: NumericFeature, values: Any) -> Any:
    if feature.missing is None:
        return values
    return tf.where(tf.math.is_nan(values), tf.constant(feature.missing, tf.float32), values)


def numbers_of(feature: NumericFeature, chunk: Chunk) -> np.ndarray:
    """A numeric column of some rows, its stand-in where a number is missing.

    Raises:
        DataError: If a value is no finite number, or missing where there is no stand-in.
    """
    values = given_numbers(feature, chunk)
    if feature.missing is None:
        return values
    return np.where(np.isnan(values), feature.missing, values)


def given_numbers(feature: NumericFeature, chunk: Chunk) -> np.ndarray:
    """A numeric column of some rows, NaN where a number is missing.

    Raises:
        DataError: If a value is no finite number, or missing where there is no stand-in.
    """
    values = as_floats(chunk.table[feature.name], feature.name, chunk.where)
    missing = np.isnan(values)
    if feature.missing is None and missing.any():
        raise DataError(
            f"{chunk.where}: column {feature.name!r} has {missing.sum()} empty or NaN cells; "
            "fill them, or give the feature a value for `missing`"
        )
    wrong = ~(missing | np.isfinite(values.astype(np.float32)))
    if wrong.any():
        raise DataError(f"{chunk.where}: column {feature.name!r} has the value {values[wrong][0]}")
    return values


def texts_of(feature: CategoricalFeature, chunk: Chunk) -> pa.Array:
    """A categorical column of some rows as text; of a multi-valued one, all its values.

    Raises:
        DataError: If the column does not hold categories.
    """
    if isinstance(feature, MultiValuedFeature):
        return lists_of(feature, chunk).flatten()
    return as_strings(chunk.table[feature.name], feature.name, chunk.where)


def lists_of(feature: MultiValuedFeature, chunk: Chunk) -> pa.ListArray:
    """A multi-valued column of some rows as lists of text.

    Raises:
        DataError: If the column does not hold categories.
    """
    return as_lists(chunk.table[feature.name], feature.name, feature.separator, chunk.where)
