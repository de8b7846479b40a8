"""The search for the masks."""

import keras
import numpy as np
import pytest

from mptrec_tf import ModelError, make_dataset
from mptrec_tf.training import ResumableEarlyStopping

from .conftest import randomize


def test_pruning_takes_the_smallest_weights_of_each_layer(make_baseline):
    model = make_baseline("sparse_sharing", "click", "like", expert_units=(2, 2))
    first, second = model.network.kernels
    rows = first.shape[0]
    first.assign(np.arange(2 * rows).reshape(rows, 2) - 3.0)
    second.assign([[1.0, -4.0], [-2.0, 3.0]])

    model.network.prune(1, 0.5)
    model.network.prune(1, 0.5)

    masks = [np.array(mask) for mask in model.network.masks]
    assert (masks[0][:, 0] == 1).all() and (masks[1][0] == 1).all()
    np.testing.assert_array_equal(masks[1][1], [[0, 1], [0, 0]])
    magnitudes = np.abs(np.array(first))
    kept = masks[0][:, 1] == 1
    assert kept.sum() == round(0.5 * round(0.5 * 2 * rows))
    assert magnitudes[kept].min() >= magnitudes[~kept].max()
    assert model.mask_densities() == {
        "click": 1.0,
        "like": pytest.approx((kept.sum() + 1) / (2 * rows + 4)),
    }


@pytest.fixture
def model(make_baseline):
    """A model whose weights move far in a step."""
    model = make_baseline(
        "sparse_sharing",
        "click",
        "like",
        density=0.25,
        pruning_rounds=2,
        compile_with={"optimizer": keras.optimizers.Adam(0.2)},
    )
    randomize(model)
    return model


@pytest.mark.parametrize("balancing", [None, "famo"])
def test_the_search_leaves_all_as_it_was(model, dataset, balancing):
    model.compile(keras.optimizers.Adam(0.2), run_eagerly=True, balancing=balancing)
    before = model.balancing
    state = [] if before is None else [*before.weights, *before.optimizer.variables]
    balanced = [np.array(weight) for weight in state]
    beginning = {
        w.path: np.array(w) for w in [*model.weights, *model.optimizer.variables]
        if "mask" not in w.path
    }  # fmt: skip

    model.find_masks(dataset("click", "like", batch_size=48))

    for weight in model.weights:
        if "mask" not in weight.path:
            np.testing.assert_array_equal(weight, beginning[weight.path], err_msg=weight.path)
    assert model.balancing is before
    for weight, value in zip(state, balanced, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    assert all(float(np.sum(np.abs(v))) == 0 for v in model.optimizer.variables[2:])
    assert int(model.optimizer.iterations) == model.trained_epochs == 0
    densities = model.mask_densities()
    assert all(value == pytest.approx(0.25, abs=0.02) for value in densities.values())
    click, like = (np.array(model.network.masks[1])[k] for k in range(2))
    assert 0 < np.sum(click * like) < np.sum(click)


def test_fit_searches_once(model, dataset):
    data = dataset("click", "like", batch_size=48)
    model.fit(data, epochs=1, verbose=0)
    masks = [np.array(mask) for mask in model.network.masks]
    assert int(model.optimizer.iterations) == 2
    assert model.trained_epochs == 1

    model.fit(data, epochs=1, verbose=0)

    assert int(model.optimizer.iterations) == 4
    for mask, before in zip(model.network.masks, masks, strict=True):
        np.testing.assert_array_equal(mask, before)


def test_tasks_are_balanced_again_after_the_search(make_baseline, dataset):
    """The steps of the search were compiled without the balancing."""
    settings = {"run_eagerly": False, "jit_compile": False, "balancing": "famo"}
    model = make_baseline("sparse_sharing", "click", "like", compile_with=settings)

    model.fit(dataset("click", "like", batch_size=48), verbose=0)

    assert int(model.optimizer.iterations) == int(model.balancing.optimizer.iterations) == 2


def test_the_search_sees_the_rows_and_the_batches_of_fit(model, arrays):
    """Given by name or by position: those that `validation_split` holds out are not seen."""
    x, y = arrays("click", "like")
    y["click"][:72] = np.nan
    y["like"][:72] = np.nan
    kernel = np.abs(np.array(model.network.kernels[1]))
    steps = []

    class Steps(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            steps.append(self.params["steps"])

    model.fit(x, y, 24, 1, 0, callbacks=[Steps()], validation_split=0.25)

    assert steps == [3]
    for mask in np.array(model.network.masks[1]) == 1:
        assert kernel[mask].min() >= kernel[~mask].max()


@pytest.mark.parametrize("policy", ["bfloat16", "float64"])
def test_weights_of_another_precision_are_trained(make_baseline, dataset, policy):
    sgd = {"optimizer": keras.optimizers.SGD(0.5)}
    model = make_baseline("sparse_sharing", "click", "like", dtype=policy, compile_with=sgd)
    before = [np.array(kernel) for kernel in model.network.kernels]

    history = model.fit(dataset("click", "like", batch_size=48), verbose=0).history

    assert np.isfinite(history["loss"]).all()
    for kernel, old in zip(model.network.kernels, before, strict=True):
        assert kernel.dtype == policy
        assert (np.array(kernel) != old).any()


@pytest.mark.parametrize("verbose", [0, 2])
def test_the_search_is_as_verbose_as_fit(model, dataset, capsys, verbose):
    model.fit(dataset("click", "like", batch_size=48), epochs=3, verbose=verbose)

    rounds = 2 * model.pruning_rounds  # of one epoch each
    assert capsys.readouterr().out.count("2/2") == (rounds + 3 if verbose else 0)


def test_without_compile(make_baseline, dataset):
    model = make_baseline("sparse_sharing", "click", "like")
    model = type(model).from_config(model.get_config())
    with pytest.raises(ValueError, match=r"must call `compile\(\)`"):
        model.fit(dataset("click", "like"))
    with pytest.raises(ModelError, match="compile the model before its masks are searched"):
        model.find_masks(dataset("click", "like"))


REPLICAS = """
tasks = [mpt.Task(name, name) for name in ("click", "like")]
data = mpt.make_dataset(rows, encoder, tasks, batch_size=32)


def make_model():
    model = MODELS["sparse_sharing"](
        encoder, tasks, expert_units=(6,), tower_units=(4,), density=0.5, pruning_rounds=1
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False)
    return model


def train(model):
    model.fit(data, epochs=2, verbose=0)
    return {
        "densities": list(model.mask_densities().values()),
        "weights": {w.path: w.numpy().tolist() for w in model.weights},
    }
"""


def test_two_replicas_find_the_masks_of_one(one_and_two_replicas):
    one, two = one_and_two_replicas(REPLICAS)

    assert one["densities"] == two["densities"] == [0.5, 0.5]
    assert one["iterations"] == two["iterations"] == 6
    assert one["weights"].keys() == two["weights"].keys()
    for path, values in one["weights"].items():
        np.testing.assert_allclose(two["weights"][path], values, atol=1e-4, err_msg=path)


class Killed(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_a_training_that_is_resumed_is_not_searched_again(
    make_baseline, encoder, tasks, rows, tmp_path, monkeypatch
):
    """And ends, to the bit, as one that was not cut off."""
    names = ("click", "like")

    def train(directory, *callbacks):
        keras.utils.set_random_seed(5)
        model = make_baseline(
            "sparse_sharing",
            *names,
            pruning_epochs=2,
            pruning_rounds=1,
            expert_dropout=0.3,
            seed=4,
        )
        used = [tasks[name] for name in names]
        data = make_dataset(rows, encoder, used, batch_size=40, shuffle=True, seed=9)
        stopping = ResumableEarlyStopping(directory, "val_loss", "min", patience=9, dataset=data)
        settings = {"validation_data": make_dataset(rows, encoder, used), "verbose": 0}
        model.fit(data, epochs=4, callbacks=[*callbacks, stopping], **settings)
        return model, stopping

    expected, undisturbed = train(tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", Killed())
    monkeypatch.setattr(type(expected), "find_masks", lambda *_, **__: pytest.fail("a search"))
    for _ in range(2):  # once to go on, once when it is over
        model, resumed = train(tmp_path / "killed")

        assert max(model.mask_densities().values()) < 1
        assert model.fingerprint() == expected.fingerprint()
        assert [epoch["loss"] for epoch in resumed.epochs] == [
            epoch["loss"] for epoch in undisturbed.epochs
        ]


def test_each_mask_is_found_by_its_task_alone(model, arrays):
    """A task whose labels are missing trains nothing: the smallest initial weights go."""
    x, y = arrays("click", "like")
    y["like"][:] = np.nan
    kernel = np.abs(np.array(model.network.kernels[1]))

    model.find_masks(x, y, batch_size=48)

    mask = np.array(model.network.masks[1])[1] == 1
    assert kernel[mask].min() >= kernel[~mask].max()


def test_a_search_that_fails_leaves_no_masks(model, dataset, monkeypatch):
    monkeypatch.setattr(type(model.network), "prune", lambda *_: 1 / 0)
    before = model.fingerprint()

    with pytest.raises(ZeroDivisionError):
        model.fit(dataset("click", "like", batch_size=48), verbose=0)

    assert model.fingerprint() == before
    assert model.mask_densities() == {"click": 1.0, "like": 1.0}


def test_a_density_of_nothing_is_refused(make_baseline):
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\]. Received: 0.0"):
        make_baseline("sparse_sharing", "click", density=0.0)
