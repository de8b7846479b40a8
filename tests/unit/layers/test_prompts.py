import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import PromptAttention, TaskPrompt


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_a_prompt_multiplies_its_own_task_element_by_element(normal):
    inputs, prompt = normal(5, 3, 4), TaskPrompt(3)
    outputs = prompt(inputs)
    assert outputs.shape == prompt.compute_output_shape((5, 3, 4))
    for task in range(3):
        expected = inputs.numpy()[:, task] * prompt.prompts.numpy()[task]
        np.testing.assert_allclose(outputs[:, task], expected, rtol=1e-6)


def test_a_new_prompt_is_near_1():
    prompt = TaskPrompt(10)
    prompt.build((None, 10, 1000))
    values = prompt.prompts.numpy()
    np.testing.assert_allclose([values.mean(), values.std()], [1, 0.1], atol=0.01)


def test_gradient_of_a_prompt_is_what_it_multiplies(normal):
    inputs, prompt, upstream = normal(5, 2, 4), TaskPrompt(2), normal(5, 2, 4)
    prompt(inputs)
    with tf.GradientTape() as tape:
        outputs = prompt(inputs)
    gradient = tape.gradient(outputs, prompt.prompts.value, upstream)
    np.testing.assert_allclose(gradient, (inputs * upstream).numpy().sum(0), rtol=1e-5)


@pytest.mark.parametrize("units", [None, 3])
@pytest.mark.parametrize("temperature", [0.5, 150.0])
def test_example_attention_equals_numpy(normal, units, temperature):
    inputs, source, prompt = normal(7, 5), normal(3, 4), normal(4)
    layer = PromptAttention("example", units, temperature)
    layer(inputs, source, prompt)
    layer.query_norm.gamma.assign(normal(4))
    layer.query_norm.beta.assign(normal(4))
    assert layer.query_hidden.units == (units or 2)
    hidden = np.maximum(inputs.numpy() @ layer.query_hidden.kernel.numpy(), 0)
    query = hidden @ layer.query_output.kernel.numpy()
    mean, variance = query.mean(-1, keepdims=True), query.var(-1, keepdims=True)
    query = (query - mean) / np.sqrt(variance + layer.query_norm.epsilon)
    query = query * layer.query_norm.gamma.numpy() + layer.query_norm.beta.numpy()
    weights = layer(inputs, source, prompt)
    expected = softmax(query @ source.numpy().T / temperature)
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weights.numpy().sum(-1), 1, rtol=1e-6)
    assert weights.shape == layer.compute_output_shape((7, 5), (3, 4), (4,)) == (7, 3)
    assert len(layer.weights) == 4  # two kernels without a bias, and the normalization


@pytest.mark.parametrize("temperature", [0.5, 150.0])
def test_embedding_attention_equals_numpy(normal, temperature):
    inputs, source, prompt = normal(7, 5), normal(3, 4), normal(4)
    layer = PromptAttention("embedding", temperature=temperature)
    weights = layer(inputs, source, prompt)
    expected = softmax(prompt.numpy() @ source.numpy().T / temperature)
    np.testing.assert_allclose(weights, [expected], rtol=1e-5)
    assert weights.shape == layer.compute_output_shape((7, 5), (3, 4), (4,)) == (1, 3)
    assert layer.weights == []


def test_fixed_attention_is_equal_weights(normal):
    layer = PromptAttention("fixed")
    weights = layer(normal(7, 5), normal(4, 3), normal(3))
    np.testing.assert_array_equal(weights, [[0.25] * 4])
    assert layer.weights == []


def test_a_higher_temperature_evens_the_weights_out(normal):
    inputs, source, prompt = normal(7, 5), normal(3, 4), normal(4)
    spread = [
        np.ptp(PromptAttention("embedding", temperature=t)(inputs, source, prompt))
        for t in (0.1, 1.0, 10.0, 1e6)
    ]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 1e-5 < spread[0]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("attention", ["example", "embedding", "fixed"])
def test_mixed_precision_of_attention(normal, policy, attention):
    layer = PromptAttention(attention, temperature=1.0, dtype=policy)
    weights = layer(normal(7, 5), normal(3, 4), normal(4))
    assert weights.dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(tf.cast(weights, "float32").numpy().sum(-1), 1, atol=0.01)
    assert {weight.dtype for weight in layer.weights} <= {"float32"}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_of_a_prompt(normal, policy):
    prompt = TaskPrompt(2, dtype=policy)
    assert prompt(normal(3, 2, 4)).dtype == policy.removeprefix("mixed_")
    assert prompt.prompts.dtype == "float32"


@pytest.mark.parametrize("attention", ["example", "embedding", "fixed"])
def test_attention_configuration_round_trip_and_compilation(
    normal, check_config, check_compiled, attention
):
    layer = PromptAttention(attention, 3, 2.0, keras.regularizers.L2(0.1), name="attention")
    check_config(layer, normal(7, 5), normal(3, 4), normal(4))
    check_compiled(layer, normal(7, 5), normal(3, 4), normal(4))


def test_prompt_configuration_round_trip_and_compilation(normal, check_config, check_compiled):
    prompt = TaskPrompt(2, initializer="he_normal")
    check_config(prompt, normal(3, 2, 4))
    check_compiled(prompt, normal(3, 2, 4))


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"attention": "both"}, "'both'"),
        ({"temperature": 0.0}, "0.0"),
        ({"temperature": float("nan")}, "nan"),
        ({"query_units": 0}, "0"),
    ],
)
def test_attention_arguments_that_make_no_sense_are_refused(arguments, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        PromptAttention(**arguments)


def test_prompts_for_another_number_of_tasks_are_refused(normal):
    with pytest.raises(ValueError, match=r"num_tasks must be 1 or more. Received: 0"):
        TaskPrompt(0)
    with pytest.raises(ValueError, match=r"shape \(B, 2, h\). Received: \(5, 3, 4\)"):
        TaskPrompt(2)(normal(5, 3, 4))
