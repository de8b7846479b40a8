"""The periodic assignment of the reference code."""

import numpy as np
import pytest

from mptrec_tf import FeatureEncoder, ModelError, MPTRec, Task, make_dataset
from mptrec_tf.spec import CategoricalFeature, NumericFeature
from mptrec_tf.training import PeriodicAssignment

TASKS = [Task("click", "click"), Task("like", "like")]


@pytest.fixture
def setup(frame):
    rows = frame[:100]
    encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    model = MPTRec(
        encoder, TASKS, expert_units=(4,), tower_units=(2,), adversarial="periodic", seed=0
    )
    model.compile("adam", jit_compile=False)
    data = make_dataset(rows, encoder, TASKS, batch_size=32, shuffle=True, with_example_ids=True)
    return rows, encoder, model, data


def stored(model):
    return model.assignments.of(np.arange(100)).numpy()


def losses_by_hand(model, encoder, rows):
    """Binary cross-entropy of each task from `predict`."""
    scores = model.predict(encoder.encode(rows), verbose=0)
    columns = []
    for task in ("click", "like"):
        p, y = scores[task].astype(np.float64), rows[task].to_numpy()
        columns.append(-(y * np.log(p) + (1 - y) * np.log1p(-p)))
    return np.stack(columns, axis=-1)


def test_random_at_first_then_the_lowest_loss_of_each_row(setup):
    rows, encoder, model, data = setup
    model.fit(data, epochs=2, callbacks=[PeriodicAssignment(data, seed=3)], verbose=0)
    drawn = np.random.default_rng(3).integers(2, size=100)
    np.testing.assert_array_equal(stored(model), drawn)

    expected = losses_by_hand(model, encoder, rows).argmin(axis=-1)
    callback = PeriodicAssignment(data)
    callback.set_model(model)
    callback.on_epoch_begin(2)
    np.testing.assert_array_equal(stored(model), expected)


def test_odd_epochs_change_nothing(setup):
    _, _, model, data = setup
    callback = PeriodicAssignment(data, every=2)
    callback.set_model(model)
    callback.on_epoch_begin(0)
    first = stored(model)
    callback.on_epoch_begin(1)
    np.testing.assert_array_equal(stored(model), first)


def test_a_resumed_training_assigns_at_once(setup):
    rows, encoder, model, data = setup
    callback = PeriodicAssignment(data, every=2)
    callback.set_model(model)
    callback.on_epoch_begin(5)
    expected = losses_by_hand(model, encoder, rows).argmin(axis=-1)
    np.testing.assert_array_equal(stored(model), expected)


@pytest.mark.parametrize("count", [60, 200])
def test_another_training_on_other_rows_begins_anew(setup, frame, count):
    _, encoder, model, data = setup
    model.fit(data, callbacks=[PeriodicAssignment(data)], verbose=0)
    other = make_dataset(frame[:count], encoder, TASKS, batch_size=32, with_example_ids=True)
    model.fit(other, callbacks=[PeriodicAssignment(other, seed=5)], verbose=0)
    drawn = np.random.default_rng(5).integers(2, size=count)
    np.testing.assert_array_equal(model.assignments.of(np.arange(count)), drawn)


def test_without_the_callback_the_error_says_what_is_missing(setup):
    *_, model, data = setup
    with pytest.raises(ModelError, match="PeriodicAssignment"):
        model.fit(data, epochs=1, verbose=0)
