"""Steps that run as one XLA computation, against Keras' own loop over single ones."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.data import dataset_of_arrays
from mptrec_tf.models.multi_step import MultiStep

TASKS = ("click", "kind", "price")
STEPS = 3


class Heard(keras.callbacks.Callback):
    """Remembers after which batches callbacks are called."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)
        assert set(logs) >= {"loss", "click_auc", "kind_accuracy", "price_rmse"}


@pytest.fixture
def in_batches(arrays):
    """Makes a dataset with batches of the sizes given; some rows lack labels, some weigh more."""

    def make(*sizes):
        x, y = arrays(*TASKS)
        y["click"][::7] = np.nan
        y["price"][3:9] = np.nan
        weights = {"kind": np.linspace(0, 2, 96, dtype=np.float32)}
        data = tf.data.Dataset.from_tensor_slices((x, y, weights))
        starts = np.cumsum([0, *sizes])
        parts = [data.skip(s).take(n).batch(n) for s, n in zip(starts, sizes, strict=False)]
        batches = parts[0]
        for part in parts[1:]:
            batches = batches.concatenate(part)
        return batches

    return make


def train(make_model, data, steps, jit_compile=True, epochs=2, dropout=0.0, **fit):
    keras.utils.set_random_seed(1)
    settings = {"run_eagerly": False, "jit_compile": jit_compile, "steps_per_execution": steps}
    model = make_model(
        *TASKS, compile_with=settings, expert_dropout=dropout, l2=1e-3, l2_embedding=1e-3, seed=2
    )
    heard = Heard()
    history = model.fit(data, epochs=epochs, verbose=0, callbacks=[heard], **fit).history
    return model, history, heard.batches


def test_learns_and_counts_as_single_steps_do(make_model, in_batches):
    sizes = (10, 10, 7, 10, 10, 8, 6)
    data = in_batches(*sizes)
    model, history, heard = train(make_model, data, STEPS, validation_data=data)
    single, expected, _ = train(make_model, data, 1, jit_compile=False, validation_data=data)

    assert isinstance(model.train_function, MultiStep)
    assert not isinstance(single.train_function, MultiStep)
    assert heard == [2, 5, 8] * 2
    assert int(model.optimizer.iterations) == int(single.optimizer.iterations) == 2 * len(sizes)
    assert history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-3, err_msg=name)
    for weight, other in zip(model.weights, single.weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-4, err_msg=weight.path)


def test_dropout_goes_on_from_step_to_step(make_model, in_batches):
    data = in_batches(48, 48)
    model, *_ = train(make_model, data, STEPS, dropout=0.4)
    single, *_ = train(make_model, data, 1, dropout=0.4)
    for weight, other in zip(model.weights, single.weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-4, err_msg=weight.path)


def test_a_stream_of_unknown_length_that_ends_within_a_call(make_model, in_batches):
    def endless(batches):
        return batches.filter(lambda *_: True)  # tf.data no longer knows how many there are

    data = in_batches(24, 24, 24, 24)
    assert endless(data).cardinality() == tf.data.UNKNOWN_CARDINALITY
    model, history, heard = train(make_model, endless(data), STEPS)
    _, expected, _ = train(make_model, endless(data), 1, jit_compile=False)
    assert heard == [2, 5, 2, 5]
    assert int(model.optimizer.iterations) == 8
    np.testing.assert_allclose(history["price_loss"], expected["price_loss"], rtol=1e-3)


def test_only_so_many_steps_of_an_epoch(make_model, in_batches):
    model, *_ = train(make_model, in_batches(*[8] * 12).repeat(), STEPS, steps_per_epoch=6)
    assert int(model.optimizer.iterations) == 12


def test_a_loss_that_is_no_number_is_seen(make_model, in_batches):
    keras.utils.set_random_seed(1)
    settings = {"run_eagerly": False, "jit_compile": True, "steps_per_execution": STEPS}
    model = make_model(*TASKS, compile_with=settings)
    model.towers.heads[0].kernels[0].assign_add(np.nan * model.towers.heads[0].kernels[0])
    assert np.isnan(model.fit(in_batches(48, 48), verbose=0).history["loss"]).all()


def test_rows_in_memory_are_read_for_all_steps_at_once(make_model, arrays):
    rows, again = (
        dataset_of_arrays(arrays(*TASKS), batch_size=10, shuffle=True, seed=5) for _ in range(2)
    )
    gather, sizes = rows.rows_by_number.gather, []

    def watched(index):
        tf.py_function(lambda numbers: sizes.append(len(numbers)), [index], [])
        return gather(index)

    rows.rows_by_number = rows.rows_by_number._replace(gather=watched)
    model, history, heard = train(make_model, rows, STEPS)
    one_by_one, expected, expected_heard = train(make_model, again.map(lambda *b: b), STEPS)
    # 96 rows are nine batches of ten and one of six; empty ones go into the usual size.
    assert sorted(sizes) == sorted([30, 0] * 3 * 2 + [30, 6] * 2)
    assert (heard, history) == (expected_heard, expected)
    for weight, other in zip(model.weights, one_by_one.weights, strict=True):
        np.testing.assert_array_equal(weight, other, err_msg=weight.path)


def test_epochs_shorter_than_rows_in_memory_go_on_where_the_last_one_ended(make_model, arrays):
    rows, again = (
        dataset_of_arrays(arrays(*TASKS), batch_size=10, shuffle=True, seed=5) for _ in range(2)
    )
    short = {"epochs": 3, "steps_per_epoch": 6}
    model, history, heard = train(make_model, rows, STEPS, **short)
    one_by_one, expected, expected_heard = train(
        make_model, again.map(lambda *b: b), STEPS, **short
    )
    assert int(model.optimizer.iterations) == 6 + 4 + 6  # of ten batches of each pass
    assert (heard, history) == (expected_heard, expected)
    for weight, other in zip(model.weights, one_by_one.weights, strict=True):
        np.testing.assert_array_equal(weight, other, err_msg=weight.path)


def test_what_was_read_at_once_is_let_go_of_and_batches_work_again(make_model, arrays, in_batches):
    rows = dataset_of_arrays(arrays(*TASKS), batch_size=48)
    held = weakref.ref(rows.rows_by_number.gather)
    model, *_ = train(make_model, rows, STEPS)
    del rows
    gc.collect()
    assert held() is None
    model.fit(in_batches(48, 48), verbose=0)
    assert int(model.optimizer.iterations) == 6
