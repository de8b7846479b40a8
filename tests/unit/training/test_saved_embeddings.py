"""Embedding tables from models that Keras 2 saved, as TensorFlow Recommenders does."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from mptrec_tf import CategoricalFeature, FeatureEncoder, ModelError, MPTRec, Task
from mptrec_tf.training import embeddings_from_saved_model, take_embeddings

WRITER = """
import sys
import numpy as np, tensorflow as tf

keras, folder = tf.keras, sys.argv[1]
assert keras.Model.__module__.startswith("tf_keras"), "Keras 2 is needed to write the files"


def tower(name, lookup, rows, dim=4):
    layers = [lookup, keras.layers.Embedding(rows, dim)]
    if name == "adapted":  # Keras 2 does not find out what an adapted layer reads
        layers = [keras.Input((), dtype="string"), *layers]
    model = keras.Sequential(layers, name=name)
    model(tf.constant([10] if name == "numbers" else ["u1"]))
    np.save(f"{folder}/{name}.npy", model.layers[-1].embeddings.numpy())
    return model


strings = keras.layers.StringLookup
with open(f"{folder}/vocabulary.txt", "wb") as file:
    file.write("u\u2028\x0c1\\nu2\\n".encode())
adapted = strings(mask_token=None)
adapted.adapt(tf.constant(["u2", "u1", "u2"]))
user = tower("user", strings(vocabulary=["u1", "u2", "u3"], mask_token=None), 4)
for model in (
    user,
    tower("adapted", adapted, 3),
    tower("masked", strings(vocabulary=["u1", "u2"], mask_token=""), 4),
    tower("file", lines := strings(vocabulary=f"{folder}/vocabulary.txt", mask_token=None), 3),
    tower("numbers", keras.layers.IntegerLookup(vocabulary=[10, 20]), 3),
):
    model.save(f"{folder}/saved-{model.name}", save_format="tf")
assert lines(tf.constant(["u\u2028\x0c1", "u2"])).numpy().tolist() == [1, 2]


class BruteForce(keras.Model):
    # As the class of that name in TensorFlow Recommenders keeps its parts.
    def __init__(self, query_model, candidates):
        super().__init__(name="brute_force")
        self.query_model = query_model
        self._candidates = self.add_weight(
            name="candidates", shape=candidates.shape, trainable=False,
            initializer=keras.initializers.Constant(candidates),
        )

    def call(self, queries):
        scores = tf.matmul(self.query_model(queries), self._candidates, transpose_b=True)
        return tf.math.top_k(scores, k=2)


index = BruteForce(user, np.eye(4, dtype="float32"))
index(tf.constant(["u1"]))
tf.saved_model.save(index, f"{folder}/index")


class Retrieval(keras.Model):
    def __init__(self):
        super().__init__()
        self.user_model = user
        self.item_model = tower("item", strings(vocabulary=["i1"], mask_token=None), 2)
        self.bias = keras.layers.Dense(1)

    def call(self, features):
        return self.bias(self.user_model(features[0]) * self.item_model(features[1]))


model = Retrieval()
model.compile("adagrad", "mse")
model.fit((tf.constant(["u1"]), tf.constant(["i1"])), tf.constant([[1.0]]), verbose=0)
np.save(f"{folder}/item-trained.npy", model.item_model.layers[-1].embeddings.numpy())
model.save_weights(f"{folder}/weights")
tf.saved_model.save(model, f"{folder}/both")
"""
ENCODER = FeatureEncoder(
    [
        CategoricalFeature("user", vocabulary=("u2", "new", "u1"), embedding_dim=4),
        CategoricalFeature("code", vocabulary=("20", "10"), embedding_dim=4),
        CategoricalFeature("wide", vocabulary=("u1",)),
        CategoricalFeature("other", vocabulary=("x",), embedding_dim=4),
        CategoricalFeature("hashed", hash_buckets=3, embedding_dim=4),
        CategoricalFeature("small", vocabulary=("u1", "u2"), quotient_remainder=2, embedding_dim=4),
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds what the writer saved, and its tables as NumPy files."""
    folder = tmp_path_factory.mktemp("legacy")
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    subprocess.run([sys.executable, "-c", WRITER, str(folder)], check=True, env=environment)
    return folder


@pytest.fixture
def model():
    return MPTRec(ENCODER, [Task("click", "click")], expert_units=(4,), tower_units=(2,))


def embeddings(model, column):
    """The embeddings of all ids of a column, looked up."""
    ids = np.zeros((model.encoder.vocabulary_size(column), 6), np.int32)
    names = [feature.name for feature in model.encoder.features]
    ids[:, names.index(column)] = range(len(ids))
    x = model.represent({"categorical": ids}).x.numpy()
    return x[:, model.backbone.input_columns[column]]


@pytest.mark.parametrize(
    ("saved", "table", "rows", "unknown"),
    [
        ("saved-user", "user", {"u1": 1, "u2": 2, "u3": 3}, 0),
        ("saved-adapted", "adapted", {"u2": 1, "u1": 2}, 0),
        ("saved-masked", "masked", {"u1": 2, "u2": 3}, 1),
        ("saved-file", "file", {"u\u2028\x0c1": 1, "u2": 2}, 0),
        ("saved-numbers", "numbers", {"10": 1, "20": 2}, 0),
        ("index", "user", {"u1": 1, "u2": 2, "u3": 3}, 0),
    ],
)
def test_table_and_vocabulary_are_read(saved, table, rows, unknown, folder):
    found = embeddings_from_saved_model(folder / saved)
    assert found.row_of == rows
    assert found.unknown == unknown
    np.testing.assert_array_equal(found.table, np.load(folder / f"{table}.npy"))


def test_rows_go_to_the_same_categories(folder, model):
    before, others = embeddings(model, "user"), embeddings(model, "code")
    table = np.load(folder / "user.npy")
    saved = embeddings_from_saved_model(folder / "index", layer="query_model")
    report = take_embeddings(model, "user", saved)
    assert report.taken == {
        "feature 'user'": "2 of 3 categories from 'query_model/layer_with_weights-0'"
    }
    # Ids: missing, unknown, "u2", "new", "u1". Rows: unknown, "u1", "u2", "u3".
    expected = [before[0], table[0], table[2], before[3], table[1]]
    np.testing.assert_array_equal(embeddings(model, "user"), expected)
    np.testing.assert_array_equal(embeddings(model, "code"), others)


def test_whole_numbers_are_their_decimal_text(folder, model):
    take_embeddings(model, "code", embeddings_from_saved_model(folder / "saved-numbers"))
    table = np.load(folder / "numbers.npy")
    np.testing.assert_array_equal(embeddings(model, "code")[1:], table[[0, 2, 1]])


def test_a_vocabulary_may_be_of_whole_numbers(folder, model):
    vocabulary = keras.layers.IntegerLookup(vocabulary=[10, 20]).get_vocabulary()
    prefix = folder / "saved-numbers/variables/variables"
    table = np.load(folder / "numbers.npy")
    read = embeddings_from_saved_model(prefix, vocabulary=vocabulary)
    assert (read.row_of, read.unknown) == ({"10": 1, "20": 2}, 0)
    take_embeddings(model, "code", read._replace(row_of={10: 1, 20: 2}))
    np.testing.assert_array_equal(embeddings(model, "code")[1:], table[[0, 2, 1]])


def test_one_of_several_layers_is_chosen_by_its_place(folder):
    for path in ("both", "weights"):
        with pytest.raises(ModelError, match=r"'item_model/layer_.+', 'user_model/layer_.+None"):
            embeddings_from_saved_model(folder / path)
        with pytest.raises(ModelError, match="Received: 'movie_model'"):
            embeddings_from_saved_model(folder / path, layer="movie_model")
    found = embeddings_from_saved_model(folder / "both", layer="item_model")
    assert found.row_of == {"i1": 1}
    np.testing.assert_array_equal(found.table, np.load(folder / "item-trained.npy"))


def test_the_vocabulary_of_a_checkpoint_is_given(folder):
    prefix = folder / "weights"
    with pytest.raises(ModelError, match="give it as vocabulary"):
        embeddings_from_saved_model(prefix, layer="item_model")
    found = embeddings_from_saved_model(prefix, "item_model", vocabulary=["[UNK]", "i1"])
    assert found.row_of == {"i1": 1}
    assert found.unknown == 0
    np.testing.assert_array_equal(found.table, np.load(folder / "item-trained.npy"))
    with pytest.raises(ModelError, match=r"needs 3 rows, but the table of 'item_model/.+' has 2"):
        embeddings_from_saved_model(prefix, "item_model", vocabulary=["[UNK]", "i1", "i2"])


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("absent", "no categorical feature 'absent'; it has .'user', 'code'"),
        ("wide", "'wide': its embeddings have the width 8, those of .* 4; .*embedding_dim: 4"),
        ("other", r"none of its 1 categories is in .+ begins with \['u1', 'u2', 'u3'\]"),
        ("hashed", "'hashed': with hash_buckets"),
        ("small", "'small': with quotient_remainder"),
    ],
)
def test_what_does_not_fit_is_refused(feature, message, folder, model):
    before = model.fingerprint()
    with pytest.raises(ModelError, match=message):
        take_embeddings(model, feature, embeddings_from_saved_model(folder / "index"))
    assert model.fingerprint() == before


def test_a_path_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="neither a SavedModel nor a checkpoint"):
        embeddings_from_saved_model(tmp_path / "absent")
