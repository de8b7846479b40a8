import numpy as np
import pytest

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    MPTRec,
    NumericFeature,
    Task,
    load_model,
    make_dataset,
    save_model,
)
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


def test_weights_are_float32_under_a_policy_of_half_precision(rows):
    tasks = [Task("click", "click"), Task("above_40", "buy")]
    encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    sizes = {"embedding_dim": 2, "expert_units": (8, 4), "tower_units": (4,)}
    model = MPTRec(encoder, tasks, dtype="mixed_bfloat16", **sizes)
    model.compile("adam", jit_compile=False)
    model.fit(make_dataset(rows, encoder, tasks), verbose=0)
    model.add_task(BUY)
    inputs = encoder.encode(rows)
    gates = model.gate_weights(inputs)["click"]
    assert gates.dtype == "bfloat16"
    found = weights_in_use(model, rows)
    prompts = found.prompts["buy"]
    assert {w.dtype for w in (*found.gates.values(), *prompts.values())} == {np.dtype(np.float32)}
    # The graph may fuse what eager mode rounds to the 8 bits of bfloat16 in between.
    np.testing.assert_allclose(found.gates["click"], np.float32(gates)[:, 0], rtol=2**-6)
    np.testing.assert_allclose(prompts["click"] + prompts["above_40"], 1, rtol=2**-6)


def test_a_histogram_counts_every_value_between_its_edges():
    found = histogram({"a": np.array([0.0, 0.5, 1.0]), "b": np.array([0.25])}, 0.0, 1.0)
    assert len(found["edges"]) == 41
    assert found["means"] == {"a": 0.5, "b": 0.25}
    assert [index for index, count in enumerate(found["counts"]["a"]) if count] == [0, 20, 39]
    assert sum(found["counts"]["b"]) == 1
