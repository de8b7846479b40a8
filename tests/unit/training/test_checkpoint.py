"""Early stopping that survives a crash."""

import json

import keras
import numpy as np
import pytest

from mptrec_tf import FeatureEncoder, ModelError, MPTRec, Task, make_dataset
from mptrec_tf.spec import NumericFeature
from mptrec_tf.training import ResumableEarlyStopping

TASKS = [Task("click", "click")]


class CutOff(ResumableEarlyStopping):
    """Can die in the middle."""

    def __init__(self, *args, die_in=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.die_in = die_in

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.die_in:
            raise KeyboardInterrupt
        super().on_epoch_begin(epoch, logs)


class Scripted(CutOff):
    """Sees the values of a script instead of the metric's own."""

    def __init__(self, *args, values, **kwargs):
        super().__init__(*args, **kwargs)
        self.values, self.weights = values, {}

    def on_epoch_end(self, epoch, logs=None):
        self.weights[epoch] = self.model.fingerprint()
        super().on_epoch_end(epoch, {**logs, "val_click_auc": self.values[epoch]})


@pytest.fixture(scope="module")
def rows(frame):
    return frame[:128]


@pytest.fixture(scope="module")
def encoder(rows):
    return FeatureEncoder([NumericFeature("age")]).adapt(rows)


def train(rows, encoder, callback, epochs=6, **kwargs):
    model = MPTRec(encoder, TASKS, expert_units=(4,), tower_units=(2,))
    model.compile("adam", jit_compile=False)
    model.fit(
        make_dataset(rows, encoder, TASKS, batch_size=64),
        epochs=epochs,
        callbacks=[callback],
        verbose=0,
        **kwargs,
    )
    return model


def test_stops_after_patience_and_restores_the_best_weights(rows, encoder, tmp_path):
    callback = Scripted(
        tmp_path, "val_click_auc", patience=2, values=[0.5, 0.7, 0.6, 0.7, 0.9, 0.9]
    )
    model = train(rows, encoder, callback)
    assert len(callback.epochs) == 4  # an equal value is no improvement
    assert (callback.best_epoch, callback.best) == (1, 0.7)
    assert model.fingerprint() == callback.weights[1]


def test_a_loss_is_better_when_it_is_lower(rows, encoder, tmp_path):
    callback = Scripted(tmp_path, "val_click_auc", "min", patience=1, values=[0.5, 0.4, 0.6])
    train(rows, encoder, callback)
    assert (callback.best_epoch, len(callback.epochs)) == (1, 3)


def test_goes_on_after_the_last_finished_epoch_with_what_it_knew(rows, encoder, tmp_path):
    values = [0.5, 0.8, 0.6, 0.7, 0.9, 0.9]
    first = Scripted(tmp_path, "val_click_auc", patience=2, values=values, die_in=3)
    with pytest.raises(KeyboardInterrupt):
        train(rows, encoder, first)
    second = Scripted(tmp_path, "val_click_auc", patience=2, values=values)
    model = train(rows, encoder, second)
    assert list(second.weights) == [3]  # one more epoch, then patience is over
    assert [epoch["val_click_auc"] for epoch in second.epochs] == values[:4]
    assert model.fingerprint() == first.weights[1]


def test_after_a_resumed_training_was_cut_off_another_has_all_its_epochs(rows, encoder, tmp_path):
    model = MPTRec(encoder, TASKS, expert_units=(4,), tower_units=(2,))
    model.compile("adam", jit_compile=False)
    data = make_dataset(rows, encoder, TASKS, batch_size=64)
    for epoch in (1, 2):
        callback = Scripted(tmp_path, "val_click_auc", values=[0.1, 0.2], die_in=epoch)
        with pytest.raises(KeyboardInterrupt):
            model.fit(data, epochs=3, callbacks=[callback], verbose=0)
    assert model.fit(data, epochs=1, verbose=0).epoch == [0]


def test_so_has_one_of_a_plain_keras_model_in_another_directory(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    for epoch in (1, 2):
        cut_off = CutOff(tmp_path / "a", "loss", "min", die_in=epoch)
        with pytest.raises(KeyboardInterrupt):
            model.fit(np.ones((4, 1)), np.ones((4, 1)), epochs=3, callbacks=[cut_off], verbose=0)
    other = ResumableEarlyStopping(tmp_path / "b", "loss", "min")
    history = model.fit(np.ones((4, 1)), np.ones((4, 1)), callbacks=[other], verbose=0)
    assert history.epoch == [0]


def test_an_interrupted_training_keeps_the_optimizer_and_the_progress(rows, encoder, tmp_path):
    values = [0.1, 0.2, 0.3, 0.4]
    first = Scripted(tmp_path, "val_click_auc", values=values, die_in=2)
    with pytest.raises(KeyboardInterrupt):
        train(rows, encoder, first, epochs=4)
    second = Scripted(tmp_path, "val_click_auc", values=values)
    seen = {}

    original = second.on_epoch_begin

    def spy(epoch, logs=None):
        original(epoch, logs)
        seen[epoch] = (
            int(second.model.optimizer.iterations),
            float(second.model._training_progress()),
        )

    second.on_epoch_begin = spy
    model = train(rows, encoder, second, epochs=4)
    assert seen[2] == (4, pytest.approx(0.5))  # two steps an epoch, half of four epochs
    assert model.trained_epochs == 4


def test_a_training_that_is_over_only_restores(rows, encoder, tmp_path):
    values = [0.5, 0.4, 0.3]
    first = Scripted(tmp_path, "val_click_auc", patience=1, values=values)
    done = train(rows, encoder, first)
    second = Scripted(tmp_path, "val_click_auc", patience=1, values=values)
    again = train(rows, encoder, second)
    assert second.weights == {}
    assert again.fingerprint() == done.fingerprint()


def test_a_first_epoch_of_another_number_counts_as_the_first(rows, encoder, tmp_path):
    values = dict(zip(range(10, 16), [0.5, 0.8, 0.6, 0.7, 0.9, 0.9], strict=True))
    first = Scripted(tmp_path, "val_click_auc", patience=2, values=values, die_in=13)
    with pytest.raises(KeyboardInterrupt):
        train(rows, encoder, first, epochs=16, initial_epoch=10)
    second = Scripted(tmp_path, "val_click_auc", patience=2, values=values)
    model = train(rows, encoder, second, epochs=16, initial_epoch=10)
    assert list(second.weights) == [13]
    assert (second.best_epoch, second.best, len(second.epochs)) == (1, 0.8, 4)
    assert model.fingerprint() == first.weights[11]


def test_a_directory_without_the_number_of_the_first_epoch_began_at_zero(rows, encoder, tmp_path):
    values = [0.1, 0.2, 0.3]
    train(rows, encoder, Scripted(tmp_path, "val_click_auc", values=values), epochs=2)
    state = json.loads((tmp_path / "state.json").read_text())
    del state["initial_epoch"]
    (tmp_path / "state.json").write_text(json.dumps(state))
    second = Scripted(tmp_path, "val_click_auc", values=values)
    train(rows, encoder, second, epochs=3)
    assert list(second.weights) == [2]


def fit_shuffled(data, encoder, callback, **kwargs):
    keras.utils.set_random_seed(1)
    model = MPTRec(encoder, TASKS, expert_units=(4,), tower_units=(2,), seed=1)
    model.compile("adam", jit_compile=False, steps_per_execution=1)
    model.fit(data, callbacks=callback, verbose=0, **{"epochs": 4, **kwargs})
    return model


@pytest.mark.parametrize("anew", [False, True])
def test_rows_go_on_in_the_order_of_a_dataset_that_was_used_before(anew, rows, encoder, tmp_path):
    def run(data, name, die_in=None):
        callback = CutOff(tmp_path / name, "loss", "min", dataset=data, die_in=die_in)
        return fit_shuffled(data, encoder, callback).fingerprint()

    datasets = [
        make_dataset(rows, encoder, TASKS, batch_size=32, shuffle=True, seed=3) for _ in range(3)
    ]
    run(datasets[0], "before")
    undisturbed = run(datasets[0], "undisturbed")
    run(datasets[1], "the same before")
    with pytest.raises(KeyboardInterrupt):
        run(datasets[1], "cut off", die_in=2)
    assert run(datasets[2 if anew else 1], "cut off") == undisturbed


def test_a_dataset_that_was_read_too_far_must_be_made_anew(rows, encoder, tmp_path):
    class Dies(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (1, 2):
                raise KeyboardInterrupt

    data = make_dataset(rows, encoder, TASKS, batch_size=32, shuffle=True)
    callback = ResumableEarlyStopping(tmp_path, "loss", "min", dataset=data)
    with pytest.raises(KeyboardInterrupt):
        fit_shuffled(data, encoder, [callback, Dies()])
    with pytest.raises(ModelError, match=r"read beyond .* \(1 epochs\), .* make it anew"):
        fit_shuffled(data, encoder, callback)
    fit_shuffled(data, encoder, callback, epochs=1)  # no rows are read


def test_a_dataset_whose_batches_are_no_epoch_is_refused(rows, encoder, tmp_path):
    data = make_dataset(rows, encoder, TASKS, batch_size=32, shuffle=True)
    for dataset, steps in ((data, 2), (data.repeat(), 4), (data.filter(lambda *_: True), None)):
        callback = ResumableEarlyStopping(tmp_path, "loss", "min", dataset=dataset)
        with pytest.raises(ModelError, match="leave out steps_per_epoch, or dataset="):
            fit_shuffled(dataset, encoder, callback, steps_per_epoch=steps)


def test_half_written_files_do_not_matter(rows, encoder, tmp_path):
    values = [0.1, 0.2, 0.3]
    train(rows, encoder, Scripted(tmp_path, "val_click_auc", values=values), epochs=2)
    (tmp_path / ".partial-epoch-003.weights.h5").write_bytes(b"half")
    (tmp_path / ".partial-state.json").write_text("{")
    second = Scripted(tmp_path, "val_click_auc", values=values)
    train(rows, encoder, second, epochs=3)
    assert list(second.weights) == [2]


def test_only_the_last_and_the_best_weights_are_kept(rows, encoder, tmp_path):
    callback = Scripted(tmp_path, "val_click_auc", values=[0.1, 0.9, 0.3, 0.4])
    train(rows, encoder, callback, epochs=4)
    assert sorted(file.name for file in tmp_path.glob("*.h5")) == [
        "epoch-002.weights.h5",
        "epoch-004.weights.h5",
    ]
    assert json.loads((tmp_path / "state.json").read_text())["last"] == "epoch-004.weights.h5"


def test_a_metric_that_is_not_there_is_named(rows, encoder, tmp_path):
    with pytest.raises(ModelError, match="val_like_auc"):
        train(rows, encoder, ResumableEarlyStopping(tmp_path, "val_like_auc"), epochs=1)


def test_a_metric_that_is_never_a_number_is_named(rows, encoder, tmp_path):
    callback = Scripted(tmp_path, "val_click_auc", values=[np.nan, 0.5])
    with pytest.raises(ModelError, match="'val_click_auc', which is NaN after the first epoch"):
        train(rows, encoder, callback, epochs=2)
    assert not (tmp_path / "state.json").exists()


def test_an_epoch_without_a_number_is_no_improvement(rows, encoder, tmp_path):
    values = [0.5, np.nan, 0.6, np.nan, np.nan]
    callback = Scripted(tmp_path, "val_click_auc", patience=2, values=values)
    train(rows, encoder, callback)
    assert (callback.best_epoch, len(callback.epochs)) == (2, 5)


def test_a_wrong_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Received: 'up'"):
        ResumableEarlyStopping(tmp_path, "val_click_auc", "up")


def test_no_patience_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="patience must be 1 epoch or more"):
        ResumableEarlyStopping(tmp_path, "val_click_auc", patience=0)


def test_the_best_value_is_that_of_the_best_epoch(rows, encoder, tmp_path):
    callback = Scripted(tmp_path, "val_click_auc", values=[0.3, 0.2])
    train(rows, encoder, callback, epochs=2)
    assert np.isclose(callback.best, 0.3)
