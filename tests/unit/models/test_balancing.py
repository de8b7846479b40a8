"""Balancing in the training of a model: many steps, half precision, files, resumed, stage 2."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import ModelError
from mptrec_tf.balancing import BALANCINGS, FAMO, Balancing, GradNorm, PCGrad
from mptrec_tf.training import ResumableEarlyStopping

NAMES = ("click", "like")


def state_of(model):
    """All that the balancing remembers."""
    balancing = model.balancing
    weights = [*balancing.weights, *getattr(balancing, "optimizer", balancing).variables]
    return [np.array(weight) for weight in weights]


def assert_same(model, other, **tolerance):
    for found, expected in zip(model.trainable_weights, other.trainable_weights, strict=True):
        np.testing.assert_allclose(found, expected, err_msg=expected.path, **tolerance)
    for found, expected in zip(state_of(model), state_of(other), strict=True):
        np.testing.assert_allclose(found, expected, **tolerance)


@pytest.fixture(scope="module")
def lacking(arrays):
    """A dataset in which some rows, and all of one batch, lack labels."""
    x, y = arrays(*NAMES)
    y["click"][::5] = np.nan
    y["like"][24:48] = np.nan
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(24).take(3)


@pytest.mark.parametrize("name", ["pcgrad", "famo"])
def test_many_steps_as_one_learn_as_single_ones(make_model, lacking, name):
    models = []
    for settings in ({"jit_compile": True, "steps_per_execution": 3}, {"run_eagerly": True}):
        keras.utils.set_random_seed(1)
        compile_with = {"run_eagerly": False, "optimizer": "sgd", "balancing": name, **settings}
        model = make_model(*NAMES, compile_with=compile_with, l2=1e-3)
        begun = state_of(model)
        model.fit(lacking, epochs=2, verbose=0)
        assert any((a != b).any() for a, b in zip(begun, state_of(model), strict=True))
        models.append(model)
    assert_same(*models, atol=1e-4)


def gradients_by_hand(model, x, y):
    """The gradient of each task's unweighted loss and of the rest, dense, by variable."""
    variables = model.trainable_weights
    with tf.GradientTape(persistent=True) as tape:
        outcome = model.training_outcome(x, y, {})
    rows = []
    for name, loss in [*outcome.task_losses.items(), (None, outcome.other)]:
        weight = model.task(name).loss_weight if name else 1.0
        gradients = tape.gradient(loss, variables)
        rows.append(
            [
                np.zeros(variable.shape) if g is None else tf.convert_to_tensor(g).numpy() / weight
                for g, variable in zip(gradients, variables, strict=True)
            ]
        )
    return rows


def test_pcgrad_of_the_whole_model(make_model, arrays):
    """One step of plain descent, against projections of the whole gradient vectors."""
    x, y = arrays("click", "like")
    y["like"] = 1 - y["click"]  # so that the tasks oppose each other
    sgd = keras.optimizers.SGD(1.0)
    model = make_model("click", "like", compile_with={"optimizer": sgd, "balancing": "pcgrad"})
    first, second, other = gradients_by_hand(model, x, y)

    def flat(gradients):
        return np.concatenate([g.ravel() for g in gradients])

    one, two = flat(first), flat(second)
    shared = (one != 0) & (two != 0)
    dot = (one * two)[shared].sum()
    assert dot < 0
    weights = model.task("click").loss_weight, model.task("like").loss_weight
    left = np.where(shared, one - dot / (two[shared] ** 2).sum() * two, one) * weights[0]
    left += np.where(shared, two - dot / (one[shared] ** 2).sum() * one, two) * weights[1]

    before = flat(np.array(w) for w in model.trainable_weights)
    model.train_on_batch(x, y)
    after = flat(np.array(w) for w in model.trainable_weights)
    np.testing.assert_allclose(before - after, left + flat(other), atol=2e-5)
    assert not np.allclose(before - after, weights[0] * one + weights[1] * two + flat(other))


def test_weights_of_losses_act_on_everything_but_what_belongs_to_no_task(make_model, arrays):
    @keras.saving.register_keras_serializable("test_balancing")
    class Fixed(Balancing):
        def factors(self, losses, gradients):
            return np.float32([2, 3])

    x, y = arrays("click", "like")
    sgd = keras.optimizers.SGD(1.0)
    model = make_model("click", "like", compile_with={"optimizer": sgd, "balancing": Fixed()})
    first, second, other = gradients_by_hand(model, x, y)
    before = [np.array(w) for w in model.trainable_weights]
    model.train_on_batch(x, y)
    for old, new, *parts in zip(before, model.trainable_weights, first, second, other, strict=True):
        expected = 2 * parts[0] + 3 * parts[1] + parts[2]
        np.testing.assert_allclose(old - new, expected, atol=2e-5, err_msg=new.path)


def test_looking_back_sees_the_same_dropout(make_model, lacking):
    """Without a step the losses are the same, so nothing is learned of it."""
    settings = {"run_eagerly": False, "steps_per_execution": 3, "balancing": "famo"}
    standing = {"optimizer": keras.optimizers.SGD(0.0), **settings}
    model = make_model(*NAMES, compile_with=standing, expert_dropout=0.5)
    model.fit(lacking, verbose=0)
    np.testing.assert_allclose(model.balancing.logits, [0, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "policy"),
    [("pcgrad", "mixed_bfloat16"), *((name, "mixed_float16") for name in BALANCINGS)],
)
def test_half_precision(make_model, arrays, name, policy):
    model = make_model(*NAMES, dtype=policy, compile_with={"balancing": name})
    history = model.fit(*arrays(*NAMES), batch_size=48, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert all(np.isfinite(weight).all() for weight in model.weights)
    assert all(np.isfinite(value).all() for value in state_of(model))


@pytest.mark.parametrize("name", ["pcgrad", "gradnorm"])
def test_weights_of_another_precision_learn_the_same(make_model, arrays, name):
    """Of tasks whose towers are of different widths, so that each has weights of its own."""
    names, learned = ("click", "kind"), {}
    start = make_model(*names).get_weights()
    for policy in ("float32", "float64", "bfloat16"):
        settings = {"optimizer": keras.optimizers.SGD(0.5), "balancing": name}
        model = make_model(*names, dtype=policy, compile_with=settings)
        model.set_weights(start)
        model.fit(*arrays(*names), batch_size=48, shuffle=False, verbose=0)
        learned[policy] = [np.asarray(weight, np.float32) for weight in model.trainable_weights]
    for exact, wide, half in zip(*learned.values(), strict=True):
        np.testing.assert_allclose(wide, exact, atol=1e-5)
        np.testing.assert_allclose(half, exact, atol=0.1)


@pytest.mark.parametrize(
    "balancing", [GradNorm(alpha=0.5), PCGrad(seed=7), FAMO(decay=0.1), "uncertainty"]
)
def test_goes_on_from_a_file_as_if_it_had_not_been_saved(make_model, arrays, tmp_path, balancing):
    model = make_model(*NAMES, compile_with={"balancing": balancing})
    model.fit(*arrays(*NAMES), batch_size=48, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.balancing.get_config() == model.balancing.get_config()
    for one in (model, loaded):
        one.run_eagerly = True
    assert_same(loaded, model, rtol=0)
    for one in (model, loaded):
        one.fit(*arrays(*NAMES), batch_size=48, shuffle=False, verbose=0)
    assert_same(loaded, model, rtol=0)


class Dies(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["gradnorm", "famo"])
def test_a_resumed_training_is_an_undisturbed_one_to_the_bit(make_model, lacking, tmp_path, name):
    def train(directory, *callbacks):
        keras.utils.set_random_seed(1)
        model = make_model(*NAMES, compile_with={"balancing": name}, expert_dropout=0.3, seed=5)
        early = ResumableEarlyStopping(directory, "val_like_loss", "min", dataset=lacking)
        settings = {"validation_data": lacking, "epochs": 2, "verbose": 0}
        model.fit(lacking, callbacks=[early, *callbacks], **settings)
        return model

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", Dies())
    assert_same(train(tmp_path / "resumed"), train(tmp_path / "whole"), rtol=0)


def test_stage_2_trains_one_task_and_has_nothing_to_balance(trained, arrays, tasks, tmp_path):
    trained.compile("adam", run_eagerly=True, balancing="pcgrad")
    assert isinstance(trained.balancing, PCGrad)
    count = trained.count_params()
    trained.add_task(tasks["buy"], tower_units=(4,))
    assert trained.balancing is None
    frozen = trained.fingerprint(frozen_only=True)
    trained.fit(*arrays("buy"), verbose=0)
    assert trained.fingerprint(frozen_only=True) == frozen

    trained.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.drop_task("buy")
    assert isinstance(loaded.balancing, PCGrad)
    assert loaded.count_params() == count


def test_a_balancing_begins_anew_with_each_compile(make_model, arrays):
    given = FAMO()
    model = make_model("click", "like", compile_with={"balancing": given})
    model.fit(*arrays("click", "like"), verbose=0)
    assert model.balancing is not given
    assert np.any(model.balancing.logits != 0)
    model.compile("adam", balancing=given)
    np.testing.assert_array_equal(model.balancing.logits, [0, 0])
    model.compile("adam")
    assert model.balancing is None


def test_tables_that_are_trainable_only_after_compile_ask_for_another_one(make_model, arrays):
    model = make_model(*NAMES)
    model.backbone.embedding.trainable = False
    model.compile("adam", run_eagerly=True, balancing="gradnorm")
    model.backbone.embedding.trainable = True
    with pytest.raises(ModelError, match=r"/table_\w+ was not trainable .* compile it again"):
        model.fit(*arrays(*NAMES), verbose=0)
    model.compile("adam", run_eagerly=True, balancing="gradnorm")
    model.fit(*arrays(*NAMES), verbose=0)


def test_what_is_no_balancing_is_refused(make_model):
    with pytest.raises(ValueError, match=r"\['famo', 'gradnorm'.*Received: 'gradnrom'"):
        make_model("click", "like", compile_with={"balancing": "gradnrom"})


def test_one_replica_is_enough_and_several_are_refused(make_model, arrays, monkeypatch):
    strategy = tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:1])
    settings = {"run_eagerly": False, "jit_compile": False, "balancing": "gradnorm"}
    with strategy.scope():
        model = make_model(*NAMES, compile_with=settings)
    model.fit(*arrays(*NAMES), verbose=0)
    assert (model.balancing.task_weights.numpy() != 1).all()

    two = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(type(model), "distribute_strategy", two)
    with pytest.raises(ModelError, match=r"GradNorm .* 2 replicas"):
        model.compile("adam", balancing="gradnorm")
