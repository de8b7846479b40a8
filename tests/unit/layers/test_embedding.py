import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import FeatureEmbedding

MIXED = {
    "sizes": [3, 4, 5],
    "dims": [2, 3, 2],
    "multivalued_sizes": [4, 6, 3],
    "multivalued_dims": [3, 2, 4],
    "multivalued_lengths": [2, 3, 1],
    "poolings": ["mean", "sum", "max"],
}
COMPRESSED = {**MIXED, "divisors": [2, None, 2, 3, 4, 5]}  # the last has fewer ids: not compressed
IDS = tf.constant([[0, 3, 4], [2, 0, 0], [1, 1, 1]])
LISTS = tf.constant([[1, 0, 5, 2, 5, 2], [0, 0, 0, 0, 0, 0], [3, 2, 0, 4, 0, 1]])
POOL = {
    "mean": lambda rows, width: np.mean(rows, 0) if len(rows) else np.zeros(width),
    "sum": lambda rows, width: np.sum(rows, 0) if len(rows) else np.zeros(width),
    "max": lambda rows, width: np.max(rows, 0) if len(rows) else np.zeros(width),
}


def tables_by_column(layer):
    """Each column's own table with a row for each id, put together from the shared ones.

    In a shared table the compressed columns come last; each has its remainder rows first.
    """
    sizes, dims = layer.sizes + layer.multivalued_sizes, layer.dims + layer.multivalued_dims
    shared = {table.shape[1]: table.numpy() for table in layer.tables}
    start, tables = dict.fromkeys(shared, 0), {}
    columns = [(i, d if d and d < sizes[i] else None) for i, d in enumerate(layer.divisors)]
    for column, divisor in sorted(columns, key=lambda pair: pair[1] is not None):
        size, dim = sizes[column], dims[column]
        rows = shared[dim][start[dim] :]
        if divisor is None:
            tables[column] = rows[:size]
            start[dim] += size
        else:
            tables[column] = np.array([rows[i % divisor] * rows[divisor + i // divisor]
                                       for i in range(size)])  # fmt: skip
            start[dim] += divisor + math.ceil(size / divisor)
    assert all(start[dim] == len(table) for dim, table in shared.items())
    return [tables[column] for column in range(len(tables))]


def look_up(layer, ids=None, lists=None):
    """The layer's output, a row and a column at a time."""
    tables, single = tables_by_column(layer), len(layer.sizes)
    rows = []
    for row in range(len(ids if ids is not None else lists)):
        parts = [tables[i][ids[row][i]] for i in range(single)]
        start = 0
        for i, length in enumerate(layer.multivalued_lengths):
            found = [tables[single + i][id_] for id_ in lists[row][start : start + length] if id_]
            parts.append(POOL[layer.poolings[i]](found, layer.multivalued_dims[i]))
            start += length
        rows.append(np.concatenate(parts))
    return np.array(rows)


def test_columns_of_several_widths_and_kinds_equal_a_lookup_by_hand():
    layer = FeatureEmbedding(**MIXED)
    output = layer(IDS, LISTS)
    assert [tuple(table.shape) for table in layer.tables] == [(14, 2), (8, 3), (3, 4)]
    assert output.shape == (3, layer.output_dim)
    np.testing.assert_allclose(output, look_up(layer, IDS.numpy(), LISTS.numpy()), rtol=1e-6)


def test_columns_of_one_width_equal_a_lookup_by_hand():
    layer = FeatureEmbedding([3, 4, 5], [2, 2, 2])
    output = layer(IDS)
    assert [tuple(table.shape) for table in layer.tables] == [(12, 2)]
    np.testing.assert_array_equal(output, look_up(layer, IDS.numpy()))


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_padding_counts_in_no_pooling_and_an_empty_row_gives_zeros(pooling, policy):
    layer = FeatureEmbedding([], [], [4], [2], [3], [pooling], dtype=policy)
    lists = np.array([[1, 2, 0], [0, 3, 0], [0, 0, 0], [2, 2, 1]])
    layer(None, lists)
    layer.tables[0].assign([[9, 9], [-4, 2], [-2, -1], [-8, -8]])
    expected = {
        "mean": [[-3, 0.5], [-8, -8], [0, 0], [-8 / 3, 0]],
        "sum": [[-6, 1], [-8, -8], [0, 0], [-8, 0]],
        "max": [[-2, 2], [-8, -8], [0, 0], [-2, 2]],
    }[pooling]
    np.testing.assert_allclose(tf.cast(layer(None, lists), "float32"), expected, rtol=1e-2)


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_gradients_equal_central_differences(check_gradient, pooling):
    layer = FeatureEmbedding([3], [2], [4], [2], [3], [pooling])
    ids, lists = tf.constant([[2], [0], [2]]), tf.constant([[1, 3, 0], [0, 0, 0], [3, 3, 2]])
    layer(ids, lists)
    layer.tables[0].assign(np.random.default_rng(0).normal(size=(7, 2)))
    check_gradient(layer, layer.tables[0], ids, lists)


def test_only_the_rows_that_are_looked_up_get_a_gradient():
    layer = FeatureEmbedding([5, 5], [2, 2])
    ids = tf.constant([[1, 4], [1, 0]])
    layer(ids)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(ids))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.tables[0].value)).numpy()
    np.testing.assert_array_equal(gradient[:, 0], [0, 2, 0, 0, 0, 1, 0, 0, 0, 1])


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_gradient_lists_the_rows_that_are_looked_up_also_with_l2(policy):
    layer = FeatureEmbedding([5, 5], [2, 2], l2=0.5, dtype=policy)
    ids = tf.constant([[1, 4], [1, 0], [3, 0]])
    layer(ids)
    table = layer.tables[0]
    with tf.GradientTape() as tape:
        output = layer(ids, training=True)
        loss = tf.reduce_sum(tf.cast(output, "float32")) + sum(layer.losses)
    gradient = tape.gradient(loss, table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.values.dtype == tf.float32
    np.testing.assert_array_equal(tf.reshape(gradient.indices, [-1]), [1, 9, 1, 5, 3, 5])
    # Each occurrence adds 1 by the sum, and 0.5 * 2 * w / 3 by the penalty.
    counts = np.zeros((10, 1))
    np.add.at(counts, [1, 9, 1, 5, 3, 5], 1)
    expected = counts * (1 + 0.5 * 2 * table.numpy() / 3)
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), expected, rtol=1e-2)


def test_l2_is_the_mean_over_rows_of_the_squares_that_are_looked_up():
    layer = FeatureEmbedding([3, 4], [2, 3], l2=0.5)
    ids = np.array([[2, 0], [2, 3]])
    layer(ids)
    assert layer.losses == []
    output = layer(ids, training=True).numpy()
    np.testing.assert_allclose(sum(layer.losses), 0.5 * np.square(output).sum() / 2, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_tables_in_float32(policy):
    layer = FeatureEmbedding(**MIXED, l2=0.1, dtype=policy)
    output = layer(IDS, LISTS, training=True)
    assert output.dtype == policy.removeprefix("mixed_")
    assert {table.dtype for table in layer.tables} == {"float32"}
    assert layer.losses[0].dtype == tf.float32
    expected = look_up(layer, IDS.numpy(), LISTS.numpy())
    np.testing.assert_allclose(tf.cast(output, "float32"), expected, rtol=0.02, atol=1e-3)


def test_compressed_columns_equal_products_by_hand():
    layer = FeatureEmbedding(**COMPRESSED)
    output = layer(IDS, LISTS)
    assert [tuple(table.shape) for table in layer.tables] == [(4 + 5 + 6, 2), (4 + 5, 3), (3, 4)]
    np.testing.assert_allclose(output, look_up(layer, IDS.numpy(), LISTS.numpy()), rtol=1e-6)


def test_every_id_of_a_compressed_column_gets_its_own_embedding_of_the_usual_size():
    layer = FeatureEmbedding([5000, 7], [8, 8], divisors=[100, None])
    ids = np.arange(5000)
    output = layer(np.stack([ids, ids % 7], axis=-1)).numpy()
    assert layer.tables[0].shape == (7 + 100 + 50, 8)
    embeddings = output[:, :8]
    assert len(np.unique(embeddings, axis=0)) == 5000
    assert embeddings.std() == pytest.approx(0.05, rel=0.1)
    assert embeddings.mean() == pytest.approx(0, abs=0.01)
    # Ids that share a remainder row begin uncorrelated, not as one bucket of a hash.
    shared = embeddings[ids % 100 == 3]
    cosines = [a @ b / (b @ b) for a in shared for b in shared if a is not b]
    assert np.mean(cosines) == pytest.approx(0, abs=0.15)


def test_a_constant_initializer_gives_compressed_columns_a_gradient():
    layer = FeatureEmbedding([9], [2], divisors=[3], embeddings_initializer="zeros")
    ids = tf.constant([[4]])
    layer(ids)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(ids))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.tables[0].value)).numpy()
    np.testing.assert_array_equal(gradient[:, 0], [0, 1, 0, 0, 0, 0])


def test_gradients_of_compressed_columns_equal_central_differences(check_gradient):
    layer = FeatureEmbedding([6], [2], [9], [2], [3], ["mean"], divisors=[3, 4])
    ids, lists = tf.constant([[5], [0], [4]]), tf.constant([[1, 8, 0], [0, 0, 0], [5, 5, 2]])
    layer(ids, lists)
    layer.tables[0].assign(np.random.default_rng(0).normal(size=(5 + 7, 2)))
    check_gradient(layer, layer.tables[0], ids, lists)


def test_l2_of_a_compressed_column_is_that_of_the_products():
    layer = FeatureEmbedding([6, 4], [2, 2], divisors=[2, None], l2=0.5)
    ids = np.array([[5, 0], [2, 3]])
    output = layer(ids, training=True).numpy()
    np.testing.assert_allclose(sum(layer.losses), 0.5 * np.square(output).sum() / 2, rtol=1e-6)


def test_a_configuration_from_before_compression_gives_the_same_layer():
    layer = FeatureEmbedding(**MIXED)
    config = layer.get_config()
    del config["divisors"]
    copy = FeatureEmbedding.from_config(config)
    expected = layer(IDS, LISTS)
    copy(IDS, LISTS)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(IDS, LISTS), expected)


def test_tables_are_read_and_replaced_by_column():
    layer = FeatureEmbedding(**COMPRESSED)
    before = look_up_all(layer)
    tables = layer.column_tables()
    assert [len(table) for table in tables] == [4, 4, 5, 5, 6, 3]
    layer.assign_column_tables({2: 2 * tables[2], 5: tables[5] + 1})
    after = look_up_all(layer)
    np.testing.assert_allclose(after[2], 4 * before[2], rtol=1e-6)
    np.testing.assert_array_equal(after[5], before[5] + 1)
    for column in (0, 1, 3, 4):
        np.testing.assert_array_equal(after[column], before[column])
    with pytest.raises(ValueError, match=r"column 1 must have the shape \(4, 3\).*\(3, 3\)"):
        layer.assign_column_tables({1: tables[1][:3]})


def look_up_all(layer):
    layer(IDS, LISTS)
    return tables_by_column(layer)


def test_configuration_round_trip_and_compilation(check_config, check_compiled):
    layer = FeatureEmbedding(**COMPRESSED, l2=0.1, embeddings_initializer="he_normal")
    check_config(layer, IDS, LISTS)
    check_compiled(layer, IDS, LISTS, training=True)


def test_it_can_be_part_of_a_functional_model():
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, FeatureEmbedding([3, 4, 5], [2, 3, 2])(ids))
    assert model(IDS).shape == (3, 7)


@pytest.mark.parametrize("rows", [0, 3])
def test_the_shape_of_the_output_is_that_which_is_told(rows):
    layer = FeatureEmbedding(**MIXED)
    ids, lists = IDS[:rows], LISTS[:rows]
    assert layer(ids, lists).shape == layer.compute_output_shape(ids.shape, lists.shape)
    layer, lists = FeatureEmbedding([], [], [6], [2], [3], ["max"]), lists[:, :3]
    assert layer(None, lists).shape == layer.compute_output_shape(None, lists.shape) == (rows, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sizes": [3], "dims": [2, 2]},
        {"sizes": [], "dims": [], "multivalued_sizes": [3], "multivalued_dims": [2]},
        {**MIXED, "poolings": ["mean", "sum", "last"]},
        {**MIXED, "divisors": [2, 2]},
        {"sizes": [3], "dims": [2], "divisors": [1]},
        {"sizes": [2**31 - 10, 5000], "dims": [1, 1]},
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ValueError, match="Received: "):
        FeatureEmbedding(**arguments)
