import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import TowerBank


@pytest.mark.parametrize("num_outputs", [[1], [1, 1], [3, 1, 5, 1, 3], [1, 4]])
@pytest.mark.parametrize("units", [(6,), (6, 4)])
def test_towers_equal_separate_models(normal, num_outputs, units):
    inputs = normal(7, len(num_outputs), 8)
    bank = TowerBank(num_outputs, units)
    bank(inputs)
    for layer in (bank.hidden, *bank.heads):
        for bias in layer.biases:
            bias.assign(normal(*bias.shape))
    outputs = bank(inputs)
    assert [tuple(o.shape) for o in outputs] == bank.compute_output_shape((7, None, 8))
    assert [tuple(o.shape) for o in outputs] == [(7, width) for width in num_outputs]
    heads = {head.units[0]: head for head in bank.heads}
    for tower, width in enumerate(num_outputs):
        mlp = keras.Sequential([keras.layers.Dense(n, "relu") for n in units])
        mlp.add(keras.layers.Dense(width))
        mlp.build((None, 8))
        weights = []
        for kernel, bias in zip(bank.hidden.kernels, bank.hidden.biases, strict=True):
            weights += [kernel.numpy()[tower], bias.numpy()[tower]]
        position = num_outputs[:tower].count(width)
        head = heads[width]
        weights += [head.kernels[0].numpy()[position], head.biases[0].numpy()[position]]
        mlp.set_weights(weights)
        np.testing.assert_allclose(outputs[tower], mlp(inputs[:, tower]), rtol=1e-5, atol=1e-6)


def test_gradients_equal_central_differences(normal, check_gradient):
    inputs = normal(3, 3, 4)
    bank = TowerBank([2, 1, 2], (3,), "tanh")
    bank(inputs)
    for weight in (bank.hidden.kernels[0], bank.heads[1].kernels[0], bank.heads[0].biases[0]):
        check_gradient(bank, weight, inputs)


def test_a_tower_learns_from_its_own_task_only(normal):
    inputs, bank = normal(4, 3, 5), TowerBank([1, 2, 1], (6,), "tanh")
    bank(inputs)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(bank(inputs)[1] ** 2)
    gradient = tape.gradient(loss, bank.hidden.kernels[0].value).numpy()
    assert [bool(gradient[tower].any()) for tower in range(3)] == [False, True, False]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_float32_logits(normal, policy):
    bank = TowerBank([1, 3], (4, 4), dropout=0.1, dtype=policy)
    assert [o.dtype for o in bank(normal(5, 2, 6), training=True)] == [tf.float32, tf.float32]
    assert [o.dtype for o in bank(keras.Input((2, 6)))] == ["float32", "float32"]
    assert bank.hidden(normal(5, 2, 6)).dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in bank.trainable_weights} == {"float32"}


def test_dropout_acts_on_hidden_layers_in_training_only(normal):
    bank, inputs = TowerBank([1], (50,), dropout=0.5), normal(3, 1, 6)
    first, second = (bank(inputs, training=True)[0].numpy() for _ in range(2))
    assert (first != second).all()
    np.testing.assert_array_equal(bank(inputs)[0], bank(inputs)[0])
    single = TowerBank([1], (50,))
    single(inputs)
    single.set_weights([w.numpy() for w in bank.trainable_weights])
    np.testing.assert_array_equal(bank(inputs)[0], single(inputs)[0])


def test_configuration_round_trip_and_compilation(normal, check_config, check_compiled):
    bank = TowerBank([1, 3, 1], (4, 2), "gelu", 0.1, keras.regularizers.L2(0.1), seed=4)
    check_config(bank, normal(5, 3, 6))
    check_compiled(bank, normal(5, 3, 6))


@pytest.mark.parametrize("arguments", [([],), ([1], ()), ([1, 0],), ([1], (4, 0))])
def test_arguments_that_make_no_tower_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be 1 or more. Received"):
        TowerBank(*arguments)


def test_an_input_for_another_number_of_towers_is_refused(normal):
    with pytest.raises(ValueError, match=r"Received: \(5, 3, 6\)"):
        TowerBank([1, 1])(normal(5, 3, 6))
