"""Click and then conversion: labels, losses and metrics of ESMM and AITM."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss, roc_auc_score

from mptrec_tf import ModelError
from mptrec_tf.evaluation import evaluate
from mptrec_tf.models.baselines.esmm import product_logit

from .conftest import randomize

NAN = np.nan
KINDS = ("esmm", "aitm")


@pytest.fixture
def labels():
    """Clicks and conversions of 96 rows: all known, known after a click, some unknown."""
    rng = np.random.default_rng(3)
    click = (rng.random(96) < 0.5).astype(np.float32)
    buy = click * (rng.random(96) < 0.4)
    unknown = rng.random(96) < 0.1
    return {
        "everywhere": {"click": click, "buy": buy.astype(np.float32)},
        "after a click": {"click": click, "buy": np.where(click == 1, buy, NAN)},
        "some unknown": {"click": np.where(unknown, NAN, click), "buy": np.where(unknown, 1, buy)},
    }


def train(model, x, y):
    """The loss of one step on all rows, and the scores before it."""
    scores = {name: np.array(values, float) for name, values in model(x).items()}
    return model.train_on_batch(x, y, return_dict=True), scores


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", ["everywhere", "after a click", "some unknown"])
def test_loss_is_that_of_having_reached_each_step(make_baseline, arrays, labels, kind, known):
    settings = {"calibrator_weight": 0.25} if kind == "aitm" else {}
    model = make_baseline(kind, "click", "buy", **settings)
    randomize(model)
    x, _ = arrays("click")
    y = labels[known]

    results, scores = train(model, x, y)

    clicked = ~np.isnan(y["click"])
    reached = np.where(y["click"] == 0, 0, y["buy"])
    expected = log_loss(y["click"][clicked], scores["click"][clicked])
    expected += log_loss(reached, scores["buy"])
    if kind == "aitm":
        excess = np.maximum(scores["buy"] - scores["click"], 0)
        assert excess.max() > 0.01
        expected += 0.25 * excess.mean()
    assert results["loss"] == pytest.approx(expected, rel=1e-4)


def test_missing_labels_after_no_click_change_nothing(make_baseline, arrays, labels):
    x, _ = arrays("click")
    ends = []
    for known in ("everywhere", "after a click"):
        tf.keras.utils.set_random_seed(4)
        model = make_baseline("esmm", "click", "buy")
        model.train_on_batch(x, labels[known])
        ends.append(model.fingerprint())
    assert ends[0] == ends[1]


def test_conditional_predictions_have_metrics_of_their_own(make_baseline, arrays, labels):
    model = make_baseline("esmm", "click", "buy", conditional=True)
    randomize(model)
    x, _ = arrays("click")
    y = labels["after a click"]

    results, scores = train(model, x, y)

    joint = scores["click"] * scores["buy"]
    expected = log_loss(y["click"], scores["click"]) + log_loss(np.nan_to_num(y["buy"]), joint)
    assert results["loss"] == pytest.approx(expected, rel=1e-4)
    known = ~np.isnan(y["buy"])
    area = roc_auc_score(y["buy"][known], scores["buy"][known])
    assert results["buy_auc"] == pytest.approx(area, abs=3e-3)
    loss = log_loss(y["buy"][known], scores["buy"][known])
    assert results["buy_loss"] == pytest.approx(loss, rel=1e-4)


def metrics_of_truth(labels, scores):
    """Loss and area of the rows with a label."""
    known = ~np.isnan(labels)
    labels, scores = labels[known], np.asarray(scores, float)[known]
    return log_loss(labels, scores), roc_auc_score(labels, scores)


@pytest.mark.parametrize("known", ["everywhere", "after a click", "some unknown"])
@pytest.mark.parametrize("kind", ["esmm", "esmm conditional", "aitm"])
def test_predictions_answer_to_labels_of_what_they_predict(
    make_baseline, arrays, rows, labels, kind, known
):
    """In `evaluate`, in the metrics of training, and in the exact metrics of a table."""
    conditional = kind.endswith("conditional")
    settings = {"conditional": True} if conditional else {}
    model = make_baseline(kind.split()[0], "buy", "click", funnel=["click", "buy"], **settings)
    randomize(model)
    x, _ = arrays("click")
    y = labels[known]
    no_click = y["click"] == 0
    buy = np.where(no_click, NAN if conditional else 0, y["buy"])
    scores = model(x)
    losses, areas = zip(
        *(metrics_of_truth(labels, scores[name]) for name, labels in ({**y, "buy": buy}).items()),
        strict=True,
    )

    exact = evaluate(model, {**rows, **y}, batch_size=40)
    assert evaluate(model, {**rows, **y}, ["buy"], batch_size=40) == {"buy": exact["buy"]}
    found = [model.evaluate(x, y, return_dict=True, verbose=0, batch_size=96)]
    found.append(model.fit(x, y, batch_size=96, verbose=0).history)

    for metrics in found:
        for k, name in enumerate(y):
            assert np.squeeze(metrics[f"{name}_loss"]) == pytest.approx(losses[k], rel=1e-4)
            area = metrics[f"{name}_auc"]  # by thresholds, with scores of few rows close together
            assert np.squeeze(area) == pytest.approx(areas[k], abs=0.03)
    assert found[0]["loss"] == pytest.approx(sum(losses), rel=1e-4)
    for k, name in enumerate(y):
        assert exact[name]["log_loss"] == pytest.approx(losses[k], rel=1e-4)
        assert exact[name]["auc"] == pytest.approx(areas[k])
    assert exact["buy"]["rows"] == np.sum(~np.isnan(buy))


def test_labels_of_steps_that_are_not_given_correct_nothing(make_baseline, arrays, labels):
    model = make_baseline("esmm", "click", "like", "buy", conditional=True)
    randomize(model)
    x, _ = arrays("click")
    click, buy = labels["everywhere"].values()
    scores = model(x)["buy"]

    alone = model.evaluate(x, {"buy": buy}, return_dict=True, verbose=0)
    both = model.evaluate(x, {"buy": buy, "click": click}, return_dict=True, verbose=0)

    assert alone["buy_loss"] == pytest.approx(log_loss(buy, scores), rel=1e-4)
    clicked = log_loss(buy[click == 1], scores.numpy()[click == 1])
    assert both["buy_loss"] == pytest.approx(clicked, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_conversion_learns_from_rows_without_a_click(make_baseline, arrays, kind):
    """Also without a label there. In ESMM clicks learn too, since the product is what counts."""
    model = make_baseline(kind, "click", "buy")
    randomize(model)
    x, _ = arrays("click")
    y = {"click": np.zeros(96, np.float32), "buy": np.full(96, NAN, np.float32)}

    with tf.GradientTape() as tape:
        loss = model.training_outcome(x, y, {}).task_losses["buy"]
    kernel = next(w for w in model.trainable_weights if "towers/hidden/kernel_0" in w.path)
    gradient = tape.gradient(loss, kernel.value)

    towers = np.any(gradient.numpy() != 0, axis=(1, 2))
    assert towers.tolist() == [kind == "esmm", True]


def test_product_of_tiny_probabilities():
    logits = product_logit(
        tf.constant([0.0, -40.0, 40.0, 3.0]), tf.constant([0.0, -30.0, 2.0, 60.0])
    )
    np.testing.assert_allclose(logits, [np.log(1 / 3), -70.0, 2.0, 3.0], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_funnel(make_baseline, kind):
    for funnel in (["click"], ["click", "like"], ["click", "buy", "buy"]):
        with pytest.raises(
            ModelError, match=r"names each task once; the tasks are \['click', 'buy'"
        ):
            make_baseline(kind, "click", "buy", funnel=funnel)
    with pytest.raises(ModelError, match="two steps or more"):
        make_baseline(kind, "click")
    with pytest.raises(ModelError, match="'price' is regression"):
        make_baseline(kind, "click", "price")
