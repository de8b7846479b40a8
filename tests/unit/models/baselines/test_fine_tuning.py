"""New tasks by fine-tuning: what is new trains, and nothing older changes."""

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import ModelError

from .conftest import randomize

STAGE1 = ("click", "like")
NEW_PARTS = {
    "shared_bottom": {"hidden", "head_3"},
    "mmoe": {"gates", "towers"},
    "ple": {"experts_0", "experts_1", "gates_0", "gates_1", "towers"},
    "stem": {"experts", "gate", "tower"},
}
KINDS = list(NEW_PARTS)


@pytest.fixture(params=KINDS)
def trained(request, make_baseline, arrays):
    """A model after stage 1, with its kind."""
    model = make_baseline(request.param, *STAGE1, expert_dropout=0.2)
    train(model, arrays, *STAGE1)
    return model, request.param


def predict(model, x):
    return {name: scores.numpy() for name, scores in model(x).items()}


def train(model, arrays, *names):
    model.train_on_batch(*arrays(*names))
    model.count_epoch()


def assert_same_bits(outputs, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(outputs[name], values, err_msg=name)


def test_older_tasks_do_not_change_by_one_bit(trained, arrays, tasks):
    model, kind = trained
    x, _ = arrays("click")
    seen, fingerprint = predict(model, x), model.fingerprint()
    stage1 = {weight.path: np.array(weight) for weight in model.trainable_weights}

    for name in ("grade", "cost"):
        model.add_task(tasks[name])
        assert model.tuned_task == name
        assert [task.name for task in model.trained_tasks] == [name]
        assert model.fingerprint(frozen_only=True) == fingerprint
        assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {name}
        assert_same_bits(predict(model, x), seen)
        before = [np.array(weight) for weight in model.trainable_weights]
        for _ in range(2):  # at first a ReLU can hold back a gradient
            train(model, arrays, name)
        moved = zip(before, model.trainable_weights, strict=True)
        assert all(not np.array_equal(old, new) for old, new in moved)
        assert model.fingerprint(frozen_only=True) == fingerprint
        after = predict(model, x)
        assert list(after) == [*seen, name]
        assert_same_bits(after, seen)
        seen, fingerprint = after, model.fingerprint()

    for weight in model.weights:
        if weight.path in stage1:
            np.testing.assert_array_equal(weight, stage1[weight.path], err_msg=weight.path)
    parts = {w.path.split("/")[1] for w in model.task_modules.modules["grade"].weights}
    assert parts == NEW_PARTS[kind]


@pytest.mark.parametrize("kind", ["ple", "stem"])
def test_the_same_under_xla(make_baseline, arrays, tasks, kind):
    model = make_baseline(kind, *STAGE1)
    model.count_epoch()
    x, _ = arrays("click")
    forward = tf.function(model, jit_compile=True)
    before = {name: values.numpy() for name, values in forward(x).items()}
    model.add_task(tasks["grade"])
    randomize(model)

    after = tf.function(model, jit_compile=True)(x)

    assert list(after) == [*STAGE1, "grade"]
    assert_same_bits(after, before)


def test_tasks_are_tuned_again_and_dropped(make_baseline, arrays, tasks):
    model = make_baseline("mmoe", *STAGE1)
    train(model, arrays, *STAGE1)
    x, _ = arrays("click")
    for name in ("buy", "share"):
        model.add_task(tasks[name])
        train(model, arrays, name)
    before = predict(model, x)

    model.tune_task("buy")
    train(model, arrays, "buy")
    after = predict(model, x)
    assert not np.array_equal(after["buy"], before["buy"])
    assert_same_bits(after, {name: before[name] for name in (*STAGE1, "share")})

    model.drop_task("buy")
    assert model.tuned_task == "share"
    assert_same_bits(predict(model, x), {name: before[name] for name in (*STAGE1, "share")})
    model.drop_task("share")
    assert model.tuned_task is None
    assert [task.name for task in model.trained_tasks] == list(STAGE1)
    fingerprint = model.fingerprint()
    train(model, arrays, *STAGE1)
    assert model.fingerprint() != fingerprint


def test_no_gradient_reaches_what_is_frozen(trained, arrays, tasks):
    model, _ = trained
    frozen = [weight.value for weight in model.trainable_weights]
    model.add_task(tasks["buy"])
    x, y = arrays("buy")

    with tf.GradientTape(persistent=True) as tape:
        loss = model.training_outcome(x, y, {}).loss

    assert all(gradient is None for gradient in tape.gradient(loss, frozen))
    new = [weight.value for weight in model.trainable_weights]
    assert all(gradient is not None for gradient in tape.gradient(loss, new))


def test_what_is_refused(make_baseline, arrays, tasks):
    model = make_baseline("mmoe", *STAGE1)
    with pytest.raises(ModelError, match="train the model before the task 'buy'"):
        model.add_task(tasks["buy"])
    model.count_epoch()
    with pytest.raises(ModelError, match="already has a task 'click'"):
        model.add_task(tasks["click"])
    with pytest.raises(ModelError, match="'click' is a task of stage 1"):
        model.drop_task("click")


@pytest.mark.parametrize("kind", ["single_task", "sparse_sharing", "esmm", "aitm"])
def test_models_that_are_trained_anew_for_a_new_task(make_baseline, kind):
    assert not hasattr(make_baseline(kind, *STAGE1), "add_task")
