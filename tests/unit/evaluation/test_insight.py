import numpy as np
import pytest

from mptrec_tf import Task, load_model, make_dataset, save_model
from mptrec_tf.evaluation import weights_in_use
from mptrec_tf.evaluation.insight import histogram

BUY = Task("buy", "buy")


@pytest.fixture(scope="module")
def tuned(model, rows, tmp_path_factory):
    """A copy of the model with a task that attends equally to all others, and one that does not."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    save_model(model, path)
    tuned = load_model(path)
    tuned.add_task(BUY)
    tuned.fit(make_dataset(rows, tuned.encoder, [BUY]), verbose=0)
    tuned.add_task(Task("buy_again", "buy"), attention="fixed")
    return tuned


def test_weights_of_all_rows_are_those_of_the_model(tuned, rows):
    inputs = tuned.encoder.encode(rows)
    found = weights_in_use(tuned, rows, batch_size=100)
    for task, weights in tuned.gate_weights(inputs).items():
        np.testing.assert_allclose(found.gates[task], weights[:, 0], rtol=1e-5)
    for k, task in enumerate(tuned.stage1_tasks):
        expected = tuned.prompt_weights(inputs)["buy"][:, k]
        np.testing.assert_allclose(found.prompts["buy"][task.name], expected, rtol=1e-5)
        np.testing.assert_allclose(found.prompts["buy_again"][task.name], np.full(301, 1 / 3))


def test_a_histogram_counts_every_value_between_its_edges():
    found = histogram({"a": np.array([0.0, 0.5, 1.0]), "b": np.array([0.25])}, 0.0, 1.0)
    assert len(found["edges"]) == 41
    assert found["means"] == {"a": 0.5, "b": 0.25}
    assert [index for index, count in enumerate(found["counts"]["a"]) if count] == [0, 20, 39]
    assert sum(found["counts"]["b"]) == 1
