import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import Gate


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize(("tasks", "choices"), [(1, 2), (3, 2), (2, 4)])
def test_weights_are_the_softmax_of_one_product_for_each_task(normal, tasks, choices):
    inputs, gate = normal(6, 5), Gate(tasks, choices)
    weights = gate(inputs)
    assert weights.shape == gate.compute_output_shape((6, 5)) == (6, tasks, choices)
    kernel = gate.kernel.numpy().reshape(5, tasks, choices)
    for task in range(tasks):
        expected = softmax(inputs.numpy() @ kernel[:, task])
        np.testing.assert_allclose(weights[:, task], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights.numpy().sum(-1), 1, rtol=1e-6)
    assert len(gate.weights) == 1  # no bias


def test_gradient_equals_central_differences(normal, check_gradient):
    gate, inputs = Gate(2, 3), normal(4, 3)
    gate(inputs)
    check_gradient(gate, gate.kernel, inputs)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_half_weights_that_sum_to_1(normal, policy):
    gate = Gate(2, dtype=policy)
    weights = gate(normal(50, 5) * 100)
    assert weights.dtype == policy.removeprefix("mixed_")
    assert gate.kernel.dtype == "float32"
    np.testing.assert_allclose(tf.cast(weights, "float32").numpy().sum(-1), 1, atol=0.01)


def test_regularizer_adds_a_penalty(normal):
    gate = Gate(1, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.1))
    gate(normal(1, 4))
    np.testing.assert_allclose(gate.losses, [0.1 * 8])


def test_configuration_round_trip_and_compilation(normal, check_config, check_compiled):
    gate = Gate(3, 4, "he_normal", keras.regularizers.L2(0.1), name="gates")
    check_config(gate, normal(5, 6))
    check_compiled(gate, normal(5, 6))


@pytest.mark.parametrize("arguments", [(0,), (2, 0), (-1, 2)])
def test_arguments_that_make_no_gate_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be 1 or more. Received: num_tasks="):
        Gate(*arguments)
