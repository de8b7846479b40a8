"""Losses and metrics of single tasks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from mptrec_tf.models.objectives import LogitAUC, TaskMetrics, example_losses, mean_loss, prediction

NAN = np.nan


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def reference(kind, labels, logits):
    """One loss at a time, in float64."""
    losses = []
    for label, row in zip(labels, logits.astype(float), strict=True):
        if np.isnan(label):
            losses.append(NAN)
        elif kind == "binary":
            probability = 1 / (1 + np.exp(-row[0]))
            losses.append(-np.log(probability if label == 1 else 1 - probability))
        elif kind == "multiclass":
            losses.append(-np.log(softmax(row)[int(label)]))
        else:
            losses.append((row[0] - label) ** 2)
    return np.array(losses)


@pytest.fixture(params=["like", "kind", "price"])
def case(request, tasks):
    """A task of each kind with labels, some of them missing, and logits."""
    task = tasks[request.param]
    labels = np.array([0, 1, NAN, 1, NAN, 0], np.float32)
    if task.kind == "multiclass":
        labels[3] = 2
    if task.kind == "regression":
        labels *= 7.5
    logits = np.random.default_rng(1).normal(0, 3, (6, task.num_outputs)).astype(np.float32)
    return task, labels, logits


def test_losses_of_each_example(case):
    task, labels, logits = case

    losses = example_losses(task, tf.constant(labels), tf.constant(logits)).numpy()

    np.testing.assert_allclose(losses, reference(task.kind, labels, logits), rtol=1e-5)


def test_mean_loss_leaves_out_missing_labels(case):
    task, labels, logits = case
    expected = reference(task.kind, labels, logits)
    weights = np.array([0.5, 2, 100, 0, 100, 3], np.float32)

    losses = example_losses(task, tf.constant(labels), tf.constant(logits))

    assert float(mean_loss(losses, labels)) == pytest.approx(np.nanmean(expected), rel=1e-5)
    weighted = np.nansum(expected * weights) / 4
    assert float(mean_loss(losses, labels, weights)) == pytest.approx(weighted, rel=1e-5)
    broken = np.where(np.isnan(labels), losses, NAN)
    assert np.isnan(float(mean_loss(broken, labels)))


def test_missing_labels_have_no_gradient(case):
    task, labels, logits = case
    known = ~np.isnan(labels)
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = mean_loss(example_losses(task, tf.constant(labels), variable), labels)
    gradient = tape.gradient(loss, variable).numpy()

    step = 1e-3
    for row, column in np.ndindex(logits.shape):
        moved = logits.astype(float)
        moved[row, column] += step
        difference = np.nanmean(reference(task.kind, labels, moved))
        moved[row, column] -= 2 * step
        difference -= np.nanmean(reference(task.kind, labels, moved))
        assert gradient[row, column] == pytest.approx(difference / (2 * step), rel=1e-2, abs=1e-4)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).any()


def test_a_task_without_labels_costs_nothing(case):
    task, labels, logits = case
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        none = tf.fill(labels.shape, NAN)
        loss = mean_loss(example_losses(task, none, variable), none)

    assert float(loss) == 0
    assert (tape.gradient(loss, variable).numpy() == 0).all()


def test_the_area_of_scores_that_are_none_is_none():
    labels, logits = [0.0, 1.0, 1.0, 0.0], [NAN, 2.0, 1.0, 0.0]
    metric = LogitAUC()
    metric.update_state(labels, logits, [0.0, 1.0, 1.0, 1.0])
    assert float(metric.result()) == pytest.approx(1.0, abs=1e-3)
    metric.update_state(labels, logits)
    assert np.isnan(float(metric.result()))
    metric.reset_state()
    metric.update_state(labels[1:], logits[1:])
    assert float(metric.result()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("logit", [-300.0, 300.0])
def test_extreme_logits_give_a_finite_loss(tasks, logit):
    variable = tf.Variable([[logit], [logit]])
    with tf.GradientTape() as tape:
        losses = example_losses(tasks["like"], tf.constant([0.0, 1.0]), variable)

    np.testing.assert_allclose(losses, [max(logit, 0), max(-logit, 0)])
    assert np.isfinite(tape.gradient(losses, variable)).all()


def test_predictions(case):
    task, _, logits = case
    expected = {
        "binary": 1 / (1 + np.exp(-logits[:, 0])),
        "multiclass": softmax(logits),
        "regression": logits[:, 0],
    }[task.kind]

    np.testing.assert_allclose(prediction(task, tf.constant(logits)), expected, rtol=1e-5)


SCORES = {
    "usual": (0, 1),
    "rare events": (-7, 1),
    "very rare events": (-12, 1),
    "nearly certain": (12, 1),
    "far apart": (0, 40),
    "farther apart": (0, 300),
}


@pytest.mark.parametrize("center, spread", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("weighted", [False, True])
def test_auc_equals_that_of_sklearn(center, spread, weighted):
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.1).astype(np.float32)
    logits = (center + spread * (rng.normal(size=4000) + labels)).astype(np.float32)
    weights = rng.integers(0, 4, 4000).astype(np.float32) if weighted else None
    metric = LogitAUC()
    for part in np.array_split(np.arange(4000), 3):
        part_weights = None if weights is None else weights[part]
        metric.update_state(labels[part], logits[part], part_weights)

    exact = roc_auc_score(labels, logits, sample_weight=weights)
    assert float(metric.result()) == pytest.approx(exact, abs=1e-3)


def test_auc_under_jit():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1000).astype(np.float32)
    logits = (rng.normal(size=1000) + labels).astype(np.float32)
    metric = LogitAUC()

    @tf.function(jit_compile=True)
    def area():
        metric.update_state(tf.constant(labels), tf.constant(logits))
        return metric.result()

    assert float(area()) == pytest.approx(roc_auc_score(labels, logits), abs=1e-3)


def test_auc_takes_lists_and_can_be_serialized():
    metric = LogitAUC(num_thresholds=50, name="area")
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(copy) is LogitAUC
    assert (copy.name, copy.num_thresholds) == ("area", 50)

    copy.update_state([0.0, 1.0, 1.0], [-9.0, -8.0, 3.0])
    assert float(copy.result()) == pytest.approx(1, abs=1e-6)


def test_metrics_leave_out_missing_labels_and_weigh(case):
    task, labels, logits = case
    weights = np.array([0.5, 2, 100, 1, 100, 3], np.float32)
    metrics = TaskMetrics([task])
    losses = reference(task.kind, labels, logits)
    values = [tf.constant(v, tf.float32) for v in (labels, logits, losses, weights)]
    metrics.update(task.name, *values)
    results = {name: float(value) for name, value in metrics.results([task.name]).items()}

    known = ~np.isnan(labels)
    labels, logits, losses, weights = (v[known] for v in (labels, logits, losses, weights))
    expected_loss = np.average(losses, weights=weights)
    assert results[f"{task.name}_loss"] == pytest.approx(expected_loss, rel=1e-5)
    if task.kind == "binary":
        area = roc_auc_score(labels, logits[:, 0], sample_weight=weights)
        assert results["like_auc"] == results["mean_auc"] == pytest.approx(area, abs=1e-3)
    elif task.kind == "multiclass":
        right = logits.argmax(-1) == labels
        assert results["kind_accuracy"] == pytest.approx(np.average(right, weights=weights))
    else:
        rmse = np.sqrt(np.average((logits[:, 0] - labels) ** 2, weights=weights))
        assert results["price_rmse"] == pytest.approx(rmse, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_no_label_defines_is_nan_and_not_in_the_mean(tasks, jit_compile):
    names = ("click", "like", "buy", "kind", "price")
    metrics = TaskMetrics([tasks[name] for name in names])
    labels = {
        "click": [0.0, 1.0, 1.0, 0.0],
        "like": [NAN] * 4,
        "buy": [1.0, NAN, 1.0, 1.0],
        "kind": [NAN] * 4,
        "price": [NAN] * 4,
    }
    scores = np.array([[-1.0], [2.0], [-3.0], [0.5]], np.float32)

    @tf.function(jit_compile=jit_compile)
    def count():
        for name, values in labels.items():
            logits = tf.tile(scores, [1, tasks[name].num_outputs])
            losses = tf.where(np.isnan(values), NAN, tf.constant(0.25, shape=(4,)))
            metrics.update(name, tf.constant(values), logits, losses, None)
        return metrics.results(names)

    results = {name: float(value) for name, value in count().items()}

    assert results.pop("loss") == 0  # which `update` leaves to the model
    area = roc_auc_score(labels["click"], scores[:, 0])
    assert {name: value for name, value in results.items() if not np.isnan(value)} == {
        "click_loss": 0.25,
        "buy_loss": 0.25,
        "click_auc": pytest.approx(area, abs=1e-3),
        "mean_auc": pytest.approx(area, abs=1e-3),
    }
    assert {name for name, value in results.items() if np.isnan(value)} == {
        "like_loss", "like_auc", "buy_auc",
        "kind_loss", "kind_accuracy", "price_loss", "price_rmse",
    }  # fmt: skip
    for metric in metrics.all:
        metric.reset_state()
    again = {name: float(value) for name, value in metrics.results(names).items()}
    assert all(np.isnan(value) for name, value in again.items() if name != "loss")
