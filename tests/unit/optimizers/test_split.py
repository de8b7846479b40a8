"""Tables with one optimizer, other weights with another one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import FeatureEmbedding
from mptrec_tf.optimizers import LazyAdagrad, LazyAdam, SplitOptimizer

IDS = np.array([[1, 4], [1, 0], [2, 4], [3, 3]])
LABELS = np.array([[1.0], [0.0], [2.0], [1.0]])


def make_model(optimizer, **compile_with):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="int32"),
            FeatureEmbedding([5, 6], [2, 2], name="embedding"),
            keras.layers.Dense(1, name="dense"),
        ]
    )
    model.compile(optimizer, "mse", **{"jit_compile": False, **compile_with})
    return model


def fit(model, epochs=3):
    return model.fit(IDS, LABELS, batch_size=2, epochs=epochs, shuffle=False, verbose=0)


def by_hand(steps, **rates):
    """The same training, each variable given to an optimizer of its own."""
    model = make_model("sgd")
    table, kernel, bias = (weight.value for weight in model.trainable_weights)
    of_table, of_rest = LazyAdagrad(rates["table"]), keras.optimizers.Adam(rates["rest"])
    for step in range(steps):
        rows = slice(2 * step % 4, 2 * step % 4 + 2)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(IDS[rows]) - LABELS[rows].astype(np.float32)) ** 2)
        gradients = tape.gradient(loss, [table, kernel, bias])
        of_table.apply(gradients[:1], model.trainable_weights[:1])
        of_rest.apply(gradients[1:], model.trainable_weights[1:])
    return model.get_weights()


@pytest.mark.parametrize("jit", [False, True])
def test_each_part_is_trained_by_its_own_optimizer(jit):
    optimizer = SplitOptimizer(LazyAdagrad(0.5), keras.optimizers.Adam(0.01))
    model = make_model(optimizer, jit_compile=jit)
    fit(model)
    expected = by_hand(6, table=0.5, rest=0.01)
    for found, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    parts = (optimizer, optimizer.embeddings, optimizer.rest)
    assert [int(part.iterations) for part in parts] == [6, 6, 6]


def test_tables_of_the_library_and_of_keras_are_found():
    optimizer = SplitOptimizer("sgd", "sgd")
    variables = [
        keras.Variable([0.0], name=name)
        for name in ("table_8", "embeddings", "kernel", "embeddings_bias", "tables")
    ]
    assert [optimizer.is_table(v) for v in variables] == [True, True, False, False, False]
    model = make_model(optimizer)
    assert [w.path for w in model.weights if optimizer.is_table(w)] == [
        f"{model.layers[0].path}/table_2"
    ]


def test_a_pattern_of_one_s_own_chooses_by_path():
    optimizer = SplitOptimizer(LazyAdagrad(0.5), keras.optimizers.SGD(0.0), tables="/dense/kernel$")
    model = make_model(optimizer)
    before = model.get_weights()
    fit(model)
    changed = [
        not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True)
    ]
    assert changed == [False, True, False]  # the table is looked up, but the pattern found others


def test_a_pattern_that_misses_every_table_is_refused_and_names_what_it_missed():
    model = make_model(SplitOptimizer(LazyAdam(0.1), "adam", tables="tabel"))
    with pytest.raises(ValueError, match=r"'tabel'.* Adam; looked up by id are \['.*table_2'\]"):
        fit(model)


def test_without_tables_only_rest_is_at_work():
    optimizer = SplitOptimizer(LazyAdam(0.1), keras.optimizers.Adam(0.1))
    kernel, alone = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    optimizer.apply([tf.constant([1.0, -1.0])], [kernel])
    keras.optimizers.Adam(0.1).apply([tf.constant([1.0, -1.0])], [alone])
    np.testing.assert_array_equal(kernel, alone)
    assert int(optimizer.iterations) == 1


def test_the_learning_rate_is_that_of_rest_and_callbacks_can_set_it():
    optimizer = SplitOptimizer(LazyAdam(0.1), keras.optimizers.Adam(0.01))
    model = make_model(optimizer)
    model.fit(
        IDS,
        LABELS,
        verbose=0,
        callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)],
    )
    assert float(optimizer.learning_rate) == pytest.approx(0.005)
    assert float(optimizer.embeddings.learning_rate) == pytest.approx(0.1)


def test_averages_take_the_place_of_the_variables_at_the_end():
    rest = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    model = make_model(SplitOptimizer(LazyAdagrad(0.5), rest))
    alone = make_model(SplitOptimizer(LazyAdagrad(0.5), keras.optimizers.SGD(0.5)))
    fit(model, epochs=1)
    fit(alone, epochs=1)
    table, kernel, _ = model.get_weights()
    np.testing.assert_array_equal(table, alone.get_weights()[0])
    np.testing.assert_array_equal(kernel, rest._model_variables_moving_average[0])
    assert not np.array_equal(kernel, alone.get_weights()[1])


@pytest.mark.parametrize(
    "setting", [{"gradient_accumulation_steps": 2}, {"loss_scale_factor": 8.0}]
)
@pytest.mark.parametrize("role", ["embeddings", "rest"])
def test_settings_that_concern_both_are_refused_in_one(role, setting):
    (name,) = setting
    parts = {"embeddings": "sgd", "rest": "sgd", role: keras.optimizers.SGD(**setting)}
    with pytest.raises(ValueError, match=f"{role} cannot have {name}.* Received: {name}"):
        SplitOptimizer(**parts)


def test_parts_that_cannot_be_parts_are_refused():
    one = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="one given twice"):
        SplitOptimizer(one, one)
    with pytest.raises(ValueError, match="embeddings cannot be a SplitOptimizer"):
        SplitOptimizer(SplitOptimizer("sgd", "sgd"), "sgd")
    with pytest.raises(ValueError, match="rest cannot be a LossScaleOptimizer"):
        SplitOptimizer("sgd", keras.optimizers.LossScaleOptimizer(one))
    with pytest.raises(ValueError, match=r"regular expression: .* Received: '\('"):
        SplitOptimizer("sgd", "adam", tables="(")


def test_configuration_round_trip():
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    optimizer = SplitOptimizer(
        LazyAdam(0.1, weight_decay=0.2), keras.optimizers.AdamW(rate), tables="t$", name="mine"
    )
    config = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(config)
    assert again.get_config() == optimizer.get_config()
    assert (type(again.embeddings), type(again.rest)) == (LazyAdam, keras.optimizers.AdamW)
    assert again.embeddings.weight_decay == 0.2
    assert isinstance(again.rest._learning_rate, keras.optimizers.schedules.CosineDecay)
    assert SplitOptimizer.from_config(optimizer.get_config()).tables == "t$"


def test_the_state_of_both_is_in_files_of_weights(tmp_path):
    def new():
        return make_model(SplitOptimizer(LazyAdam(0.1), keras.optimizers.Adam(0.1)))

    model, again = new(), new()
    fit(model)
    model.save_weights(tmp_path / "state.weights.h5")
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "state.weights.h5")
    for found, wanted in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(found, wanted, err_msg=wanted.path)
    fit(model)
    fit(again)
    for found, wanted in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_state_of_both_is_set_from_arrays():
    def new():
        return make_model(SplitOptimizer(LazyAdam(0.1), keras.optimizers.Adam(0.1)))

    model, again = new(), new()
    fit(model)
    again.set_weights(model.get_weights())
    state = [variable.numpy() for variable in model.optimizer.variables]
    with pytest.raises(ValueError, match=r"has 6 variables; call build.* Received: \d+ weights"):
        again.optimizer.set_weights(state)
    again.optimizer.build(again.trainable_variables)
    with pytest.raises(ValueError, match=rf"has {len(state)} variables\. Received: 2 weights"):
        again.optimizer.set_weights(state[:2])
    again.optimizer.set_weights(state)
    fit(model)
    fit(again)
    for found, wanted in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_variables_of_both_are_excluded_from_weight_decay():
    decaying = {"learning_rate": 0.1, "weight_decay": 1.0}
    optimizer = SplitOptimizer(LazyAdam(**decaying), keras.optimizers.AdamW(**decaying))
    names = ("table_5", "table_6", "kernel", "bias")
    variables = [keras.Variable([1.0], name=name) for name in names]
    optimizer.exclude_from_weight_decay(var_names=["bias", "table_6"])
    optimizer.apply([tf.zeros(1)] * 4, variables)
    np.testing.assert_allclose(np.concatenate(variables), [0.9, 1, 0.9, 1], rtol=1e-6)
