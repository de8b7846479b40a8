import warnings

import hypothesis
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from mptrec_tf import (
    CategoricalFeature,
    DataError,
    DataSpec,
    FeatureEncoder,
    ModelError,
    MultiValuedFeature,
    NumericFeature,
    SpecError,
    Task,
    make_dataset,
)
from mptrec_tf.data import Chunk, check_same_features, check_same_tasks, encode_rows, readers

TRAIN = {
    "age": [30.0, 10.0, 20.0, 20.0],
    "gain": [0.0, 0.0, 0.0, 8.0],
    "city": ["Rome", "Oslo", "Rome", "Bonn"],
    "sex": ["f", "m", "?", "f"],
    "zip": [7, 8, 7, 9],
    "tags": ["a|b", "b", "", "c|b"],
    "words": [["x"], ["y", "x"], [], ["z"]],
}
FEATURES = [
    CategoricalFeature("city"),
    NumericFeature("age", missing=-1.0),
    MultiValuedFeature("tags", max_length=3),
    CategoricalFeature("sex", vocabulary=("m", "f"), missing_values=("?",)),
    NumericFeature("gain", encoding="standardize"),
    CategoricalFeature("zip"),
    MultiValuedFeature("words", max_length=2, vocabulary=("z", "y", "x")),
]


@pytest.fixture
def encoder():
    return FeatureEncoder(FEATURES).adapt(TRAIN)


def ids(feature, values, train=None):
    """The ids of one column."""
    encoder = FeatureEncoder([feature])
    if train is not None:
        encoder.adapt({feature.name: train})
    return encoder.encode({feature.name: values})["categorical"][:, 0].tolist()


def test_adapt_learns_vocabularies_by_frequency_and_bins(encoder):
    assert encoder.vocabulary("city") == ["Rome", "Bonn", "Oslo"]
    assert encoder.vocabulary("sex") == ["m", "f"]
    assert encoder.vocabulary("zip") == ["7", "8", "9"]
    assert encoder.vocabulary("tags") == ["b", "a", "c"]
    assert encoder.vocabulary_size("city") == 5
    assert encoder.numeric_state == {"age": [10, 20, 30], "gain": [2, np.std([0, 0, 0, 8])]}


def test_encode_gives_columns_in_the_order_of_the_features(encoder):
    encoded = encoder.encode(TRAIN)
    assert {key: array.dtype for key, array in encoded.items()} == {
        "numeric": np.float32,
        "categorical": np.int32,
        "multivalued": np.int32,
    }
    np.testing.assert_array_equal(encoded["numeric"], [[30, 0], [10, 0], [20, 0], [20, 8]])
    np.testing.assert_array_equal(
        encoded["categorical"], [[2, 3, 2], [4, 2, 3], [2, 0, 2], [3, 3, 4]]
    )
    np.testing.assert_array_equal(
        encoded["multivalued"],
        [[3, 2, 0, 4, 0], [2, 0, 0, 3, 4], [0, 0, 0, 0, 0], [4, 2, 0, 2, 0]],
    )


@pytest.mark.parametrize(
    ("feature", "values", "train", "expected"),
    [
        (CategoricalFeature("c"), ["b", "z", None, ""], ["a", "b", "b"], [2, 1, 0, 0]),
        (CategoricalFeature("c", min_count=2), ["a", "b"], ["a", "b", "b"], [1, 2]),
        (CategoricalFeature("c", max_size=1), ["a", "b"], ["a", "b", "b"], [1, 2]),
        (
            CategoricalFeature("c", missing_values=("?", "NA")),
            ["?", "NA", "a"],
            ["?", "?", "a"],
            [0, 0, 2],
        ),
        (CategoricalFeature("c", vocabulary=("b", "a")), ["a", "b", "c"], None, [3, 2, 1]),
        (CategoricalFeature("c", vocabulary=()), ["a", None], None, [1, 0]),
        (CategoricalFeature("c"), [3.0, 4.0, np.nan], [3, 3, 4], [2, 3, 0]),
        (CategoricalFeature("c"), [True, False], [1, 1, 0], [2, 3]),
        (CategoricalFeature("c"), ["a"], [None, None], [1]),
    ],
)
def test_ids_are_0_for_missing_1_for_unknown_and_2_up_for_the_vocabulary(
    feature, values, train, expected
):
    assert ids(feature, values, train) == expected


TRUTHS = [[False, True], ["0", "1"], ["False", "True"], ["false", "true"], ["FALSE", "TRUE"]]


@pytest.mark.parametrize("train", TRUTHS, ids=repr)
@pytest.mark.parametrize("values", TRUTHS, ids=repr)
def test_truth_values_have_one_id_however_they_are_spelled(values, train):
    learned = CategoricalFeature("c")
    assert ids(learned, values, [*train, train[1]]) == [3, 2]
    assert ids(learned, values, train[1:]) == [1, 2]
    graph = FeatureEncoder([learned]).adapt({"c": train[1:]})({"c": tf.constant(values)})
    np.testing.assert_array_equal(graph["categorical"], [[1], [2]])


@pytest.mark.parametrize("vocabulary", [("0", "1", "2"), ("1", "True"), ("no", "yes"), ("tRUE",)])
def test_other_categories_have_no_other_spelling(vocabulary):
    values = {text for spelling in TRUTHS[1:] for text in spelling} - set(vocabulary)
    assert ids(CategoricalFeature("c", vocabulary=vocabulary), sorted(values)) == [1] * len(values)


def test_a_spelling_that_means_a_missing_value_does_so():
    feature = CategoricalFeature("c", vocabulary=("0", "1"), missing_values=("False",))
    assert ids(feature, ["False", "false", "True"]) == [0, 2, 3]


def test_truth_values_of_a_frame_keep_their_ids_in_a_csv_of_it(tmp_path):
    frame = pd.DataFrame({"flag": [True, False, True]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    encoder = FeatureEncoder([CategoricalFeature("flag")]).adapt(frame)
    assert encoder.vocabulary("flag") == ["1", "0"]
    for source in (frame, tmp_path / "rows.csv", tmp_path / "rows.parquet"):
        assert encoder.encode(source)["categorical"].tolist() == [[2], [3], [2]]


def test_hashed_ids_are_0_for_missing_and_else_stable_buckets():
    feature = CategoricalFeature("c", hash_buckets=5, missing_values=("?",))
    words = [f"word {i}" for i in range(200)]
    buckets = ids(feature, words)
    assert set(buckets) == {1, 2, 3, 4, 5}
    assert ids(feature, [*words[::-1], None, "", "?"]) == [*buckets[::-1], 0, 0, 0]
    encoder = FeatureEncoder([feature])
    assert (encoder.vocabulary_size("c"), encoder.vocabulary("c")) == (6, [])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a|b|c|d", "d|a", "", None], [[2, 3, 4], [1, 2, 0], [0, 0, 0], [0, 0, 0]]),
        ([["a", "b", "c", "a"], [None, "b"], [], None], [[2, 3, 4], [0, 3, 0], *2 * [[0, 0, 0]]]),
        (np.array([["a", ""], ["c", "b"]]), [[2, 0, 0], [4, 3, 0]]),
    ],
)
def test_multivalued_rows_are_cut_off_and_padded(values, expected):
    encoder = FeatureEncoder([MultiValuedFeature("m", vocabulary=("a", "b", "c"), max_length=3)])
    np.testing.assert_array_equal(encoder.encode({"m": values})["multivalued"], expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, None], "column 'age' has 1 empty or NaN cells; fill them, or give .* `missing`"),
        ([np.nan, np.nan], "column 'age' has 2 empty or NaN cells"),
        (["1", "", "2"], "column 'age' has 1 empty"),
        (["1", "old"], "column 'age' should hold numbers, but has 'old'"),
        ([1.0, np.inf], "column 'age' has the value inf"),
        (["-inf"], "column 'age' has the value -inf"),
        pytest.param(
            [1e39],
            "column 'age' has the value 1e.39",
            marks=pytest.mark.filterwarnings("ignore:overflow"),
        ),
    ],
)
def test_a_numeric_cell_that_is_no_number_is_refused(values, message):
    encoder = FeatureEncoder([NumericFeature("age")])
    for use in (encoder.adapt, FeatureEncoder([NumericFeature("age")], {"age": [0, 1]}).encode):
        with pytest.raises(DataError, match=f"the data: {message}"):
            use({"age": values})


def test_a_missing_number_becomes_the_stand_in():
    encoder = FeatureEncoder([NumericFeature("age", missing=-1.0)]).adapt({"age": [None, 3.0]})
    assert encoder.numeric_state == {"age": [-1, 3]}
    np.testing.assert_array_equal(encoder.encode({"age": ["", "5"]})["numeric"], [[-1], [5]])
    np.testing.assert_array_equal(encoder({"age": tf.constant([np.nan])})["numeric"], [[-1]])


def test_a_missing_column_is_named():
    encoder = FeatureEncoder([CategoricalFeature("city")]).adapt(TRAIN)
    with pytest.raises(DataError, match=r"no column 'city' \(did you mean 'City'\?\)"):
        encoder.encode({"City": ["Rome"]})
    with pytest.raises(DataError, match=r"the input lacks \['city'\]; it has \['City'\]"):
        encoder({"City": tf.constant(["Rome"])})


def test_before_adapt_nothing_can_be_encoded():
    encoder = FeatureEncoder(FEATURES)
    assert not encoder.is_adapted
    for use in (
        lambda: encoder.encode(TRAIN),
        lambda: encoder({"city": tf.constant(["Rome"])}),
        lambda: encoder.vocabulary("city"),
        lambda: encoder.vocabulary_size("city"),
        lambda: encoder.numeric_state,
    ):
        with pytest.raises(ModelError, match=r"call adapt\(data\) first"):
            use()


@pytest.mark.parametrize("chunk_rows", [1, 3])
def test_adapt_in_chunks_equals_adapt_at_once(monkeypatch, encoder, chunk_rows):
    monkeypatch.setattr(readers, "CHUNK_ROWS", chunk_rows)
    chunked = FeatureEncoder(FEATURES).adapt(pd.DataFrame(TRAIN))
    assert chunked.get_config() | {"name": ""} == encoder.get_config() | {"name": ""}
    for feature in ("city", "sex", "zip", "tags", "words"):
        assert chunked.vocabulary(feature) == encoder.vocabulary(feature)
    encoded = chunked.encode(TRAIN)
    for key, array in encoder.encode(TRAIN).items():
        np.testing.assert_array_equal(encoded[key], array)


def test_adapt_again_forgets_what_was_learned_before(encoder):
    again = encoder.adapt(TRAIN | {"city": ["Nice"] * 4, "age": [1.0] * 4})
    assert again.vocabulary("city") == ["Nice"]
    assert again.numeric_state["age"] == [1, 2]
    assert again({k: _tensor(v) for k, v in TRAIN.items()})["categorical"][0, 0] == 1


def _tensor(values):
    if isinstance(values[0], list):
        return tf.ragged.constant(values, dtype=tf.string)
    if isinstance(values[0], str) and any("|" in value for value in values):
        return tf.strings.split(values, "|")
    return tf.constant(values)


def test_call_accepts_ragged_sparse_and_dense_lists_and_integers(encoder):
    expected = encoder.encode(TRAIN)
    inputs = {name: _tensor(values) for name, values in TRAIN.items()}
    for words in (
        inputs["words"],
        inputs["words"].to_sparse(),
        inputs["words"].to_tensor(""),
        tf.constant([["x", "", ""], ["y", "x", "q"], ["", "", ""], ["z", "", ""]]),
    ):
        encoded = encoder(inputs | {"words": words})
        for key, array in expected.items():
            np.testing.assert_array_equal(encoded[key], array)


def test_call_works_within_tf_data_and_a_graph_of_any_batch_size(encoder):
    inputs = {name: _tensor(values) for name, values in TRAIN.items()}
    encoded = encoder.encode(TRAIN)
    dataset = tf.data.Dataset.from_tensor_slices(inputs).batch(3).map(encoder)
    for start, batch in zip((0, 3), dataset, strict=True):
        for key, array in batch.items():
            np.testing.assert_array_equal(array, encoded[key][start : start + 3])
            assert dataset.element_spec[key].shape[1:] == array.shape[1:]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(
    ["a", "b", "?", " ", "\n", "\r\n", "\0", "a\0", "\u2028", "é", "e\u0301", "💡", "", "0", "-1"]
)
LISTS = st.lists(TEXTS, max_size=5)


@st.composite
def features_and_rows(draw):
    """A few features of every kind, training rows and other rows for them."""
    features, kinds = [], draw(st.lists(st.sampled_from("nsvhmM"), min_size=1, max_size=4))
    train_size, size = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    train, rows = {}, {}
    for index, kind in enumerate(kinds):
        name, values = f"column {index}", LISTS if kind in "mM" else TEXTS
        if kind == "n":
            encoding = draw(st.sampled_from(["piecewise_linear", "standardize"]))
            features.append(
                NumericFeature(name, encoding, bins=draw(st.integers(1, 3)), missing=0.5)
            )
            values = st.floats(-1e6, 1e6) | st.just(float("nan"))
        elif kind in "sm":
            cls = CategoricalFeature if kind == "s" else MultiValuedFeature
            features.append(
                cls(
                    name,
                    min_count=draw(st.integers(1, 2)),
                    max_size=draw(st.none() | st.integers(1, 3)),
                    missing_values=draw(st.sampled_from([(), ("?",), ("a", "\n")])),
                )
            )
        elif kind == "v":
            words = draw(st.lists(TEXTS.filter(bool), unique=True, max_size=4))
            features.append(CategoricalFeature(name, vocabulary=words))
        else:
            cls = CategoricalFeature if kind == "h" else MultiValuedFeature
            features.append(cls(name, hash_buckets=draw(st.integers(1, 9))))
        if kind in "mM":
            changes = {"max_length": draw(st.integers(1, 4))}
            features[-1] = MultiValuedFeature(**vars_of(features[-1]) | changes)
        train[name] = draw(st.lists(values, min_size=train_size, max_size=train_size))
        rows[name] = draw(st.lists(values, min_size=size, max_size=size))
    return features, train, rows


def vars_of(feature):
    return {name: getattr(feature, name) for name in feature.__dataclass_fields__}


def id_of(feature, vocabulary, text):
    """The id of a text, by the rules in the documentation of `CategoricalFeature`."""
    if text in ("", *feature.missing_values):
        return 0
    if feature.hash_buckets is not None:
        return int(tf.strings.to_hash_bucket_fast([text], feature.hash_buckets)[0]) + 1
    return vocabulary.index(text) + 2 if text in vocabulary else 1


@hypothesis.settings(max_examples=60)
@hypothesis.given(features_and_rows())
def test_rows_from_a_source_and_tensors_in_a_graph_get_the_documented_ids_and_numbers(example):
    features, train, rows = example
    arrow = {f.name: pa.list_(pa.string()) for f in features if isinstance(f, MultiValuedFeature)}
    arrow |= {f.name: pa.float64() for f in features if isinstance(f, NumericFeature)}
    encoder = FeatureEncoder(features).adapt(_table(train, arrow))
    from_source = encoder.encode_chunk(Chunk(_table(rows, arrow), "rows"))
    inputs = {
        name: tf.ragged.constant(values, tf.string, ragged_rank=1)
        if arrow.get(name) == pa.list_(pa.string())
        else tf.constant(values)
        for name, values in rows.items()
    }
    from_tensors = encoder(inputs)
    assert from_source.keys() == from_tensors.keys()
    for key, array in from_source.items():
        np.testing.assert_array_equal(array, from_tensors[key])
    numeric, categorical, multivalued = [], [], []
    for feature in features:
        values = rows[feature.name]
        if isinstance(feature, NumericFeature):
            numeric.append([0.5 if np.isnan(v) else v for v in values])
            continue
        vocabulary = encoder.vocabulary(feature.name)
        if isinstance(feature, MultiValuedFeature):
            cut = [[id_of(feature, vocabulary, t) for t in v[: feature.max_length]] for v in values]
            multivalued.append([row + [0] * (feature.max_length - len(row)) for row in cut])
        else:
            categorical.append([[id_of(feature, vocabulary, text)] for text in values])
    if numeric:
        np.testing.assert_array_equal(from_source["numeric"], np.array(numeric, np.float32).T)
    if categorical:
        np.testing.assert_array_equal(from_source["categorical"], np.hstack(categorical))
    if multivalued:
        np.testing.assert_array_equal(from_source["multivalued"], np.hstack(multivalued))


def _table(rows, types):
    return pa.table({n: pa.array(v, types.get(n, pa.string())) for n, v in rows.items()})


def test_configuration_and_assets_make_an_equal_encoder(tmp_path, encoder):
    encoder.save_assets(str(tmp_path))
    config = keras.saving.serialize_keras_object(encoder)
    loaded = keras.saving.deserialize_keras_object(config)
    loaded.load_assets(tmp_path)
    assert loaded.features == encoder.features
    assert loaded.get_config() == encoder.get_config()
    rows = TRAIN | {"city": ["Bonn", "Oslo", "Lima", ""]}
    encoded = loaded.encode(rows)
    for key, array in encoder.encode(rows).items():
        np.testing.assert_array_equal(encoded[key], array)


@hypothesis.settings(max_examples=30)
@hypothesis.given(st.lists(TEXTS, min_size=1))
def test_assets_keep_every_text(tmp_path_factory, texts):
    directory = tmp_path_factory.mktemp("assets")
    encoder = FeatureEncoder([CategoricalFeature("c")]).adapt({"c": pa.array(texts)})
    encoder.save_assets(str(directory))
    loaded = FeatureEncoder.from_config(encoder.get_config())
    loaded.load_assets(directory)
    assert loaded.vocabulary("c") == encoder.vocabulary("c")


def test_an_encoder_that_was_not_adapted_can_be_copied_and_then_adapted():
    encoder = FeatureEncoder.from_config(FeatureEncoder(FEATURES).get_config())
    assert not encoder.is_adapted
    assert encoder.adapt(TRAIN).vocabulary("city") == ["Rome", "Bonn", "Oslo"]


def test_a_copy_keeps_its_encoding_when_either_is_adapted_again(encoder):
    before, text = encoder.encode(TRAIN), encoder.to_json()
    twin, held = encoder.copy(), encoder.copy(adaptable=False)
    assert twin.get_config() == held.get_config() == encoder.get_config()
    encoder.adapt(TRAIN | {"city": ["Nice", "Rome", "Rome", "Rome"], "age": [1.0] * 4})
    assert encoder.to_json() != text
    twin.adapt(TRAIN | {"city": ["Pisa"] * 4})
    assert (twin.vocabulary("city"), encoder.vocabulary("city")) == (["Pisa"], ["Rome", "Nice"])
    assert held.to_json() == text
    for key, array in held.encode(TRAIN).items():
        np.testing.assert_array_equal(array, before[key])
    with pytest.raises(ModelError, match="belongs to a model"):
        held.adapt(TRAIN)
    assert held.to_json() == text


def test_a_copy_costs_nothing(encoder, monkeypatch):
    def no_table(*_):
        raise AssertionError("a table was made")

    monkeypatch.setattr("mptrec_tf.data.encoding._lookup_table", no_table)
    twin = encoder.copy()
    for feature in ("city", "sex"):
        assert twin.vocabulary(feature) is encoder.vocabulary(feature)
        assert twin.tables[feature] is encoder.tables[feature]


def test_a_configuration_alone_encodes_what_needs_no_learned_vocabulary(tmp_path, encoder):
    fixed = CategoricalFeature("sex", vocabulary=("m", "f"))
    features = [fixed, CategoricalFeature("zip", hash_buckets=5), NumericFeature("age")]
    whole = FeatureEncoder(features).adapt(TRAIN)
    read = FeatureEncoder.from_config(whole.get_config())
    assert read.vocabulary("sex") == ["m", "f"]
    for key, array in whole.encode(TRAIN).items():
        np.testing.assert_array_equal(read.encode(TRAIN)[key], array)

    read = FeatureEncoder.from_config(encoder.get_config())
    assert read.is_adapted
    assert read.vocabulary("sex") == ["m", "f"]
    assert read.vocabulary_size("city") == 5
    for use in (
        lambda: read.encode(TRAIN),
        lambda: read({name: _tensor(values) for name, values in TRAIN.items()}),
        lambda: read.vocabulary("city"),
        lambda: read.to_json(),
        lambda: read.save_assets(str(tmp_path)),
    ):
        with pytest.raises(ModelError, match="the vocabulary of 'city' is not loaded"):
            use()


def test_assets_that_lack_a_vocabulary_are_refused(tmp_path, encoder):
    FeatureEncoder([CategoricalFeature("zip")]).adapt(TRAIN).save_assets(str(tmp_path))
    with pytest.raises(ModelError, match=r"lacks the vocabularies of \['city', 'sex', 'tags'"):
        FeatureEncoder.from_config(encoder.get_config()).load_assets(tmp_path)


def test_assets_of_another_encoder_are_refused(tmp_path, encoder):
    FeatureEncoder(FEATURES).adapt(TRAIN | {"city": ["Rome"] * 4}).save_assets(str(tmp_path))
    loaded = FeatureEncoder.from_config(encoder.get_config())
    with pytest.raises(ModelError, match=r"vocabulary of 'city' has 1 entries, .* says 3"):
        loaded.load_assets(tmp_path)


def test_features_given_as_a_wrong_list_are_refused():
    with pytest.raises(ValueError, match="the feature 'age' is given twice"):
        FeatureEncoder([NumericFeature("age"), CategoricalFeature("age")])
    with pytest.raises(ValueError, match="at least one"):
        FeatureEncoder([])


def test_the_features_of_encoder_and_spec_are_compared():
    encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")])
    check_same_features(encoder, DataSpec([CategoricalFeature("city"), NumericFeature("age")]), "m")
    other = DataSpec([NumericFeature("age", bins=8), CategoricalFeature("town")])
    with pytest.raises(SpecError) as caught:
        check_same_features(encoder, other, "m.keras")
    assert str(caught.value) == (
        "m.keras was made from another spec: 'age' is {'name': 'age', 'kind': 'numeric'} in the "
        "model and {'name': 'age', 'bins': 8, 'kind': 'numeric'} in the spec; "
        "'city' is only in the model; 'town' is only in the spec"
    )


def test_the_tasks_of_model_and_spec_are_compared():
    spec = DataSpec([NumericFeature("age")], [Task("buy", "paid"), Task("like", "like")])
    check_same_tasks([Task("like", "like"), Task("click", "click")], spec, "m.keras")
    with pytest.raises(SpecError) as caught:
        check_same_tasks([Task("like", "like"), Task("buy", "bought")], spec, "m.keras")
    assert str(caught.value) == (
        "m.keras was made from another spec: the task 'buy' is {'name': 'buy', 'label': 'bought', "
        "'kind': 'binary'} in the model and {'name': 'buy', 'label': 'paid', 'kind': 'binary'} in "
        "the spec"
    )


def test_whole_numbers_with_a_decimal_are_told():
    def adapt(values):
        return FeatureEncoder([CategoricalFeature("user")]).adapt({"user": values})

    numbers = [f"{number}.0" for number in range(-1, 20)]
    with pytest.warns(UserWarning, match=r"categories of 'user' are '-?\d+\.0'.* give '-?\d+',"):
        adapt([*numbers, ""])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapt([*numbers, "0.5"])
        adapt(numbers[:19])
        adapt([float("nan"), *map(float, numbers)])


@pytest.mark.parametrize("call", [make_dataset, encode_rows], ids=["make_dataset", "encode_rows"])
def test_a_column_without_a_known_value_is_told(call):
    encoder = FeatureEncoder([CategoricalFeature("user"), CategoricalFeature("city")])
    encoder.adapt({"user": ["a", "b"], "city": ["Rome", "Oslo"]})
    rows = {"user": ["A"] * 100, "city": ["Rome"] + ["Bonn"] * 99}
    with pytest.warns(
        UserWarning, match=r"no value of column 'user' .*\['a', 'b'\]; all 100"
    ) as told:
        call(rows, encoder)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call({"user": ["A"] * 99, "city": ["Rome"] * 99}, encoder)
        call({"user": [""] * 200, "city": ["Rome"] * 200}, encoder)
        rare = FeatureEncoder([CategoricalFeature("user", min_count=2)]).adapt({"user": ["a", "b"]})
        call({"user": ["c"] * 200}, rare)
