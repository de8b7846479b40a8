import dataclasses

import pytest

from mptrec_tf import (
    CategoricalFeature,
    DataSpec,
    FeatureEncoder,
    MultiValuedFeature,
    NumericFeature,
    SpecError,
)
from mptrec_tf.spec import features


def test_defaults_are_the_documented_ones():
    assert dataclasses.asdict(NumericFeature("age")) == {
        "name": "age",
        "encoding": "piecewise_linear",
        "bins": 32,
        "missing": None,
        "kind": "numeric",
    }
    assert dataclasses.asdict(MultiValuedFeature("tags")) == {
        "name": "tags",
        "vocabulary": None,
        "hash_buckets": None,
        "min_count": 1,
        "max_size": None,
        "missing_values": (),
        "embedding_dim": None,
        "quotient_remainder": None,
        "kind": "multivalued",
        "max_length": 16,
        "separator": "|",
        "pooling": "mean",
    }


@pytest.mark.parametrize(
    ("cls", "arguments", "key", "value"),
    [
        (NumericFeature, {"encoding": "log"}, "encoding", "log"),
        (NumericFeature, {"bins": 0}, "bins", "0"),
        (NumericFeature, {"bins": "8"}, "bins", "8"),
        (NumericFeature, {"missing": float("nan")}, "missing", "nan"),
        (NumericFeature, {"missing": -1e39}, "missing", "-1e+39"),
        (NumericFeature, {"bin": 8}, "bin", "no such key"),
        (CategoricalFeature, {"hash_buckets": 0}, "hash_buckets", "0"),
        (CategoricalFeature, {"hash_buckets": 2**31 - 1}, "hash_buckets", "2147483647"),
        (CategoricalFeature, {"min_count": 0}, "min_count", "0"),
        (CategoricalFeature, {"max_size": -1}, "max_size", "-1"),
        (CategoricalFeature, {"embedding_dim": 0}, "embedding_dim", "0"),
        (CategoricalFeature, {"quotient_remainder": 1}, "quotient_remainder", "1"),
        (CategoricalFeature, {"vocabulary": ("a", 1)}, "vocabulary", "1"),
        (CategoricalFeature, {"pooling": "sum"}, "pooling", "no such key"),
        (MultiValuedFeature, {"max_length": 0}, "max_length", "0"),
        (MultiValuedFeature, {"separator": ""}, "separator", "''"),
        (MultiValuedFeature, {"pooling": "last"}, "pooling", "last"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name_and_value(cls, arguments, key, value):
    with pytest.raises(SpecError) as caught:
        cls("column", **arguments)
    assert str(caught.value).startswith(f"{cls.__name__}: {key}")
    assert value in str(caught.value)


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_name_is_a_text_that_is_not_empty(name):
    for make in (NumericFeature, lambda name: NumericFeature(name=name)):
        with pytest.raises(SpecError, match=f"^NumericFeature: name: .*, got {name!r}$"):
            make(name)


def test_a_vocabulary_is_not_hashed_too():
    with pytest.raises(ValueError, match="feature 'city': give vocabulary or hash_buckets"):
        CategoricalFeature("city", vocabulary=("Oslo",), hash_buckets=10)


def test_a_vocabulary_has_no_repetition():
    with pytest.raises(ValueError, match=r"feature 'city': the vocabulary repeats \['Oslo'\]"):
        CategoricalFeature("city", vocabulary=("Oslo", "Rome", "Oslo"))


def test_a_vocabulary_is_checked_once_however_often_the_feature_is_used(monkeypatch):
    feature = CategoricalFeature("city", vocabulary=("Oslo", "Rome"))
    counted = []
    monkeypatch.setattr(features, "Counter", lambda values: counted.append(values) or {})
    spec = DataSpec([feature])
    FeatureEncoder(spec.features).copy()
    assert not counted
    CategoricalFeature("city", vocabulary=("Oslo", "Rome"))
    assert counted


@pytest.mark.parametrize("cls", [CategoricalFeature, MultiValuedFeature])
def test_a_large_vocabulary_is_taken_and_what_it_repeats_is_told(cls):
    values = [f"user {number}" for number in range(200_000)]
    assert cls("user", vocabulary=values).vocabulary == tuple(values)
    repeats = r"feature 'user': the vocabulary repeats \['user 3', 'user 7'\]"
    with pytest.raises(SpecError, match=repeats):
        cls("user", vocabulary=[*values, "user 7", "user 3", "user 7"])


@pytest.mark.parametrize("text", ["", "?"])
def test_a_vocabulary_holds_no_text_for_a_missing_value(text):
    with pytest.raises(ValueError, match="they mean a missing value"):
        CategoricalFeature("city", vocabulary=("Oslo", text), missing_values=("?",))


def test_lists_become_tuples_so_that_a_feature_is_hashable_and_cannot_change():
    feature = CategoricalFeature("city", vocabulary=["Oslo", "Rome"])
    assert feature == CategoricalFeature("city", vocabulary=("Oslo", "Rome"))
    assert len({feature, CategoricalFeature("city", vocabulary=("Oslo", "Rome"))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        feature.name = "town"
