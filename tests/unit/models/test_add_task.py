"""Stage 2: tasks come and go, and nothing older changes."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import (
    DataError,
    FeatureEncoder,
    ModelError,
    MPTRec,
    NumericFeature,
    SpecError,
    Task,
    load_model,
    make_dataset,
    save_model,
)
from mptrec_tf.data.datasets import dataset_of_arrays
from mptrec_tf.models.parameters import count_parameters
from mptrec_tf.optimizers import SplitOptimizer

STAGE1 = ("click", "like")
SMALL = {"tower_units": (4,), "input_projection": 3, "query_units": 3}


def predict(model, x):
    return model.predict(x, batch_size=96, verbose=0)


def assert_same_bits(outputs, expected, names):
    for name in names:
        np.testing.assert_array_equal(outputs[name], expected[name], err_msg=name)


def paths(weights):
    return {weight.path for weight in weights}


@pytest.mark.parametrize("jit", [False, True])
def test_older_tasks_do_not_change_by_one_bit(trained, arrays, dataset, tasks, jit):
    model = trained
    model.compile("adam", run_eagerly=False, jit_compile=jit)
    x, _ = arrays("click")
    before = predict(model, x)

    model.add_task(tasks["buy"], **SMALL)
    untrained = predict(model, x)
    assert_same_bits(untrained, before, STAGE1)
    frozen, everything = model.fingerprint(frozen_only=True), model.fingerprint()
    data = dataset("buy", batch_size=96)
    history = model.fit(data, validation_data=data, verbose=0).history

    assert set(history) == {
        *("loss", "buy_loss", "buy_auc", "mean_auc"),
        *("val_loss", "val_buy_loss", "val_buy_auc", "val_mean_auc"),
    }
    after = predict(model, x)
    assert list(after) == ["click", "like", "buy"]
    assert_same_bits(after, before, STAGE1)
    assert not np.array_equal(after["buy"], untrained["buy"])
    assert model.fingerprint(frozen_only=True) == frozen
    assert model.fingerprint() != everything


def test_only_the_module_is_trained(trained, arrays, tasks):
    stage1 = paths(trained.weights)
    trained.add_task(tasks["buy"], **SMALL)
    module = trained.task_modules.modules["buy"]
    before = {weight.path: weight.numpy() for weight in trained.weights}

    x, y = arrays("buy")
    trained.fit(x, y, batch_size=40, verbose=0)

    assert paths(trained.trainable_weights) == paths(module.trainable_weights)
    assert not paths(module.weights) & stage1
    moved = {w.path for w in trained.weights if not np.array_equal(w, before[w.path])}
    moved.remove(f"{trained.name}/progress")
    assert moved == paths(module.weights)  # statistics of its input included
    # Adam: two slots for each weight, the iterations and the learning rate.
    assert len(trained.optimizer.variables) == 2 * len(module.trainable_weights) + 2


@pytest.mark.parametrize("attention", ["example", "embedding"])
def test_no_gradient_reaches_what_is_frozen(trained, arrays, tasks, monkeypatch, attention):
    """Asks the tape of a training step for the gradients that the step itself does not ask for."""
    trained.add_task(tasks["buy"], attention=attention, **SMALL)
    stage1 = [trained.backbone, trained.prompts, trained.gates, trained.towers, trained.adversary]
    frozen = [weight.value for layer in stage1 for weight in layer.weights]
    found = {}

    class Tape(tf.GradientTape):
        def __init__(self, persistent):
            assert not persistent
            super().__init__(persistent=True)

        def gradient(self, target, sources):
            found["frozen"] = super().gradient(target, frozen)
            found["trained"] = super().gradient(target, sources)
            return found["trained"]

    monkeypatch.setattr(tf, "GradientTape", Tape)
    trained.train_on_batch(*arrays("buy"))

    assert all(gradient is None for gradient in found["frozen"])
    module = trained.task_modules.modules["buy"]
    assert len(found["trained"]) == len(module.trainable_weights)
    assert all(gradient is not None for gradient in found["trained"])


def test_dropout_is_off_in_the_backbone(trained, arrays, tasks):
    x, _ = arrays("click")
    first, second = (trained.represent(x, training=True).shared.numpy() for _ in range(2))
    assert not np.array_equal(first, second)

    trained.add_task(tasks["buy"], **SMALL)

    inference = trained.represent(x)
    for _ in range(2):
        for part, expected in zip(trained.represent(x, training=True), inference, strict=True):
            np.testing.assert_array_equal(part, expected)


def test_dropout_is_on_in_the_module_that_is_trained(trained, arrays, tasks):
    x, _ = arrays("click")
    trained.add_task(tasks["buy"], **SMALL, dropout=0.5)
    trained.count_epoch()
    trained.add_task(tasks["share"], **SMALL, dropout=0.5)

    first, second = (trained(x, training=True) for _ in range(2))

    assert_same_bits(first, second, ("click", "like", "buy"))
    assert not np.array_equal(first["share"], second["share"])


def test_new_task_is_trained_on_rows_of_its_own(trained, rows, encoder, tasks):
    """Neither the rows nor the labels of stage 1 are needed."""
    fresh = {key: values[:10] for key, values in rows.items()}
    fresh = {**fresh, "age": fresh["age"] + 30, "city": np.full(10, "Kyiv")}
    labels = {"buy": np.arange(10) % 2}
    trained.add_task(tasks["buy"], **SMALL)

    history = trained.fit(encoder.encode(fresh), labels, verbose=0).history

    assert np.isfinite(history["loss"]).all()


def test_old_labels_may_come_along(trained, dataset, tasks):
    trained.add_task(tasks["buy"], **SMALL)

    history = trained.fit(
        dataset("buy"), validation_data=dataset("click", "buy"), epochs=2, verbose=0
    ).history

    assert {"buy_auc", "val_click_auc", "val_buy_auc", "val_mean_auc"} <= set(history)
    assert "click_auc" not in history
    assert history["val_click_auc"][0] == history["val_click_auc"][1]
    assert history["val_mean_auc"] == [
        pytest.approx(np.mean(pair))
        for pair in zip(history["val_click_auc"], history["val_buy_auc"], strict=True)
    ]


@pytest.mark.parametrize("attention", ["example", "embedding", "fixed"])
@pytest.mark.parametrize("representation", ["both", "specific", "shared"])
def test_every_variant_trains(trained, arrays, tasks, attention, representation):
    trained.add_task(tasks["buy"], attention=attention, representation=representation, **SMALL)
    module = trained.task_modules.modules["buy"]
    before = module.get_weights()
    frozen = trained.fingerprint(frozen_only=True)

    results = trained.train_on_batch(*arrays("buy"), return_dict=True)

    assert np.isfinite(results["loss"])
    moved = [not np.array_equal(a, b) for a, b in zip(before, module.get_weights(), strict=True)]
    assert all(moved)
    assert trained.fingerprint(frozen_only=True) == frozen


def test_new_task_learns(trained, rows, encoder):
    young = Task("young", "click", negative=1)
    data = make_dataset(rows, encoder, [young], batch_size=40)
    trained.compile(keras.optimizers.Adam(0.03), jit_compile=False)
    trained.add_task(young, tower_units=(16,))

    trained.fit(data, epochs=20, verbose=0)

    assert trained.evaluate(data, verbose=0, return_dict=True)["young_auc"] > 0.95


@pytest.mark.parametrize("settings", [{}, {"cache": "memory"}], ids=["plain", "cached"])
def test_a_rule_that_matches_no_row_of_the_new_task_is_refused(
    trained, rows, encoder, tasks, settings
):
    typo, small = Task("typo", "city_of_birth", positive="rome"), {"batch_size": 40}
    born = rows | {"city_of_birth": rows["city"]}
    old = Task("click", "city_of_birth", positive="rome")  # whose labels are evaluated only
    trained.add_task(typo, **SMALL)
    trained.evaluate(make_dataset(born, encoder, [typo], **small), verbose=0)
    with pytest.raises(DataError, match="'typo' in column 'city_of_birth' is positive='rome'"):
        trained.fit(make_dataset(born, encoder, [typo], **small), verbose=0, **settings)
    right = Task("typo", "city_of_birth", positive="Rome")
    trained.fit(make_dataset(born, encoder, [right, old], **small), verbose=0, **settings)


ORDERS = [("buy", "grade", "cost"), ("cost", "buy", "grade")]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_many_new_tasks_in_any_order(trained, arrays, tasks, order):
    x, _ = arrays("click")
    before = predict(trained, x)
    for count, name in enumerate(order, start=1):
        trained.add_task(tasks[name], **SMALL)
        assert trained.tuned_task == name
        trained.fit(*arrays(name), batch_size=96, verbose=0)

        after = predict(trained, x)
        assert list(after) == [*STAGE1, *order[:count]]
        assert_same_bits(after, before, before)
        before = after
    assert before["grade"].shape == (96, 3)
    assert [task.name for task in trained.tasks] == [*STAGE1, *order]
    results = trained.evaluate(*arrays(*STAGE1, *order), verbose=0, return_dict=True)
    assert {"click_auc", "like_auc", "buy_auc", "grade_accuracy", "cost_rmse"} <= set(results)


@pytest.fixture(scope="module")
def _grown(pretrained, copy_of, arrays, tasks):
    model = copy_of(pretrained)
    for name in ("buy", "grade", "share"):
        model.add_task(tasks[name], **SMALL)
        model.fit(*arrays(name), batch_size=96, verbose=0)
    return model


@pytest.fixture
def grown(_grown, copy_of):
    """A model to which three tasks were added and trained; the last is tuned."""
    return copy_of(_grown)


def test_drop_task_leaves_the_others_alone(grown, arrays):
    x, _ = arrays("click")
    before = predict(grown, x)
    dropped = grown.task_modules.modules["grade"]

    grown.drop_task("grade")

    after = predict(grown, x)
    assert list(after) == ["click", "like", "buy", "share"]
    assert_same_bits(after, before, after)
    assert grown.tuned_task == "share"
    assert not paths(grown.weights) & paths(dropped.weights)
    with pytest.raises(
        ModelError, match=r"no task 'grade'; its tasks are \['click', 'like', 'buy'"
    ):
        grown.task("grade")


def test_dropping_all_new_tasks_gives_stage_1_back(trained, grown, arrays):
    for name in ("share", "grade", "buy"):
        assert grown.tuned_task == name
        grown.drop_task(name)

    assert grown.tuned_task is None
    assert paths(grown.weights) == paths(trained.weights)
    assert paths(grown.trainable_weights) == paths(trained.trainable_weights)
    fingerprint = grown.fingerprint()
    grown.fit(*arrays(*STAGE1), verbose=0)
    assert grown.fingerprint() != fingerprint


def test_a_dropped_task_is_not_predicted_by_a_model_that_is_not_compiled(grown, arrays):
    x, _ = arrays("click")
    model = MPTRec.from_config(grown.get_config())
    assert not model.compiled
    assert list(predict(model, x)) == [*STAGE1, "buy", "grade", "share"]
    model.drop_task("buy")
    assert list(predict(model, x)) == [*STAGE1, "grade", "share"]


def test_a_dropped_name_can_be_used_again(grown, arrays, tasks):
    x, _ = arrays("click")
    before = predict(grown, x)
    grown.drop_task("buy")
    grown.add_task(tasks["buy"], **SMALL)
    grown.fit(*arrays("buy"), verbose=0)

    after = predict(grown, x)
    assert list(after) == ["click", "like", "grade", "share", "buy"]
    assert_same_bits(after, before, ("click", "like", "grade", "share"))
    assert not np.array_equal(after["buy"], before["buy"])


def test_tune_task_changes_that_task_only(grown, arrays):
    x, _ = arrays("click")
    before = predict(grown, x)

    grown.tune_task("buy", optimizer=keras.optimizers.SGD(0.1))
    frozen = grown.fingerprint(frozen_only=True)
    grown.fit(*arrays("buy"), verbose=0)

    after = predict(grown, x)
    assert_same_bits(after, before, ("click", "like", "grade", "share"))
    assert not np.array_equal(after["buy"], before["buy"])
    assert grown.fingerprint(frozen_only=True) == frozen
    assert type(grown.optimizer) is keras.optimizers.SGD
    module = grown.task_modules.modules["buy"]
    assert paths(grown.trainable_weights) == paths(module.trainable_weights)


def test_optimizer_begins_anew_with_the_same_settings(trained, tasks):
    trained.compile(keras.optimizers.AdamW(0.007, weight_decay=0.02), run_eagerly=True)
    old = trained.optimizer

    trained.add_task(tasks["buy"], **SMALL)

    assert trained.optimizer is not old
    assert type(trained.optimizer) is keras.optimizers.AdamW
    assert trained.optimizer.get_config() == old.get_config()
    assert int(trained.optimizer.iterations) == 0
    assert trained.run_eagerly


@pytest.mark.parametrize("split", [False, True])
def test_optimizer_begins_anew_with_the_rate_that_it_was_compiled_with(
    trained, arrays, tasks, tmp_path, split
):
    """A rate that training has lowered is that of a saved model, and of no new task."""
    optimizer = keras.optimizers.SGD(0.25)
    trained.compile(
        SplitOptimizer(keras.optimizers.SGD(0.125), optimizer) if split else optimizer,
        run_eagerly=True,
    )
    trained.fit(*arrays(*STAGE1), verbose=0)
    trained.optimizer.learning_rate = 0.0625
    save_model(trained, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.learning_rate) == 0.0625

    for model in (trained, loaded):
        model.add_task(tasks["buy"], **SMALL)
        assert float(model.optimizer.learning_rate) == 0.25
        model.optimizer.learning_rate = 0.0625
        model.tune_task("buy")
        assert float(model.optimizer.learning_rate) == 0.25
        model.optimizer.learning_rate = 0.0625
        model.drop_task("buy")
        assert float(model.optimizer.learning_rate) == 0.25
        if split:
            assert float(model.optimizer.embeddings.learning_rate) == 0.125


@pytest.mark.parametrize("part", [None, "inner_optimizer", "rest"])
def test_optimizer_begins_anew_with_what_no_configuration_holds(trained, arrays, tasks, part):
    """A schedule that Keras cannot make from its configuration, and what does not decay."""

    class Falling(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.25 / (1 + tf.cast(step, tf.float32))

    optimizer = own = keras.optimizers.AdamW(Falling())
    own.exclude_from_weight_decay(var_names=["bias"])
    if part == "inner_optimizer":
        optimizer = keras.optimizers.LossScaleOptimizer(own)
    elif part == "rest":
        optimizer = SplitOptimizer(keras.optimizers.Adam(lambda: 0.125), own)
    trained.compile(optimizer, run_eagerly=True)
    trained.fit(*arrays(*STAGE1), verbose=0)

    trained.add_task(tasks["buy"], **SMALL)

    assert float(trained.optimizer.learning_rate) == 0.25
    if part == "rest":
        assert float(trained.optimizer.embeddings.learning_rate) == 0.125
    trained.fit(*arrays("buy"), batch_size=96, verbose=0)
    assert float(trained.optimizer.learning_rate) == 0.125
    new = getattr(trained.optimizer, part) if part else trained.optimizer
    assert new is not own
    for weight in trained.trainable_weights:
        assert new._use_weight_decay(weight) == ("bias" not in weight.name)


def test_metrics_of_classes_that_keras_does_not_know_stay(trained, arrays, tasks):
    class Mine(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(abs(y_true - y_pred), sample_weight)

    variables = len(trained.variables)
    trained.compile("adam", run_eagerly=True, metrics={"click": [Mine("mine")]})
    assert len(trained.variables) == variables
    trained.add_task(tasks["buy"], **SMALL)
    x, y = arrays("click")
    error = np.mean(np.abs(predict(trained, x)["click"] - y["click"]))
    results = trained.evaluate(x, y, verbose=0, return_dict=True)
    assert results["click_mine"] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("grown_before", [False, True])
@pytest.mark.parametrize("wrong", ["optimizer", "metric"])
def test_a_task_that_could_not_be_added_is_not_there(trained, arrays, tasks, wrong, grown_before):
    trained.backbone.embedding.trainable = False
    name = "click_new_loss" if wrong == "metric" else "mse"
    metrics = {"click": [keras.metrics.MeanSquaredError(name.removeprefix("click_"))]}
    trained.compile("adam", run_eagerly=True, metrics=metrics)
    if grown_before:
        trained.add_task(tasks["share"], **SMALL)
    names = [task.name for task in trained.tasks]
    tuned, weights = trained.tuned_task, paths(trained.trainable_weights)
    new = Task("click_new", "buy")

    with pytest.raises(ValueError, match="adma" if wrong == "optimizer" else "click_new_loss"):
        trained.add_task(new, optimizer="adma" if wrong == "optimizer" else None, **SMALL)

    assert [task.name for task in trained.tasks] == names
    assert trained.tuned_task == tuned
    assert paths(trained.trainable_weights) == weights
    trained.fit(*arrays(*[task.name for task in trained.trained_tasks]), verbose=0)
    if wrong == "optimizer":
        trained.add_task(new, optimizer="adam", **SMALL)


def test_weight_decay_does_not_touch_what_is_frozen(trained, arrays, tasks):
    trained.add_task(tasks["buy"], **SMALL, optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.5))
    frozen = trained.fingerprint(frozen_only=True)

    trained.fit(*arrays("buy"), verbose=0)

    assert trained.fingerprint(frozen_only=True) == frozen


def test_l2_in_stage_2_is_that_of_the_module(make_model, arrays, tasks):
    model = make_model(*STAGE1, l2=0.5, l2_embedding=0.5)
    model.fit(*arrays(*STAGE1), verbose=0)
    model.add_task(tasks["buy"], **SMALL, l2=0.1)
    kernels = [w.numpy() for w in model.trainable_weights if "kernel" in w.path]
    x, y = arrays("buy")
    # Rows that are counted already leave the statistics as they are, so both losses have the same.
    inputs = model.represent(x).x
    model.task_modules.modules["buy"].input_path.standardization(inputs, training=True)

    without = model.evaluate(x, y, batch_size=96, verbose=0, return_dict=True)["loss"]
    loss = model.train_on_batch(x, y, return_dict=True)["loss"]

    penalty = 0.1 * sum(np.sum(np.square(kernel)) for kernel in kernels)
    assert loss - without == pytest.approx(penalty, rel=1e-3)


def test_inspection_of_an_added_task(grown, arrays):
    x, _ = arrays("click")

    prompts, gates = grown.prompt_weights(x), grown.gate_weights(x)

    assert list(prompts) == ["buy", "grade", "share"]
    assert list(gates) == ["click", "like", "buy", "grade", "share"]
    for values in (*prompts.values(), *gates.values()):
        assert values.shape == (96, 2)
        np.testing.assert_allclose(np.sum(values, -1), 1, rtol=1e-5)


def test_parts_that_a_variant_lacks_are_left_out(trained, arrays, tasks):
    x, _ = arrays("click")
    trained.add_task(tasks["buy"], **SMALL, representation="shared")
    trained.add_task(tasks["share"], **SMALL, representation="specific", attention="fixed")

    assert list(trained.prompt_weights(x)) == ["share"]
    np.testing.assert_array_equal(trained.prompt_weights(x)["share"], [[0.5, 0.5]])
    assert list(trained.gate_weights(x)) == list(STAGE1)


def test_published_parameter_share(rows, tasks):
    """With the published settings the new task's module is about a tenth of the model."""
    encoder = FeatureEncoder([NumericFeature("age", bins=32)]).adapt(rows)
    model = MPTRec(encoder, [tasks["click"], tasks["like"]])
    model.compile("adam", run_eagerly=True)
    model.count_epoch()
    model.add_task(tasks["buy"])

    trained, total = count_parameters(model)
    assert trained / total < 0.16


def test_parameters_are_those_that_a_stage_trains(trained, tasks):
    stage1 = sum(weight.numpy().size for weight in trained.trainable_weights)
    assert count_parameters(trained) == (stage1, stage1)
    trained.add_task(tasks["buy"], **SMALL)
    module = sum(weight.numpy().size for weight in trained.trainable_weights)
    assert count_parameters(trained) == (module, stage1 + module)


# What is refused


def test_tasks_that_cannot_be_added(trained, tasks):
    with pytest.raises(ModelError, match="already has a task 'click'"):
        trained.add_task(tasks["click"])
    with pytest.raises(SpecError, match=r"'old'.*'age' is also a feature"):
        trained.add_task(Task("old", "age", above=60))
    with pytest.raises(ValueError, match="representation must be one of"):
        trained.add_task(tasks["buy"], representation="none")

    assert [task.name for task in trained.tasks] == list(STAGE1)
    assert trained.tuned_task is None
    trained.add_task(tasks["buy"], **SMALL)
    with pytest.raises(ModelError, match="already has a task 'buy'"):
        trained.add_task(tasks["buy"])


def test_models_that_tasks_cannot_be_added_to(encoder, make_model, tasks):
    with pytest.raises(ModelError, match="train the model before the task 'buy'"):
        make_model(*STAGE1).add_task(tasks["buy"])
    with pytest.raises(ModelError, match="compile the model before the task 'buy'"):
        MPTRec(encoder, [tasks["click"]], expert_units=(4,)).add_task(tasks["buy"])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_tasks_can_be_added_after_a_loop_of_ones_own(make_model, arrays, tasks, jit_compile):
    settings = {"run_eagerly": not jit_compile, "jit_compile": jit_compile}
    model = make_model(*STAGE1, compile_with=settings)
    with pytest.warns(UserWarning, match="without begin_epoch"):
        model.train_on_batch(*arrays(*STAGE1))
    with warnings.catch_warnings(action="error", category=UserWarning):  # once is enough
        model.train_on_batch(*arrays(*STAGE1))
    model.add_task(tasks["buy"], **SMALL)
    assert model.tuned_task == "buy"


def test_a_loop_of_ones_own_that_tells_its_progress(make_model, arrays, tasks):
    model = make_model(*STAGE1)
    with warnings.catch_warnings(action="error", category=UserWarning):
        for epoch in range(2):
            model.begin_epoch(epoch / 2, steps_left=2 * (2 - epoch))
            for step in range(2):
                model.train_on_batch(*arrays(*STAGE1))
                done = (2 * epoch + step + 1) / 4
                assert float(model._training_progress()) == pytest.approx(done)
            model.count_epoch()
    assert model.trained_epochs == 2
    model.compile("adam", run_eagerly=True)  # its steps are forgotten, the epochs are not
    model.add_task(tasks["buy"], **SMALL)


def test_fit_and_models_without_an_adversary_need_not_be_told(make_model, arrays, copy_of):
    fitted, other = make_model(*STAGE1), make_model(*STAGE1, adversarial=None)
    with warnings.catch_warnings(action="error", category=UserWarning):
        other.train_on_batch(*arrays(*STAGE1))
        fitted.fit(*arrays(*STAGE1), verbose=0)
        fitted.train_on_batch(*arrays(*STAGE1))
        copy_of(fitted).train_on_batch(*arrays(*STAGE1))


@pytest.mark.parametrize("change", ["drop_task", "tune_task"])
def test_tasks_that_were_not_added(trained, change):
    with pytest.raises(ModelError, match="'click' is a task of stage 1"):
        getattr(trained, change)("click")
    with pytest.raises(ModelError, match="no task 'buy'"):
        getattr(trained, change)("buy")


def test_labels_of_the_new_task_are_needed(trained, arrays, tasks):
    trained.add_task(tasks["buy"], **SMALL)

    with pytest.raises(ModelError, match=r"labels of \['buy'\]"):
        trained.fit(*arrays(*STAGE1), verbose=0)


def test_shuffled_dataset_in_memory(trained, arrays, tasks):
    trained.add_task(tasks["buy"], **SMALL)
    data = dataset_of_arrays(arrays("buy"), batch_size=40, shuffle=True)

    assert np.isfinite(trained.fit(data, verbose=0).history["loss"]).all()
