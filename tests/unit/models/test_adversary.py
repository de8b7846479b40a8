"""The adversarial part of stage 1."""

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.models.adversary import Adversary, assign_lowest_loss

NAN = np.nan
ROWS, TASKS, WIDTH = 5, 3, 4


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture
def representations():
    """`g` (B, h) and `s_k` (B, K, h) as variables."""
    rng = np.random.default_rng(2)
    shared = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    specific = rng.normal(size=(ROWS, TASKS, WIDTH)).astype(np.float32)
    return tf.Variable(shared), tf.Variable(specific)


def make(form):
    adversary = Adversary(form, TASKS)
    adversary.build((None, WIDTH))
    weights = np.random.default_rng(3).normal(size=(WIDTH + 1, TASKS)).astype(np.float32)
    kernel, bias = weights[:-1], weights[-1]
    adversary.classifier.set_weights([kernel, bias])
    return adversary, kernel, bias


def gradients(adversary, representations, **arguments):
    """Of the loss into g, s_k, and the classifier's kernel and bias; the loss."""
    with tf.GradientTape() as tape:
        loss = adversary(*representations, **arguments)
    weights = [weight.value for weight in adversary.classifier.weights]
    found = tape.gradient(loss, [*representations, *weights])
    return [None if g is None else g.numpy() for g in found], float(loss)


@pytest.mark.parametrize(
    "losses, assigned",
    [
        ([0.5, 0.2, 0.3], 1),
        ([0.1, 0.2, 0.3], 0),
        ([0.2, 0.3, 0.2], 0),
        ([NAN, 0.9, 0.3], 2),
        ([0.4, NAN, NAN], 0),
        ([NAN, 50.0, NAN], 1),
        ([NAN, NAN, NAN], -1),
    ],
)
def test_assignment_to_the_lowest_known_loss(losses, assigned):
    found = assign_lowest_loss(tf.constant([[0.0, 1.0, 2.0], losses]))

    assert found.dtype == "int32"
    assert found.numpy().tolist() == [0, assigned]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_loss_over_representations(representations, alpha):
    adversary, kernel, bias = make("representations")
    shared, specific = (r.numpy() for r in representations)

    recognized = -np.mean([log_softmax(specific[:, k] @ kernel + bias)[:, k] for k in range(TASKS)])
    undecided = -np.mean(log_softmax(shared @ kernel + bias))
    loss = float(adversary(*representations, alpha=alpha))

    assert loss == pytest.approx(recognized + alpha * undecided, rel=1e-5)


def test_classifier_learns_from_the_specific_representations_only(representations):
    adversary, kernel, bias = make("representations")
    specific = representations[1].numpy()

    (_, into_specific, into_kernel, into_bias), _ = gradients(adversary, representations, alpha=0.7)

    # CE's gradient into the logits is softmax - onehot, averaged over rows and tasks.
    errors = np.exp(log_softmax(specific @ kernel + bias)) - np.eye(TASKS)
    errors /= ROWS * TASKS
    np.testing.assert_allclose(into_kernel, np.einsum("bkh,bkc->hc", specific, errors), atol=1e-6)
    np.testing.assert_allclose(into_bias, errors.sum((0, 1)), atol=1e-6)
    np.testing.assert_allclose(into_specific, errors @ kernel.T, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_shared_representation_is_pushed_to_be_undecided(representations, alpha):
    adversary, kernel, bias = make("representations")
    shared = representations[0].numpy()

    (into_shared, *_), _ = gradients(adversary, representations, alpha=alpha)

    errors = np.exp(log_softmax(shared @ kernel + bias)) - 1 / TASKS
    np.testing.assert_allclose(into_shared, alpha * errors @ kernel.T / ROWS, atol=1e-6)


@pytest.mark.parametrize("form", ["assigned", "periodic"])
def test_assigned_loss_and_its_reversed_gradient(representations, form):
    adversary, kernel, bias = make(form)
    shared = representations[0].numpy()
    assignment = np.array([2, -1, 0, 1, -1])
    known = assignment >= 0

    (into_shared, into_specific, into_kernel, into_bias), loss = gradients(
        adversary, representations, alpha=0.3, assignment=tf.constant(assignment)
    )

    log_odds = log_softmax(shared @ kernel + bias)
    assert loss == pytest.approx(-log_odds[known, assignment[known]].mean(), rel=1e-5)
    errors = (np.exp(log_odds) - np.eye(TASKS)[assignment]) * known[:, None] / known.sum()
    np.testing.assert_allclose(into_kernel, shared.T @ errors, atol=1e-6)
    np.testing.assert_allclose(into_bias, errors.sum(0), atol=1e-6)
    np.testing.assert_allclose(into_shared, -0.3 * errors @ kernel.T, atol=1e-6)
    assert into_specific is None


def test_nothing_assigned_costs_nothing(representations):
    adversary, *_ = make("assigned")

    (into_shared, _, into_kernel, _), loss = gradients(
        adversary, representations, alpha=1.0, assignment=tf.fill([ROWS], -1)
    )

    assert loss == 0
    assert (into_shared == 0).all()
    assert (into_kernel == 0).all()


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match=r"None or one of .*'assigned'.*Received: 'gan'"):
        Adversary("gan", 2)
