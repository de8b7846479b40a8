"""A model whose embeddings are compressed: the same ids, fewer rows, on every way out."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    MPTRec,
    MultiValuedFeature,
    NumericFeature,
    Task,
    make_dataset,
)
from mptrec_tf.serving import export

TASKS = (Task("click", "click"), Task("like", "like"))
READER = """
import json, sys
import keras, numpy as np
import mptrec_tf

model = keras.models.load_model(sys.argv[1])
rows = json.load(open(sys.argv[2]))
np.savez(sys.argv[3], **model.predict(model.encoder.encode(rows), batch_size=100, verbose=0))
"""


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return {
        "age": rng.integers(18, 80, 100).tolist(),
        "item": [f"item {number}" for number in rng.permutation(100)],
        "city": rng.choice(["Lima", "Oslo"], 100).tolist(),
        "tags": ["|".join(rng.choice(list("abcdefgh"), rng.integers(0, 3))) for _ in range(100)],
        "click": rng.integers(0, 2, 100).tolist(),
        "like": rng.integers(0, 2, 100).tolist(),
    }


def make(rows, compressed):
    item, tags = ({"quotient_remainder": m} if compressed else {} for m in (12, 4))
    features = [
        CategoricalFeature("item", **item),
        NumericFeature("age"),
        CategoricalFeature("city"),
        MultiValuedFeature("tags", max_length=2, **tags),
    ]
    encoder = FeatureEncoder(features).adapt(rows)
    return MPTRec(encoder, TASKS, embedding_dim=4, expert_units=(8, 4), tower_units=(4,))


@pytest.fixture(scope="module")
def model(rows):
    model = make(rows, compressed=True)
    model.compile("adam", jit_compile=False)
    model.fit(make_dataset(rows, model.encoder, TASKS, batch_size=50), epochs=2, verbose=0)
    return model


def test_ids_stay_and_tables_shrink(rows, model):
    plain = make(rows, compressed=False)
    for key, ids in plain.encoder.encode(rows).items():
        np.testing.assert_array_equal(model.encoder.encode(rows)[key], ids)
    (before,), (after,) = plain.backbone.embedding.tables, model.backbone.embedding.tables
    assert before.shape == (102 + 4 + 10, 4)  # each with the ids for missing and unknown
    assert after.shape == (4 + (12 + 9) + (4 + 3), 4)
    assert model.backbone.input_dim == plain.backbone.input_dim


def test_the_embeddings_are_the_products_in_the_order_of_the_features(rows, model):
    encoded = model.encoder.encode(rows)
    x = model.represent(encoded).x.numpy()[:, -12:]
    table = model.backbone.embedding.tables[0].numpy()
    city, item, tags = table[:4], table[4 : 4 + 21], table[25:]
    for row in range(100):
        item_id, city_id = encoded["categorical"][row]
        expected = [item[item_id % 12] * item[12 + item_id // 12], city[city_id]]
        found = [tags[i % 4] * tags[4 + i // 4] for i in encoded["multivalued"][row] if i]
        expected.append(np.mean(found, axis=0) if found else np.zeros(4))
        np.testing.assert_allclose(x[row], np.concatenate(expected), rtol=1e-5, atol=1e-7)


def test_a_file_read_in_another_process_predicts_the_same(rows, model, tmp_path):
    model.save(tmp_path / "model.keras")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    files = [str(tmp_path / name) for name in ("model.keras", "rows.json", "read.npz")]
    subprocess.run([sys.executable, "-c", READER, *files], check=True)
    expected = model.predict(model.encoder.encode(rows), batch_size=100, verbose=0)
    with np.load(tmp_path / "read.npz") as read:
        for task, scores in expected.items():
            np.testing.assert_array_equal(read[task], scores)


def test_an_exported_model_predicts_the_same(rows, model, tmp_path):
    export(model, tmp_path / "shop")
    served = tf.saved_model.load(str(tmp_path / "shop" / "1")).signatures["encoded"]
    encoded = model.encoder.encode(rows)
    scores = served(**{key: tf.constant(array) for key, array in encoded.items()})
    for task, expected in model.predict(encoded, verbose=0).items():
        np.testing.assert_allclose(scores[task], expected, atol=1e-6)
