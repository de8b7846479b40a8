"""Lazy optimizers: the same steps as the dense ones, on the rows of the batch only."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.optimizers import LazyAdagrad, LazyAdam

ROWS, WIDTH, STEPS, RATE = 9, 3, 6, 0.05
KERAS = {LazyAdam: keras.optimizers.Adam, LazyAdagrad: keras.optimizers.Adagrad}
SETTINGS = [
    (LazyAdam, {}),
    (LazyAdam, {"weight_decay": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}),
    (LazyAdam, {"amsgrad": True, "beta_2": 0.5}),
    (LazyAdagrad, {}),
    (LazyAdagrad, {"weight_decay": 0.1, "initial_accumulator_value": 0.5, "epsilon": 1e-3}),
]


def batches(rows=ROWS - 2, size=8):
    """Ids with repetitions, none of the last two rows, and what their embeddings are weighted by.

    The gradient of a row is the sum of its weights.
    """
    rng = np.random.default_rng(0)
    ids = rng.integers(0, rows, (STEPS, size)).astype(np.int32)
    return ids, rng.normal(size=(STEPS, size, WIDTH)).astype(np.float32)


def initial(rows=ROWS):
    return np.random.default_rng(1).normal(size=(rows, WIDTH)).astype(np.float32)


def train(optimizer, ids, weights, way="graph", start=None, dense=False):
    """A table after a step for each batch; `dense` hides from the optimizer what was looked up."""
    table = keras.Variable(initial() if start is None else start)
    optimizer.build([table])

    def step(batch_ids, batch_weights):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table.value, batch_ids) * batch_weights)
        gradient = tape.gradient(loss, table.value)
        assert isinstance(gradient, tf.IndexedSlices)
        optimizer.apply([tf.convert_to_tensor(gradient) if dense else gradient])

    def loop(all_ids, all_weights):
        for index in tf.range(STEPS):
            step(all_ids[index], all_weights[index])

    if way == "loop":
        tf.function(loop, jit_compile=True)(ids, weights)
    else:
        run = step if way == "eager" else tf.function(step, jit_compile=way == "xla")
        for batch in zip(ids, weights, strict=True):
            run(*batch)
    return table


def in_numpy(optimizer, ids, weights):
    """The table and its slots, a row at a time, from the formulas in float64."""
    table, decay = initial().astype(np.float64), optimizer.weight_decay or 0.0
    adam = isinstance(optimizer, LazyAdam)
    start = 0.0 if adam else optimizer.initial_accumulator_value
    slots = [np.full(table.shape, start) for _ in range(3 if adam else 1)]
    for step, (batch_ids, batch_weights) in enumerate(zip(ids, weights, strict=True), 1):
        for row in set(batch_ids.tolist()):
            gradient = batch_weights[batch_ids == row].astype(np.float64).sum(0)
            table[row] -= RATE * decay * table[row]
            if adam:
                b1, b2 = optimizer.beta_1, optimizer.beta_2
                first, second, highest = (slot[row] for slot in slots)
                first[:] = b1 * first + (1 - b1) * gradient
                second[:] = b2 * second + (1 - b2) * gradient**2
                highest[:] = np.maximum(highest, second)
                root = np.sqrt(highest if optimizer.amsgrad else second)
                correction = np.sqrt(1 - b2**step) / (1 - b1**step)
                table[row] -= RATE * correction * first / (root + optimizer.epsilon)
            else:
                slots[0][row] += gradient**2
                table[row] -= RATE * gradient / np.sqrt(slots[0][row] + optimizer.epsilon)
    return table, slots


def slots_of(optimizer):
    return [variable.numpy() for variable in optimizer.variables[2:]]


@pytest.mark.parametrize("way", ["eager", "graph", "xla", "loop"])
@pytest.mark.parametrize(("lazy", "settings"), SETTINGS)
def test_the_rows_of_the_batch_follow_the_formulas_and_no_bit_of_others_changes(
    lazy, settings, way
):
    optimizer, untouched = lazy(RATE, **settings), lazy(RATE, **settings)
    untouched.build([keras.Variable(initial())])
    ids, weights = batches()
    table = train(optimizer, ids, weights, way)

    expected, slots = in_numpy(optimizer, ids, weights)
    np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-6)
    assert table.numpy()[-2:].tobytes() == initial()[-2:].tobytes()
    found = slots_of(optimizer)
    assert len(found) == (2 + optimizer.amsgrad if lazy is LazyAdam else 1)
    for slot, values, before in zip(found, slots, slots_of(untouched), strict=False):
        np.testing.assert_allclose(slot, values, rtol=1e-4, atol=1e-6)
        assert slot[-2:].tobytes() == before[-2:].tobytes()
    assert int(optimizer.iterations) == STEPS


@pytest.mark.parametrize(("lazy", "settings"), SETTINGS)
def test_where_each_step_looks_up_each_row_it_is_the_dense_optimizer(lazy, settings):
    ids, weights = batches()
    ids = np.concatenate([ids[:, :5], np.tile(np.arange(ROWS, dtype=np.int32), (STEPS, 1))], 1)
    weights = np.random.default_rng(3).normal(size=(*ids.shape, WIDTH)).astype(np.float32)
    table = train(lazy(RATE, **settings), ids, weights)
    expected = train(KERAS[lazy](RATE, **settings), ids, weights, dense=True)
    np.testing.assert_allclose(table, expected, rtol=1e-5, atol=1e-6)


def test_adagrad_without_decay_is_the_dense_optimizer_for_any_ids():
    table = train(LazyAdagrad(RATE), *batches())
    expected = train(keras.optimizers.Adagrad(RATE), *batches(), dense=True)
    np.testing.assert_allclose(table, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clipping", [{}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}])
@pytest.mark.parametrize(
    ("way", "lazy", "settings"),
    [("graph", *SETTINGS[1]), ("xla", *SETTINGS[2]), ("graph", *SETTINGS[4])],
)
def test_dense_gradients_are_trained_as_keras_does_to_the_bit(lazy, settings, way, clipping):
    settings = settings | clipping
    table = train(lazy(RATE, **settings), *batches(), way, dense=True)
    expected = train(KERAS[lazy](RATE, **settings), *batches(), way, dense=True)
    np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize(("lazy", "way"), [(LazyAdam, "graph"), (LazyAdagrad, "xla")])
@pytest.mark.parametrize(
    "clipping", [{"clipnorm": 0.5}, {"global_clipnorm": 0.5}, {"clipvalue": 0.2}]
)
def test_clipping_sees_the_whole_gradient_of_each_row(clipping, lazy, way):
    # The parts of row 0 nearly cancel, so a norm over parts would be far too large.
    ids = np.array([[0, 1, 0, 2]] * STEPS, np.int32)
    weights = np.array([[[9.0] * WIDTH, [0.3] * WIDTH, [-8.5] * WIDTH, [-0.1] * WIDTH]] * STEPS)
    weights = weights.astype(np.float32)
    # With every row looked up, lazy and dense agree.
    start = initial(3)
    table = train(lazy(RATE, **clipping), ids, weights, way, start=start)
    expected = train(KERAS[lazy](RATE, **clipping), ids, weights, start=start, dense=True)
    np.testing.assert_allclose(table, expected, rtol=1e-5)
    free = train(lazy(RATE), ids, weights, way, start=start)
    assert lazy is LazyAdam or not np.allclose(table, free, rtol=1e-3)


def test_global_norm_spans_tables_and_dense_weights():
    def run(lazy, dense):
        table, kernel = keras.Variable(initial(3)), keras.Variable(np.ones((WIDTH, 1), np.float32))
        optimizer = lazy(RATE, global_clipnorm=0.1)
        ids = tf.constant([0, 1, 0, 2])
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((tf.gather(table.value, ids) @ kernel) ** 2)
            of_table, of_kernel = tape.gradient(loss, [table.value, kernel.value])
            if dense:
                of_table = tf.convert_to_tensor(of_table)
            optimizer.apply([of_table, of_kernel], [table, kernel])
        return table.numpy(), kernel.numpy()

    for found, expected in zip(
        run(LazyAdagrad, False), run(keras.optimizers.Adagrad, True), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("way", ["graph", "xla"])
def test_a_schedule_sets_the_rate_of_each_step(way):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.3, 1, 0.5)
    table = train(LazyAdagrad(schedule), *batches(), way)
    expected = train(keras.optimizers.Adagrad(schedule), *batches(), dense=True)
    np.testing.assert_allclose(table, expected, rtol=1e-5, atol=1e-6)


def test_weights_excluded_from_decay_do_not_decay():
    decays, excluded = LazyAdagrad(RATE, weight_decay=0.1), LazyAdagrad(RATE, weight_decay=0.1)
    excluded.exclude_from_weight_decay(var_names=["variable"])
    table = train(excluded, *batches())
    np.testing.assert_array_equal(table, train(LazyAdagrad(RATE), *batches()))
    assert not np.array_equal(table, train(decays, *batches()))


def test_a_table_of_double_precision():
    ids, weights = batches()
    table = keras.Variable(initial(), dtype="float64")
    optimizer = LazyAdam(RATE)
    for batch_ids, batch_weights in zip(ids, weights, strict=True):
        gradient = tf.IndexedSlices(tf.cast(batch_weights, "float64"), batch_ids, table.shape)
        optimizer.apply([gradient], [table])
    expected, _ = in_numpy(LazyAdam(RATE), ids, weights)
    np.testing.assert_allclose(table, expected, rtol=1e-6)


def test_a_vector_and_ids_of_64_bits():
    vector = keras.Variable(np.arange(4, dtype=np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(vector.value, tf.constant([3, 3, 1], tf.int64)))
    LazyAdagrad(1.0, initial_accumulator_value=0.0).apply(
        [tape.gradient(loss, vector.value)], [vector]
    )
    np.testing.assert_allclose(vector, [0, 0, 2, 2], rtol=1e-5)


@pytest.mark.parametrize("lazy", KERAS)
@pytest.mark.parametrize(
    "setting", [{"use_ema": True}, {"gradient_accumulation_steps": 2}, {"loss_scale_factor": 8.0}]
)
def test_what_would_go_through_whole_tables_is_refused(lazy, setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"{lazy.__name__} cannot have {name}: .*Received: {name}"):
        lazy(RATE, **setting)


@pytest.mark.parametrize(("lazy", "settings"), SETTINGS)
def test_configuration_round_trip(lazy, settings):
    optimizer = lazy(RATE, clipnorm=3.0, name="mine", **settings)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is lazy
    assert again.get_config() == optimizer.get_config()
    assert {name: again.get_config()[name] for name in settings} == settings


def test_the_scratch_is_no_state():
    optimizer = LazyAdam(RATE)
    optimizer.build([keras.Variable(initial())])
    names = [variable.name for variable in optimizer.variables]
    assert len(names) == 4, names  # step, rate, two moments
