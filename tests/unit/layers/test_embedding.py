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
IDS = tf.constant([[0, 3, 4], [2, 0, 0], [1, 1, 1]])
LISTS = tf.constant([[1, 0, 5, 2, 5, 2], [0, 0, 0, 0, 0, 0], [3, 2, 0, 4, 0, 1]])
POOL = {
    "mean": lambda rows, width: np.mean(rows, 0) if len(rows) else np.zeros(width),
    "sum": lambda rows, width: np.sum(rows, 0) if len(rows) else np.zeros(width),
    "max": lambda rows, width: np.max(rows, 0) if len(rows) else np.zeros(width),
}


def tables_by_column(layer):
    """Each column's own table, cut out of the shared ones; in the order of the columns."""
    sizes, dims = layer.sizes + layer.multivalued_sizes, layer.dims + layer.multivalued_dims
    shared = {table.shape[1]: table.numpy() for table in layer.tables}
    start = dict.fromkeys(shared, 0)
    tables = []
    for size, dim in zip(sizes, dims, strict=True):
        tables.append(shared[dim][start[dim] : start[dim] + size])
        start[dim] += size
    assert all(start[dim] == len(table) for dim, table in shared.items())
    return tables


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


def test_configuration_round_trip_and_compilation(check_config, check_compiled):
    layer = FeatureEmbedding(**MIXED, l2=0.1, embeddings_initializer="he_normal")
    check_config(layer, IDS, LISTS)
    check_compiled(layer, IDS, LISTS, training=True)


def test_it_can_be_part_of_a_functional_model():
    ids = keras.Input((3,), dtype="int32")
    model = keras.Model(ids, FeatureEmbedding([3, 4, 5], [2, 3, 2])(ids))
    assert model(IDS).shape == (3, 7)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sizes": [3], "dims": [2, 2]},
        {"sizes": [], "dims": [], "multivalued_sizes": [3], "multivalued_dims": [2]},
        {**MIXED, "poolings": ["mean", "sum", "last"]},
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ValueError, match="Received: "):
        FeatureEmbedding(**arguments)
