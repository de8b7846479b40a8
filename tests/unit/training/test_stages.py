"""The two stages from files and a configuration to saved models."""

import dataclasses
import shutil

import keras
import numpy as np
import pandas as pd
import pytest

from mptrec_tf import DataError, ModelError, SpecError, Task, load_model, make_dataset
from mptrec_tf.config import Sources, TrainingConfig
from mptrec_tf.files import only_one
from mptrec_tf.models.saving import saved_tasks
from mptrec_tf.optimizers import LazyAdagrad, LazyAdam
from mptrec_tf.training import (
    ResumableEarlyStopping,
    fitting,
    optimizer_for,
    pretrain,
    prompt_tune,
    stage1_data,
)


def predictions(model, sources):
    return model.predict(model.encoder.encode(sources.validation), verbose=0)


@pytest.fixture(scope="module")
def stage1(make_config, sources, tmp_path_factory):
    """A finished stage 1."""
    directory = tmp_path_factory.mktemp("stage1")
    return pretrain(make_config(), sources, directory, verbose=0), directory


@pytest.fixture
def copied(stage1, tmp_path):
    """Its directory, to go on in."""
    return shutil.copytree(stage1[1], tmp_path, dirs_exist_ok=True)


def test_both_stages_write_models_that_predict_the_same(make_config, sources, tmp_path):
    config = make_config()
    first = pretrain(config, sources, tmp_path, verbose=0)
    before = predictions(first.model, sources)
    second = prompt_tune(config, first.model, "buy", sources, tmp_path, verbose=0)
    after = predictions(second.model, sources)
    stored = predictions(load_model(tmp_path / "model.keras"), sources)
    assert list(stored) == ["click", "like", "buy"]
    for task in ("click", "like"):
        np.testing.assert_array_equal(before[task], after[task])
        np.testing.assert_array_equal(
            before[task], predictions(load_model(tmp_path / "stage1.keras"), sources)[task]
        )
    for task in stored:
        np.testing.assert_array_equal(stored[task], after[task])


@pytest.mark.parametrize("stream", [False, True])
def test_a_rule_must_match_rows_for_training_but_none_for_validation(
    make_config, frame, tmp_path, stream
):
    sources = Sources(str(tmp_path / "train.csv"), str(tmp_path / "validation.csv"), None)
    frame = frame.assign(answer=np.where(frame["buy"], "yes", "no"))
    frame.to_csv(sources.train, index=False)
    frame[frame["answer"] == "no"].to_csv(sources.validation, index=False)
    for value in ("yes", "YES"):
        config = make_config(stream=stream)
        tasks = (Task("click", "answer", positive=value), *config.tasks[1:])
        config = dataclasses.replace(config, tasks=tasks)
        if value == "yes":
            stage1_data(config, sources)
        else:
            with pytest.raises(DataError, match=r"train.csv: .* 'click' in column 'answer'"):
                stage1_data(config, sources)


def test_the_model_holds_the_weights_of_its_best_epoch(stage1, sources):
    trained, _ = stage1
    values = [epoch["val_mean_auc"] for epoch in trained.epochs]
    assert trained.best_epoch == int(np.argmax(values))
    validation = make_dataset(sources.validation, trained.model.encoder, trained.model.tasks)
    scored = trained.model.evaluate(validation, return_dict=True, verbose=0)
    assert scored["mean_auc"] == pytest.approx(max(values), abs=1e-6)


def test_a_finished_stage_is_not_trained_again(stage1, copied, make_config, sources):
    first, _ = stage1
    again = pretrain(make_config(), sources, copied, verbose=0)
    assert again.epochs == first.epochs
    assert again.model.fingerprint() == first.model.fingerprint()


@pytest.mark.parametrize(
    ("stream", "steps"),
    [
        pytest.param(False, 3, id="in memory"),
        pytest.param(True, 1, id="streamed", marks=pytest.mark.long),
    ],
)
def test_a_training_that_was_cut_off_ends_like_one_that_was_not(
    stream, steps, make_config, sources, monkeypatch, tmp_path
):
    class CutOff(ResumableEarlyStopping):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt
            super().on_epoch_begin(epoch, logs)

    training = {"epochs": 4, "steps_per_execution": steps}
    config = make_config(training=training, stream=stream)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "ResumableEarlyStopping", CutOff)
        pretrain(config, sources, tmp_path / "cut off", verbose=0)
    models = []
    for name in ("cut off", "undisturbed"):
        first = pretrain(config, sources, tmp_path / name, verbose=0).model
        models.append(prompt_tune(config, first, "buy", sources, tmp_path / name, verbose=0).model)
    assert models[0].fingerprint() == models[1].fingerprint()


@pytest.mark.long
def test_seeds_make_two_runs_equal_and_other_seeds_differ(make_config, sources, tmp_path):
    runs = [
        pretrain(make_config(), sources, tmp_path / name, seed=seed, verbose=0).model.fingerprint()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert runs[0] == runs[1] != runs[2]


def test_another_configuration_in_the_same_directory_is_refused(make_config, sources, copied):
    config = make_config({"expert_dropout": 0.5}, {"epochs": 4})
    named = r"another configuration .*: model.expert_dropout, training.epochs, seed\)"
    with pytest.raises(ModelError, match=named):
        pretrain(config, sources, copied, seed=1, verbose=0)


def test_the_same_rows_elsewhere_are_the_same_training(stage1, copied, make_config, sources):
    moved = shutil.copy(sources.train, copied / "moved.csv")
    again = pretrain(make_config(), sources._replace(train=str(moved)), copied, verbose=0)
    assert again.epochs == stage1[0].epochs


def test_other_rows_in_the_same_directory_are_refused(make_config, sources, copied):
    swapped = sources._replace(train=sources.validation)
    with pytest.raises(ModelError, match=r"other rows \(what differs: rows\)"):
        pretrain(make_config(), swapped, copied, verbose=0)


def test_two_trainings_in_one_directory_are_refused(make_config, sources, copied):
    config = make_config()
    model = load_model(copied / "stage1.keras")
    with only_one(copied):
        with pytest.raises(ModelError, match="another process works there"):
            pretrain(config, sources, copied, verbose=0)
        with pytest.raises(ModelError, match="another process works there"):
            prompt_tune(config, model, "buy", sources, copied, verbose=0)
    prompt_tune(config, model, "buy", sources, copied, verbose=0)


def test_an_interrupted_stage_2_leaves_the_model_as_it_was_and_goes_on_when_called_again(
    copied, make_config, sources, tmp_path, monkeypatch
):
    class CutOff(ResumableEarlyStopping):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt
            super().on_epoch_begin(epoch, logs)

    model = load_model(copied / "stage1.keras")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "ResumableEarlyStopping", CutOff)
        prompt_tune(make_config(), model, "buy", sources, copied, verbose=0)
    assert [task.name for task in model.tasks] == ["click", "like"]
    again = prompt_tune(make_config(), model, "buy", sources, copied, verbose=0)
    other = load_model(copied / "stage1.keras")
    whole = prompt_tune(make_config(), other, "buy", sources, tmp_path / "whole", verbose=0)
    assert again.model.fingerprint() == whole.model.fingerprint()


def test_a_model_that_fails_a_check_replaces_none(copied, make_config, sources):
    def refuse(trained):
        raise RuntimeError(f"not {trained.model.tuned_task}")

    config, model = make_config(), load_model(copied / "stage1.keras")
    prompt_tune(config, model, "buy", sources, copied, verbose=0)
    with pytest.raises(RuntimeError, match="not price"):
        prompt_tune(config, model, "price", sources, copied, verbose=0, check=refuse)
    assert saved_tasks(copied / "model.keras") == ["click", "like", "buy"]
    assert [task.name for task in model.tasks] == ["click", "like", "buy"]


def test_a_model_with_other_added_tasks_is_not_replaced(stage1, copied, make_config, sources):
    config = make_config()
    prompt_tune(config, load_model(copied / "stage1.keras"), "buy", sources, copied, verbose=0)
    before = (copied / "model.keras").read_bytes()
    with pytest.raises(ModelError, match=r"model\.keras has the tasks \['buy'\]"):
        prompt_tune(
            config, load_model(copied / "stage1.keras"), "price", sources, copied, verbose=0
        )
    assert (copied / "model.keras").read_bytes() == before
    assert not (copied / "stage2-price").exists()
    prompt_tune(config, load_model(copied / "stage1.keras"), "buy", sources, copied, verbose=0)
    prompt_tune(config, load_model(copied / "model.keras"), "price", sources, copied, verbose=0)
    assert saved_tasks(copied / "model.keras") == ["click", "like", "buy", "price"]


@pytest.mark.parametrize("stream", [False, True])
def test_other_rows_of_a_new_task_are_refused(stream, stage1, make_config, sources, tmp_path):
    config = make_config(stream=stream)
    keras_file = stage1[1] / "stage1.keras"
    prompt_tune(config, load_model(keras_file), "buy", sources, tmp_path, verbose=0)
    rows = pd.read_csv(sources.train)
    rows.loc[0, "buy"] = 1 - rows.loc[0, "buy"]
    rows.to_csv(tmp_path / "other.csv", index=False)
    other = sources._replace(train=str(tmp_path / "other.csv"))
    with pytest.raises(ModelError, match="another configuration"):
        prompt_tune(config, load_model(keras_file), "buy", other, tmp_path, verbose=0)


@pytest.mark.parametrize(("before", "after"), [(None, "float16"), ("float16", None)])
def test_another_precision_of_the_representations_is_refused(
    before, after, stage1, make_config, sources, tmp_path
):
    def tune(dtype):
        config = make_config(stage2={"cache": "memory", "cache_dtype": dtype})
        model = load_model(stage1[1] / "stage1.keras")
        prompt_tune(config, model, "buy", sources, tmp_path, verbose=0)

    tune(before)
    with pytest.raises(ModelError, match=r"what differs: cache_dtype\)"):
        tune(after)


def test_streamed_training_counts_its_steps_and_learns(make_config, sources, tmp_path):
    trained = pretrain(make_config(stream=True), sources, tmp_path, verbose=0)
    assert int(trained.model.optimizer.iterations) == 3 * 4  # 200 rows in batches of 64
    assert trained.epochs[-1]["click_loss"] < trained.epochs[0]["click_loss"]


def test_streamed_data_are_checked_as_a_whole_before_training(make_config, frame, tmp_path):
    bad = frame.astype({"age": object})
    bad.loc[len(bad) - 1, "age"] = "old"
    bad.to_csv(tmp_path / "bad.csv", index=False)
    frame.to_csv(tmp_path / "good.csv", index=False)
    sources = Sources(str(tmp_path / "good.csv"), str(tmp_path / "bad.csv"), None)
    with pytest.raises(DataError, match=r"bad\.csv.*'age'.*'old'"):
        pretrain(make_config(stream=True), sources, tmp_path / "out", verbose=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", [None, "assigned", "periodic"])
def test_each_adversarial_form_trains(make_config, sources, tmp_path, form):
    trained = pretrain(make_config({"adversarial": form}), sources, tmp_path, verbose=0)
    assert np.isfinite(trained.epochs[-1]["loss"])


def test_a_regression_task_is_watched_by_its_loss(copied, make_config, sources):
    model = load_model(copied / "stage1.keras")
    trained = prompt_tune(make_config(), model, "price", sources, copied, verbose=0)
    losses = [epoch["val_loss"] for epoch in trained.epochs]
    assert trained.best_epoch == int(np.argmin(losses))


def test_a_metric_that_no_task_has_is_refused_before_any_work(make_config, sources, tmp_path):
    with pytest.raises(SpecError, match="buy_auc"):
        pretrain(make_config(training={"monitor": "buy_auc"}), sources, tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())


def test_the_learning_rate_warms_up_and_decays_to_zero():
    optimizer = optimizer_for(TrainingConfig(learning_rate=0.01, warmup=0.25), steps=100)
    rate = optimizer._learning_rate
    assert isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
    expected = {0: 0.0, 5: 0.002, 25: 0.01, 62.5: 0.005, 100: 0.0}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-7)


def test_the_tables_have_an_optimizer_of_their_own_only_where_they_ask_for_one():
    plain = optimizer_for(TrainingConfig(weight_decay=0.02), steps=100)
    assert type(plain) is keras.optimizers.AdamW
    assert plain.weight_decay == 0.02

    kinds = {"adam": keras.optimizers.AdamW, "lazy_adam": LazyAdam, "adagrad": LazyAdagrad}
    for name, kind in kinds.items():
        training = TrainingConfig(
            learning_rate=0.01,
            warmup=0.25,
            weight_decay=0.02,
            embedding_optimizer=name,
            embedding_learning_rate=0.1,
        )
        optimizer = optimizer_for(training, steps=100)
        assert type(optimizer.embeddings) is kind
        assert type(optimizer.rest) is keras.optimizers.AdamW
        for part, rate in ((optimizer.embeddings, 0.1), (optimizer.rest, 0.01)):
            assert part.weight_decay == 0.02
            assert float(part._learning_rate(25)) == pytest.approx(rate)
            assert float(part._learning_rate(62.5)) == pytest.approx(rate / 2)
    same = optimizer_for(TrainingConfig(warmup=0.0, embedding_optimizer="lazy_adam"), steps=10)
    assert float(same.embeddings._learning_rate(0)) == pytest.approx(2e-3)


@pytest.mark.long
def test_both_stages_with_lazy_tables_go_on_after_a_cut(
    make_config, sources, monkeypatch, tmp_path
):
    class CutOff(ResumableEarlyStopping):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt
            super().on_epoch_begin(epoch, logs)

    settings = {"embedding_optimizer": "adagrad", "embedding_learning_rate": 0.05}
    config = make_config(training=settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "ResumableEarlyStopping", CutOff)
        pretrain(config, sources, tmp_path / "cut off", verbose=0)
    models = []
    for name in ("cut off", "undisturbed"):
        first = pretrain(config, sources, tmp_path / name, verbose=0).model
        models.append(prompt_tune(config, first, "buy", sources, tmp_path / name, verbose=0).model)
    assert models[0].fingerprint() == models[1].fingerprint()
