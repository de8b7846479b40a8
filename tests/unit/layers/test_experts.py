import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import ExpertBank


def separate(bank, expert, width):
    """One expert as a model of its own, with the same weights."""
    mlp = keras.Sequential([keras.layers.Dense(units, bank.activation) for units in bank.units])
    mlp.build((None, width))
    weights = []
    for kernel, bias in zip(bank.kernels, bank.biases, strict=True):
        side_by_side = kernel.shape[0] == width and kernel.shape[1] == bank.num_experts
        weights += [np.take(kernel, expert, axis=int(side_by_side)), bias.numpy()[expert]]
    mlp.set_weights(weights)
    return mlp


def randomized(bank, inputs):
    """The bank, built, with biases that are not 0."""
    bank(inputs)
    for bias in bank.biases:
        bias.assign(np.random.default_rng(1).normal(size=bias.shape))
    return bank


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("units", [(4,), (6, 5, 3)])
def test_experts_of_one_input_equal_separate_models(normal, activation, units):
    inputs = normal(7, 8)
    bank = randomized(ExpertBank(3, units, activation), inputs)
    outputs = bank(inputs)
    assert outputs.shape == bank.compute_output_shape((7, 8)) == (7, 3, units[-1])
    for expert in range(3):
        expected = separate(bank, expert, 8)(inputs)
        np.testing.assert_allclose(outputs[:, expert], expected, rtol=1e-5, atol=1e-6)


def test_experts_of_an_input_each_equal_separate_models(normal):
    inputs = normal(7, 3, 8)
    bank = randomized(ExpertBank(3, (6, 5)), inputs)
    for expert in range(3):
        expected = separate(bank, expert, 8)(inputs[:, expert])
        np.testing.assert_allclose(bank(inputs)[:, expert], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)])
def test_gradients_equal_central_differences(normal, check_gradient, shape):
    inputs = normal(*shape)
    bank = randomized(ExpertBank(2, (3, 2), "tanh"), inputs)
    for weight in (bank.kernels[0], bank.kernels[1], bank.biases[0]):
        check_gradient(bank, weight, inputs)


@pytest.mark.parametrize(
    "initializer",
    [
        "he_uniform",
        keras.initializers.HeUniform(seed=3),
        keras.initializers.HeUniform(seed=keras.random.SeedGenerator(3)),
    ],
    ids=["unseeded", "seed", "generator"],
)
def test_each_expert_is_initialized_for_itself(initializer):
    bank = ExpertBank(4, (50,), kernel_initializer=initializer)
    bank.build((None, 200))
    kernel = bank.kernels[0].numpy().swapaxes(0, 1)  # side by side, as they share their input
    limit = np.sqrt(6 / 200)  # of an expert's fan-in, not of all experts'
    np.testing.assert_allclose(np.abs(kernel).max(axis=(1, 2)), limit, rtol=0.01)
    assert len({matrix.tobytes() for matrix in kernel}) == 4
    assert not bank.biases[0].numpy().any()


def test_a_seeded_generator_gives_the_same_experts_again():
    def kernels(seed):
        initializer = keras.initializers.HeUniform(seed=keras.random.SeedGenerator(seed))
        bank = ExpertBank(2, (5, 5), kernel_initializer=initializer)
        bank.build((None, 5))
        return [matrix.tobytes() for matrix in (*bank.kernels[0].numpy(), *bank.kernels[1].numpy())]

    assert kernels(1) == kernels(1)
    assert not set(kernels(1)) & set(kernels(2))


def test_regularizer_adds_the_penalty_of_each_kernel(normal):
    bank = ExpertBank(2, (3, 2), kernel_regularizer=keras.regularizers.L2(0.1))
    bank(normal(1, 4))
    expected = [0.1 * np.square(kernel.numpy()).sum() for kernel in bank.kernels]
    np.testing.assert_allclose(bank.losses, expected, rtol=1e-6)


def test_dropout_acts_in_training_only_and_on_every_layer():
    bank = ExpertBank(2, (500, 400), "linear", dropout=0.5, kernel_initializer="ones")
    inputs = tf.ones((1, 1))
    np.testing.assert_array_equal(bank(inputs), np.full((1, 2, 400), 500))
    dropped = bank(inputs, training=True).numpy()
    assert 0.4 < np.mean(dropped == 0) < 0.6
    kept = dropped[dropped > 0]
    assert len(set(kept.tolist())) == 2  # one value for each expert: the first layer dropped too
    assert kept.min() != 1000
    np.testing.assert_allclose(kept / 2, 500, rtol=0.3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [False, True])
def test_mixed_precision_computes_in_half_and_keeps_weights_in_float32(normal, policy, training):
    bank = ExpertBank(2, (4, 3), dropout=0.1, dtype=policy)
    outputs = bank(normal(5, 6), training=training)
    assert outputs.dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in bank.trainable_weights} == {"float32"}


def test_configuration_round_trip_and_compilation(normal, check_config, check_compiled):
    bank = ExpertBank(3, (4, 2), "gelu", 0.1, "glorot_normal", keras.regularizers.L2(0.1), seed=4)
    check_config(bank, normal(5, 6))
    check_compiled(bank, normal(5, 6))
    check_compiled(ExpertBank(3, (4, 2)), normal(5, 3, 6))


@pytest.mark.parametrize(
    "arguments", [(0, (4,)), (2, ()), (2, (4, 0)), (-1, (4,)), (2, (4,), "relu", 1.5)]
)
def test_arguments_that_make_no_expert_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        ExpertBank(*arguments)


def test_an_input_for_another_number_of_experts_is_refused(normal):
    with pytest.raises(ValueError, match=r"shape \(B, 2, d\) or \(B, d\). Received: \(5, 3, 6\)"):
        ExpertBank(2, (4,))(normal(5, 3, 6))
