"""The graph that is exported of each baseline; tests/e2e exports some whole."""

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import FeatureEncoder, Task
from mptrec_tf.models import MODELS
from mptrec_tf.serving.exporting.samples import raw_rows, to_examples
from mptrec_tf.serving.exporting.signatures import ServingGraph
from mptrec_tf.serving.manifest import Manifest

from .conftest import FEATURES

TASKS = [Task("click", "click"), Task("buy", "buy")]


@pytest.fixture(scope="module")
def adapted(rows):
    return FeatureEncoder(FEATURES).adapt(rows)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mptrec"])
def test_the_graph_answers_as_the_model(adapted, rows, name):
    model = MODELS[name](adapted, TASKS, expert_units=(4,), tower_units=(3,))
    model.compile("adam", run_eagerly=True)
    model.count_epoch()
    if hasattr(model, "add_task"):
        model.add_task(Task("visits", "visits", kind="regression"))
    expected = model(adapted.encode(rows))

    served = ServingGraph(model)

    examples = tf.constant(to_examples(FEATURES, raw_rows(FEATURES, rows)))
    scores = served.signatures["serving_default"](examples=examples)
    assert set(scores) == {task.name for task in model.tasks}
    for task, values in scores.items():
        np.testing.assert_allclose(values, expected[task], atol=1e-6)
    manifest = Manifest.of(model, name, {}, 0)
    assert manifest.stage == 1 + hasattr(model, "add_task")
    assert manifest.fingerprint == model.fingerprint()
