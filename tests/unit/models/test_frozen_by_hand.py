"""Layers that the user has frozen in stage 1 stay so, and what stage 2 has frozen, too."""

import warnings

import keras
import numpy as np
import pytest

from mptrec_tf import ModelError, MPTRec, load_model

STAGE1 = ("click", "like")


@pytest.fixture
def model(make_model, arrays):
    model = make_model(*STAGE1)
    model.backbone.embedding.trainable = False
    model.compile("adam", run_eagerly=True)
    model.fit(*arrays(*STAGE1), batch_size=48, epochs=2, verbose=0)
    return model


def names(model):
    return [weight.path for weight in model.trainable_weights]


def test_a_file_keeps_them_and_the_optimizer_s_state(model, tmp_path):
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns where it leaves an optimizer's state out
        read = load_model(tmp_path / "model.keras")
    assert not any("embedding" in name for name in names(read))
    assert names(read) == names(model)
    assert int(read.optimizer.iterations) == int(model.optimizer.iterations) == 4
    assert names(MPTRec.from_config(model.get_config())) == names(model)


@pytest.mark.parametrize("through_a_file", [False, True])
def test_they_are_frozen_again_when_the_added_tasks_are_gone(
    model, tasks, arrays, tmp_path, through_a_file
):
    before = names(model)
    model.add_task(tasks["buy"], tower_units=(4,))
    model.fit(*arrays("buy"), verbose=0)
    if through_a_file:
        model.save(tmp_path / "model.keras")
        model = load_model(tmp_path / "model.keras")
    model.drop_task("buy")
    assert names(model) == before
    model.fit(*arrays(*STAGE1), batch_size=48, verbose=0)


def test_dropping_another_task_leaves_the_optimizer_as_it_is(pretrained, copy_of, tasks, arrays):
    model = copy_of(pretrained)
    for name in ("buy", "share"):
        model.add_task(tasks[name], tower_units=(4,), optimizer=keras.optimizers.Adam(0.01))
        model.fit(*arrays(name), batch_size=48, verbose=0)
    state = [np.array(variable) for variable in model.optimizer.variables]
    model.drop_task("buy")
    assert int(model.optimizer.iterations) == 2
    for variable, before in zip(model.optimizer.variables, state, strict=True):
        np.testing.assert_array_equal(variable, before)
    model.fit(*arrays("share"), batch_size=48, verbose=0)
    assert int(model.optimizer.iterations) == 4
    model.tune_task("share")
    assert int(model.optimizer.iterations) == 0
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize("part", ["model", "backbone", "other module"])
def test_stage_2_trains_its_module_alone_whatever_is_set_to_be_trainable(
    make_model, tasks, arrays, part
):
    model = make_model(*STAGE1, l2=0.1, l2_embedding=0.1)
    model.fit(*arrays(*STAGE1), verbose=0)
    for name in ("share", "buy"):
        model.add_task(tasks[name], tower_units=(4,))
    before, frozen = names(model), model.fingerprint(frozen_only=True)
    modules = model.task_modules.modules
    layer = {"model": model, "backbone": model.backbone, "other module": modules["share"]}[part]
    layer.trainable = False
    layer.trainable = True
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.5), run_eagerly=True)
    model.fit(*arrays("buy"), verbose=0)
    assert names(model) == before
    assert model.fingerprint(frozen_only=True) == frozen
    if part == "model":
        assert not model.backbone.trainable


def test_a_model_that_is_all_frozen_is_not_trained(make_model, arrays):
    model = make_model(*STAGE1)
    model.trainable = False
    with pytest.raises(ModelError, match="there is nothing to train"):
        model.fit(*arrays(*STAGE1), verbose=0)
    model.trainable = True
    model.fit(*arrays(*STAGE1), verbose=0)
