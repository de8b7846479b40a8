"""The search for the masks."""

import keras
import numpy as np
import pytest

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


def test_the_search_leaves_the_weights_as_they_were(model, dataset):
    beginning = {
        w.path: np.array(w) for w in [*model.weights, *model.optimizer.variables]
        if "mask" not in w.path
    }  # fmt: skip

    model.find_masks(dataset("click", "like", batch_size=48))

    for weight in model.weights:
        if "mask" not in weight.path:
            np.testing.assert_array_equal(weight, beginning[weight.path], err_msg=weight.path)
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


@pytest.mark.parametrize("settings", [{"density": 0.0}, {"pruning_rounds": 0}])
def test_wrong_settings_are_refused(make_baseline, settings):
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\]"):
        make_baseline("sparse_sharing", "click", **settings)
