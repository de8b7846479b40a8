"""What `fit` is given beside rows: weights, callbacks, labels of other tasks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import DataError, ModelError
from mptrec_tf.training import TrainingProgress

STAGE1 = ("click", "like")


@pytest.fixture
def model(make_model):
    keras.utils.set_random_seed(2)
    return make_model(*STAGE1, compile_with={"run_eagerly": False, "jit_compile": False})


def learned(model, *args, **kwargs):
    model.fit(*args, verbose=0, **kwargs)
    return [weight.numpy() for weight in model.trainable_weights]


@pytest.fixture
def batches(arrays):
    """A dataset of the rows with weights, and `fit`'s arguments of the same as arrays."""
    x, y = arrays(*STAGE1)
    weights = np.linspace(0, 2, 96).astype(np.float32)

    def make(given):
        parts = (x, y) if given is None else (x, y, given)
        return tf.data.Dataset.from_tensor_slices(parts).batch(48)

    return make, x, y, weights


def test_weights_of_all_tasks_are_those_of_each(model, batches, copy_of):
    make, *_, weights = batches
    twin = copy_of(model, run_eagerly=False, jit_compile=False)
    one = learned(model, make(weights))
    each = learned(twin, make(dict.fromkeys(STAGE1, weights)))
    for left, right in zip(one, each, strict=True):
        np.testing.assert_array_equal(left, right)
    given = (model.evaluate(make(w), return_dict=True, verbose=0) for w in (weights, None))
    weighted, plain = (found["click_loss"] for found in given)
    assert weighted != plain


def test_arrays_of_weights_may_be_of_some_tasks(model, batches, copy_of):
    make, x, y, weights = batches
    twin = copy_of(model, run_eagerly=False, jit_compile=False)
    settings = {"batch_size": 48, "shuffle": False}
    some = learned(model, x, y, sample_weight={"click": weights}, **settings)
    both = learned(twin, make({"click": weights, "like": np.ones(96, np.float32)}))
    for left, right in zip(some, both, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)


def test_validation_and_evaluation_take_weights_of_some_tasks(model, batches):
    make, x, y, weights = batches
    expected = model.evaluate(make({"click": weights, "like": np.ones(96, np.float32)}), verbose=0)
    some = {"click": weights}
    by_position = model.evaluate(x, y, 48, 0, some)
    np.testing.assert_allclose(by_position, expected, rtol=1e-6)
    by_name = model.evaluate(x, y, batch_size=48, verbose=0, sample_weight=some)
    np.testing.assert_allclose(by_name, expected, rtol=1e-6)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    found = model.fit(x, y, validation_data=(x, y, some), batch_size=48, verbose=0).history
    names = model.metrics_names
    np.testing.assert_allclose(
        [found[f"val_{name}"][0] for name in names], expected, rtol=1e-6, err_msg=str(names)
    )


@pytest.mark.parametrize("dtype", [np.int64, np.float64, bool])
def test_weights_are_numbers_of_any_type(dtype, model, batches, copy_of):
    make, *_ = batches
    weights = (np.arange(96) % 2).astype(dtype)
    twin = copy_of(model, run_eagerly=False, jit_compile=False)
    for left, right in zip(
        learned(model, make({"click": weights})),
        learned(twin, make({"click": weights.astype(np.float32)})),
        strict=True,
    ):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("weight", [np.nan, -1.0, np.inf])
def test_a_wrong_weight_counts_only_where_a_row_has_a_label(weight, model, batches, copy_of):
    _, x, y, weights = batches
    weights[:9] = weight
    settings = {"batch_size": 48, "verbose": 0, "shuffle": False}
    given = {"sample_weight": {"click": weights}, **settings}
    for call in (model.fit, model.evaluate):
        with pytest.raises(
            DataError, match=r"weight of the task 'click' is (nan|-1|inf), expected"
        ):
            call(x, y, **{k: v for k, v in given.items() if k != "shuffle"})
    y["click"][:9] = np.nan
    twin = copy_of(model, run_eagerly=False, jit_compile=False)
    history = model.fit(x, y, **given).history
    right = {"click": np.where(np.arange(96) < 9, 0.0, weights)}
    expected = twin.fit(x, y, sample_weight=right, **settings).history
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-6, err_msg=name)


def test_weights_of_other_rows_are_refused(model, batches):
    _, x, y, weights = batches
    with pytest.raises(DataError, match="'click' has 9 example weights for 96 labels"):
        model.fit(x, y, sample_weight={"click": weights[:9]}, verbose=0)


def test_wrong_labels_of_validation_are_told_before_an_epoch(model, batches):
    _, x, y, _ = batches
    epochs = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    with pytest.raises(DataError, match="a label of the binary task 'click' is 3"):
        model.fit(x, y, validation_data=(x, y | {"click": y["click"] * 3}), callbacks=[watch])
    assert epochs == []


@pytest.mark.parametrize("jit_compile", [True, False])
def test_weights_without_labels_are_refused(model, batches, jit_compile):
    make, x, y, weights = batches
    model.compile(jit_compile=jit_compile)
    message = r"example weights of \['clik'\], but labels of \['click', 'like'\] only"
    with pytest.raises(ModelError, match=message):
        model.fit(make({"clik": weights}), verbose=0)
    with pytest.raises(ModelError, match=message):
        model.fit(x, y, sample_weight={"clik": weights}, verbose=0)


def test_class_weights_are_refused(model, dataset):
    with pytest.raises(ModelError, match="class_weight is for models with one output"):
        model.fit(dataset(*STAGE1), class_weight={0: 1.0, 1: 2.0})


@pytest.mark.parametrize("form", ["list", "CallbackList", "by position", "progress by hand"])
def test_the_epochs_are_counted_with_callbacks_in_any_form(model, arrays, form):
    x, y = arrays(*STAGE1)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    if form == "by position":
        model.fit(x, y, 48, 2, 0, [watch])
    else:
        given = [TrainingProgress(), watch] if form == "progress by hand" else [watch]
        if form == "CallbackList":
            given = keras.callbacks.CallbackList(given, True, model=model)
        model.fit(x, y, batch_size=48, epochs=2, verbose=0, callbacks=given)
    assert seen == [0, 1]
    assert model.trained_epochs == 2


def test_labels_of_no_task_do_not_matter(make_model, arrays, copy_of):
    """Such as those of a later task, (B, 1), and texts, which XLA does not know."""
    model = make_model(*STAGE1, compile_with={"run_eagerly": False})
    twin = copy_of(model, run_eagerly=False)
    x, y = arrays(*STAGE1)
    more = {**y, "buy": np.zeros((96, 1), np.float32), "user": np.full(96, "anna")}
    for each, labels in ((model, more), (twin, y)):
        each.fit(tf.data.Dataset.from_tensor_slices((x, labels)).batch(48), verbose=0)
    for left, right in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_model_that_diverged_has_no_loss_and_no_area(jit_compile, model, batches):
    _, x, y, _ = batches
    model.compile("adam", jit_compile=jit_compile)
    for weight in model.trainable_weights:
        weight.assign(weight * np.nan)
    settings = {"batch_size": 48, "verbose": 0}
    found = model.evaluate(x, y, return_dict=True, **settings)
    found |= model.fit(x, y, **settings).history
    assert all(np.isnan(values).all() for values in found.values()), found
