"""Training, evaluation and prediction take as many steps as they are told, not whole calls."""

import keras
import numpy as np
import pytest

from mptrec_tf import ModelError


@pytest.fixture
def compiled(make_model):
    """Makes a model that takes several steps a call; without XLA, which takes longer to begin."""

    def make(**settings):
        keras.utils.set_random_seed(1)
        settings = {"run_eagerly": False, "jit_compile": False, **settings}
        return make_model("click", "price", compile_with=settings)

    return make


@pytest.mark.parametrize("jit_compile", [False, True])
def test_so_many_steps_an_epoch_are_trained(compiled, dataset, jit_compile):
    model = compiled(jit_compile=jit_compile)
    data = dataset("click", "price", batch_size=8).repeat()
    model.fit(data, epochs=2, steps_per_epoch=10, verbose=0)
    assert int(model.optimizer.iterations) == 20
    assert float(model._training_progress()) == pytest.approx(1)

    model.fit(dataset("click", "price", batch_size=8), verbose=0)
    assert int(model.optimizer.iterations) == 32
    assert model.steps_per_execution == 32


def test_the_next_epoch_goes_on_where_the_last_one_ended(compiled, dataset):
    """Of 12 batches, each of three epochs trains 4; so one pass over all of them it is."""
    data = dataset("click", "price", batch_size=8)
    model, single = compiled(), compiled(steps_per_execution=1)
    model.fit(data, epochs=3, steps_per_epoch=4, verbose=0)
    single.fit(data, verbose=0)
    for weight, other in zip(model.trainable_weights, single.trainable_weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-4, err_msg=weight.path)


def test_so_many_steps_are_evaluated_and_predicted(compiled, dataset, arrays):
    model = compiled()
    data = dataset("click", "price", batch_size=8)
    x, y = arrays("click", "price")
    scores = model.predict(x, batch_size=96, verbose=0)
    for steps in (1, 5):
        rows = slice(8 * steps)
        found = model.evaluate(data, steps=steps, verbose=0, return_dict=True)
        error = np.sqrt(np.mean(np.square(scores["price"][rows] - y["price"][rows])))
        assert found["price_rmse"] == pytest.approx(error, rel=1e-4)
        some = model.predict(data, steps=steps, verbose=0)["price"]
        np.testing.assert_allclose(some, scores["price"][rows], rtol=1e-4)


def test_so_many_steps_of_the_validation(compiled, dataset):
    model = compiled()
    data = dataset("click", "price", batch_size=8)
    history = model.fit(
        data.repeat(), epochs=2, steps_per_epoch=6, validation_data=data, validation_steps=4,
        verbose=0,
    ).history  # fmt: skip
    assert int(model.optimizer.iterations) == 12
    found = model.evaluate(data.take(4), verbose=0, return_dict=True)
    for name in ("loss", "price_rmse"):
        assert history[f"val_{name}"][-1] == pytest.approx(found[name], rel=1e-4)


def test_a_call_takes_the_most_steps_that_divide(compiled, dataset):
    model = compiled()
    for steps, expected in ((10, 10), (37, 1), (34, 17)):
        model.evaluate(dataset("click").repeat(), steps=steps, verbose=0)
        assert model.steps_per_execution == expected


def test_what_was_traced_for_a_number_of_steps_is_traced_once(compiled, dataset):
    model = compiled()
    data = dataset("click", "price", batch_size=8)
    model.evaluate(data, verbose=0)
    function = model.test_function
    model.evaluate(data, steps=3, verbose=0)
    assert model.test_function is not function
    model.evaluate(data, verbose=0)
    assert model.test_function is function


def test_steps_a_call_that_were_asked_for_must_divide(compiled, dataset):
    model = compiled(steps_per_execution=4)
    data = dataset("click", "price", batch_size=8)
    with pytest.raises(ModelError, match=r"steps_per_epoch=10 .* steps_per_execution=4"):
        model.fit(data.repeat(), steps_per_epoch=10, verbose=0)
    with pytest.raises(ModelError, match=r"validation_steps=2 .* steps_per_execution=4"):
        model.fit(data, validation_data=data, validation_steps=2, verbose=0)
    for ask in (model.evaluate, model.predict):
        with pytest.raises(ModelError, match=r"steps=3 .* steps_per_execution=4"):
            ask(data, steps=3, verbose=0)
    assert int(model.optimizer.iterations) == 0


def test_a_limit_for_all_epochs_is_kept(compiled, dataset):
    model = compiled()
    keras.config.set_max_steps_per_epoch(5)
    try:
        with pytest.warns(UserWarning, match="Limiting"):
            model.fit(dataset("click", "price", batch_size=8), verbose=0)
    finally:
        keras.config.set_max_steps_per_epoch(None)
    assert int(model.optimizer.iterations) == 5
