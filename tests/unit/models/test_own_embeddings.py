"""Added tasks with embeddings of their own, on every way out."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import ModelError, Task, load_model
from mptrec_tf.serving import export

STAGE1 = ("click", "like")
OWN = {"embedding_dim": 3, "tower_units": (4,)}
READER = """
import sys
import numpy as np
from mptrec_tf import load_model

given = dict(np.load(sys.argv[2]))
np.savez(sys.argv[3], **load_model(sys.argv[1]).predict(given, verbose=0))
"""


def table_of(model):
    """What the task `buy` learned of each id."""
    return model.task_modules.modules["buy"].input_path.embedding.tables[0]


@pytest.fixture
def tuned(trained, tasks, arrays):
    for name in ("buy", "share"):
        trained.add_task(tasks[name], optimizer=keras.optimizers.Adam(0.05), **OWN)
        trained.fit(*arrays(name), batch_size=48, epochs=3, verbose=0)
    return trained


def test_they_learn_and_older_tasks_stay_to_the_bit(trained, tasks, arrays):
    x, y = arrays("buy")
    before = trained.predict(x, verbose=0)
    trained.add_task(tasks["buy"], optimizer=keras.optimizers.Adam(0.05), **OWN)
    trained.fit(x, y, batch_size=48, epochs=10, verbose=0)

    learned = np.any(table_of(trained).numpy() != 0, axis=1)
    cities, tags = x["categorical"][:, 0], x["multivalued"]
    seen = np.zeros(len(learned), bool)
    seen[cities] = True
    first_tag = trained.encoder.vocabulary_size("city")
    seen[first_tag + tags[tags != 0]] = True
    np.testing.assert_array_equal(learned, seen)
    after = trained.predict(x, verbose=0)
    for name in STAGE1:
        np.testing.assert_array_equal(after[name], before[name])


def test_they_cost_their_ids_alone(trained, tasks):
    trained.add_task(tasks["buy"], embedding_dim=3, embedding_features=["tags"], tower_units=(4,))
    assert table_of(trained).shape == (trained.encoder.vocabulary_size("tags"), 3)


def test_a_file_read_in_another_process_predicts_the_same(tuned, arrays, tmp_path):
    x, _ = arrays("buy")
    tuned.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", **x)
    files = [str(tmp_path / name) for name in ("model.keras", "x.npz", "read.npz")]
    subprocess.run([sys.executable, "-c", READER, *files], check=True)
    with np.load(tmp_path / "read.npz") as read:
        for task, scores in tuned.predict(x, verbose=0).items():
            np.testing.assert_array_equal(read[task], scores)


def test_an_exported_model_predicts_the_same(tuned, arrays, tmp_path):
    x, _ = arrays("buy")
    export(tuned, tmp_path / "shop")
    served = tf.saved_model.load(str(tmp_path / "shop" / "1")).signatures["encoded"]
    scores = served(**{key: tf.constant(array) for key, array in x.items()})
    for task, expected in tuned.predict(x, verbose=0).items():
        np.testing.assert_allclose(scores[task], expected, atol=1e-6)


def test_a_task_trained_further_goes_on_from_its_embeddings(tuned, arrays, tmp_path):
    tuned.save(tmp_path / "model.keras")
    model = load_model(tmp_path / "model.keras")
    before = table_of(model).numpy()
    np.testing.assert_array_equal(before, table_of(tuned))
    model.tune_task("buy", optimizer=keras.optimizers.Adam(0.05))
    model.fit(*arrays("buy"), verbose=0)
    assert not np.array_equal(table_of(model), before)


def test_a_refused_feature_leaves_the_model_as_it_was(trained, tasks, arrays):
    with pytest.raises(ModelError, match=r"embedding_features: .'colour'. are none"):
        trained.add_task(tasks["buy"], embedding_dim=3, embedding_features=["colour"])
    assert [task.name for task in trained.tasks] == list(STAGE1)
    assert trained.tuned_task is None
    trained.add_task(Task("buy", "buy"), **OWN)
