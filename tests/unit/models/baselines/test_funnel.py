"""Click and then conversion: labels, losses and metrics of ESMM and AITM."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss, roc_auc_score

from mptrec_tf import ModelError
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


def test_conversion_learns_from_rows_without_a_click(make_baseline, arrays, gradients_of):
    """And clicks from conversions, since the probability of both is their product."""
    model = make_baseline("esmm", "click", "buy")
    randomize(model)
    x, y = arrays("click", "buy")
    y = {"click": np.zeros(96, np.float32), "buy": np.full(96, NAN, np.float32)}

    gradients = gradients_of(model, x, {**y, "buy": np.zeros(96, np.float32)}, "buy")

    towers = np.any(gradients["towers/hidden/kernel_0"] != 0, axis=(1, 2))
    assert towers.tolist() == [True, True]


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
