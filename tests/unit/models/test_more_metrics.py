"""Metrics that a user adds to those of the tasks, and what `compile` refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    log_loss,
    mean_absolute_error,
    top_k_accuracy_score,
)

from mptrec_tf import ModelError, Task, load_model, save_model
from mptrec_tf.models.objectives import TaskMetrics

TASKS = ("click", "kind", "price")


def more_metrics():
    return {
        "click": [
            keras.metrics.AUC(num_thresholds=2000, curve="PR", name="pr_auc"),
            keras.metrics.BinaryAccuracy(threshold=0.4, name="right"),
        ],
        "kind": [keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")],
        "price": ["mean_absolute_error"],
    }


MORE = {"click_pr_auc", "click_right", "kind_top2", "price_mean_absolute_error"}


@pytest.fixture
def model(make_model):
    keras.utils.set_random_seed(2)
    return make_model(*TASKS, compile_with={"metrics": more_metrics()})


@pytest.mark.parametrize("jit_compile", [False, True])
def test_they_count_what_predict_gives_with_the_weights(make_model, arrays, jit_compile):
    settings = {"run_eagerly": False, "jit_compile": jit_compile, "steps_per_execution": 2}
    keras.utils.set_random_seed(2)
    model = make_model(
        *TASKS,
        compile_with=settings | {"metrics": more_metrics(), "optimizer": keras.optimizers.SGD(0.0)},
        adversarial=None,
    )
    x, y = arrays(*TASKS)
    y["click"][::5] = np.nan
    y["price"][3:30] = np.nan
    weights = {"price": np.linspace(0, 2, 96, dtype=np.float32)}
    data = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(40)

    history = model.fit(data, validation_data=data, verbose=0).history

    scores = model.predict(x, verbose=0)
    known = {name: ~np.isnan(labels) for name, labels in y.items()}
    y, scores = ({n: v[known[n]] for n, v in part.items()} for part in (y, scores))
    expected = {
        "click_pr_auc": average_precision_score(y["click"], scores["click"]),
        "click_right": np.mean((scores["click"] > 0.4) == y["click"]),
        "kind_top2": top_k_accuracy_score(y["kind"], scores["kind"], k=2),
        "price_mean_absolute_error": mean_absolute_error(
            y["price"], scores["price"], sample_weight=weights["price"][known["price"]]
        ),
    }
    assert set(expected) == MORE < set(history)
    for name, value in expected.items():
        tolerance = 0.02 if name == "click_pr_auc" else 1e-5
        assert history[name] == [pytest.approx(value, abs=tolerance)], name
        assert history[f"val_{name}"] == [pytest.approx(value, abs=tolerance)], name


def test_they_are_nan_without_labels_and_begin_anew(model, arrays):
    x, y = arrays(*TASKS)
    first = model.evaluate(x, y, verbose=0, return_dict=True)
    assert model.evaluate(x, y, verbose=0, return_dict=True) == first
    y["click"][:] = np.nan
    results = model.evaluate(x, y, verbose=0, return_dict=True)
    assert {name for name in MORE if np.isnan(results[name])} == {"click_pr_auc", "click_right"}


def test_the_names_are_those_of_what_evaluate_gives(model, make_model, arrays):
    for some in (model, make_model(*TASKS), make_model("kind", "price")):
        names = [task.name for task in some.tasks]
        results = some.evaluate(*arrays(*names), verbose=0)
        by_name = some.evaluate(*arrays(*names), verbose=0, return_dict=True)
        assert dict(zip(some.metrics_names, results, strict=True)) == by_name


def test_they_are_saved_and_go_with_their_task(model, arrays, tasks, tmp_path):
    model.fit(*arrays(*TASKS), verbose=0)
    model.add_task(tasks["buy"])
    assert set(model.metrics_names) > MORE
    model.compile("adam", run_eagerly=True, metrics={**more_metrics(), "buy": ["BinaryAccuracy"]})
    save_model(model, tmp_path / "model.keras")

    loaded = load_model(tmp_path / "model.keras")

    assert loaded.metrics_names == model.metrics_names
    x, y = arrays(*TASKS, "buy")
    results = loaded.evaluate(x, y, verbose=0, return_dict=True)
    assert results == pytest.approx(model.evaluate(x, y, verbose=0, return_dict=True))
    for name in ("buy", None):
        assert any(found.startswith("buy_") for found in loaded.metrics_names) == bool(name)
        if name:
            loaded.drop_task(name)
    assert set(loaded.metrics_names) > MORE


def test_names_that_mean_another_metric_for_each_kind_of_task(make_model, arrays):
    metrics = {"click": ["accuracy", "ce"], "kind": ["acc", "crossentropy"]}
    model = make_model(*TASKS, compile_with={"metrics": metrics}, adversarial=None)
    x, y = arrays(*TASKS)
    results = model.evaluate(x, y, verbose=0, return_dict=True)
    click, kind = (model.predict(x, verbose=0)[name] for name in ("click", "kind"))
    assert results["click_accuracy"] == pytest.approx(accuracy_score(y["click"], click > 0.5))
    assert results["click_ce"] == pytest.approx(log_loss(y["click"], click), rel=1e-4)
    assert results["kind_acc"] == pytest.approx(accuracy_score(y["kind"], kind.argmax(1)))
    assert results["kind_crossentropy"] == pytest.approx(log_loss(y["kind"], kind), rel=1e-4)


@pytest.mark.parametrize(
    "metrics, message",
    [
        ([keras.metrics.AUC()], "metrics must be a dict by task"),
        ({"like": [keras.metrics.AUC()]}, r"no task 'like'; its tasks are \['click'"),
        ({"click": keras.metrics.AUC()}, "task 'click' must be a list"),
        ({"click": [3]}, "task 'click' must be Keras metrics or their names. Received: 3"),
        ({"click": ["nonsense"]}, "Received: 'nonsense'"),
        ({"price": ["accuracy"]}, "the regression task 'price' has no 'accuracy'"),
        ({"kind": ["accuracy"]}, "named 'kind_accuracy', since the task 'kind' has one"),
        ({"click": ["AUC"]}, "named 'click_auc', since the task 'click' has one"),
        ({"click": [keras.metrics.AUC(name="auc")]}, "'click' cannot .* named 'click_auc'"),
    ],
)
def test_metrics_that_are_refused(make_model, metrics, message):
    keras.metrics.AUC()  # the next one without a name is "auc_1" to Keras
    with pytest.raises(ModelError, match=message):
        make_model(*TASKS, compile_with={"metrics": metrics})


def test_metrics_of_two_tasks_have_different_names():
    tasks = [Task("a", "a"), Task("a_b", "b")]
    for name in ("b_loss", "b_auc"):
        wrong = {"a": [keras.metrics.MeanSquaredError(name=name)]}
        with pytest.raises(ModelError, match=f"'a' cannot .* named 'a_{name}', since .* 'a_b' has"):
            TaskMetrics(tasks, wrong)
    others = {
        task: [keras.metrics.MeanSquaredError(name=name)]
        for task, name in (("a", "b_mse"), ("a_b", "mse"))
    }
    with pytest.raises(ModelError, match=r"'a_b' cannot .* named 'a_b_mse', since .* 'a' has"):
        TaskMetrics(tasks, others)


def test_a_loss_and_the_export_of_keras_are_refused(model, tmp_path):
    with pytest.raises(ModelError, match=r"give each Task its kind and loss_weight.*loss='mse'"):
        model.compile("adam", loss="mse")
    with pytest.raises(ModelError, match=r"mptrec_tf\.serving\.export"):
        model.export(tmp_path / "served")
