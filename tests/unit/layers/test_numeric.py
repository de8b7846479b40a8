import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import NumericEncoding

EDGES = [[0.0, 10.0, 20.0], [5.0, 2.0], [-1.0, 0.0, 100.0, 101.0]]
STANDARDIZED = [False, True, False]


def test_a_value_is_its_position_within_each_bin():
    layer = NumericEncoding([[0.0, 10.0, 20.0]])
    values = [[-5.0], [0.0], [2.5], [10.0], [15.0], [20.0], [99.0]]
    expected = [[0, 0], [0, 0], [0.25, 0], [1, 0], [1, 0.5], [1, 1], [1, 1]]
    np.testing.assert_array_equal(layer(np.array(values)), expected)


def test_columns_equal_numpy_interpolation_and_standardization():
    inputs = np.random.default_rng(0).normal(0, 30, (50, 3)).astype("float32")
    expected = [(inputs[:, 1:2] - 5) / 2]
    for column, at in ((0, 0), (2, 2)):
        edges = EDGES[column]
        bins = np.stack(
            [np.interp(inputs[:, column], edges[i : i + 2], [0, 1]) for i in range(len(edges) - 1)],
            axis=1,
        )
        expected.insert(at, bins)
    layer = NumericEncoding(EDGES, STANDARDIZED)
    assert layer.output_dim == 6
    assert layer.compute_output_shape((None, 3)) == (None, 6)
    np.testing.assert_allclose(layer(inputs), np.concatenate(expected, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_it_computes_in_float32_whatever_the_policy(policy):
    inputs = np.array([[70_001.0]], "float32")  # more than float16 holds
    edges = [[70_000.0, 70_004.0]]
    keras.config.set_dtype_policy(policy)
    try:
        layers = [NumericEncoding(edges), NumericEncoding(edges, dtype=policy)]
    finally:
        keras.config.set_dtype_policy("float32")
    for layer in layers:
        assert layer(inputs).dtype == tf.float32
        np.testing.assert_array_equal(layer(inputs), [[0.25]])


@pytest.mark.parametrize("dtype", ["int32", "int64", "float64"])
def test_other_number_types_are_accepted(dtype):
    output = NumericEncoding([[0.0, 4.0]])(np.array([[1]], dtype))
    assert output.dtype == tf.float32
    np.testing.assert_array_equal(output, [[0.25]])


@pytest.mark.parametrize(
    ("edges", "standardized"),
    [
        ([[1.0]], None),
        ([[]], None),
        ([[2.0, 1.0]], None),
        ([[0.0, 1.0, 1.0]], None),
        ([[0.0, 0.0]], [True]),
        ([[0.0, -1.0]], [True]),
    ],
)
def test_columns_without_width_are_refused(edges, standardized):
    with pytest.raises(ValueError, match=r"Received for column 0: \["):
        NumericEncoding(edges, standardized)


def test_it_has_no_weights_and_is_not_trained():
    assert NumericEncoding(EDGES, STANDARDIZED).weights == []


def test_configuration_round_trip_and_compilation(normal, check_config, check_compiled):
    layer = NumericEncoding(EDGES, STANDARDIZED, name="numbers")
    check_config(layer, normal(4, 3))
    check_compiled(layer, normal(4, 3))
