import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import GradientReversal, TaskClassifier, reversal_strength


@pytest.mark.parametrize(
    ("progress", "strength"),
    [(0, 0), (0.1, 0.46211716), (0.5, 0.9866143), (1, 0.9999092)],
)
def test_reversal_strength_grows_from_0_to_1(progress, strength):
    np.testing.assert_allclose(reversal_strength(progress), strength, atol=1e-6)


def test_reversal_strength_never_falls():
    strengths = reversal_strength(np.linspace(0, 1, 101)).numpy()
    assert strengths.shape == (101,)
    assert (np.diff(strengths) >= 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, tf.constant(2.0)])
@pytest.mark.parametrize("jit", [False, True])
def test_reversal_passes_on_its_input_and_the_gradient_times_minus_alpha(normal, alpha, jit):
    layer, inputs, upstream = GradientReversal(), normal(3, 2), normal(3, 2)

    @tf.function(jit_compile=jit)
    def step(inputs, alpha):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, alpha=alpha)
        return outputs, tape.gradient(outputs, inputs, upstream)

    outputs, gradient = step(inputs, alpha)
    np.testing.assert_array_equal(outputs, inputs)
    np.testing.assert_allclose(gradient, -float(alpha) * upstream.numpy(), rtol=1e-6)


def test_reversal_is_of_strength_1_by_default_and_gives_alpha_no_gradient(normal):
    inputs, alpha = normal(3), tf.constant(0.5)
    with tf.GradientTape() as tape:
        tape.watch([inputs, alpha])
        loss = tf.reduce_sum(GradientReversal()(inputs))
        other = tf.reduce_sum(GradientReversal()(inputs, alpha=alpha))
    gradients = tape.gradient([loss, other], [inputs, alpha])
    np.testing.assert_array_equal(gradients[0], [-1.5] * 3)
    assert gradients[1] is None


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
@pytest.mark.parametrize("frozen", [False, True])
def test_classifier_is_one_linear_layer(normal, shape, frozen):
    inputs, classifier = normal(*shape), TaskClassifier(5)
    classifier(inputs)
    classifier.bias.assign(normal(5))
    logits = classifier(inputs, frozen=frozen)
    assert logits.shape == classifier.compute_output_shape(shape) == (*shape[:-1], 5)
    expected = inputs.numpy() @ classifier.kernel.numpy() + classifier.bias.numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("jit", [False, True])
def test_frozen_stops_the_gradient_of_its_own_weights_only(normal, frozen, jit):
    inputs, classifier, upstream = normal(4, 3), TaskClassifier(2), normal(4, 2)
    classifier(inputs)

    @tf.function(jit_compile=jit)
    def gradients(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            logits = classifier(inputs, frozen=frozen)
        sources = [inputs, classifier.kernel.value, classifier.bias.value]
        return tape.gradient(logits, sources, upstream, unconnected_gradients="zero")

    into_inputs, into_kernel, into_bias = gradients(inputs)
    expected = upstream.numpy() @ classifier.kernel.numpy().T
    np.testing.assert_allclose(into_inputs, expected, rtol=1e-5, atol=1e-6)
    learns = 0 if frozen else 1
    expected = learns * (inputs.numpy().T @ upstream.numpy())
    np.testing.assert_allclose(into_kernel, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(into_bias, learns * upstream.numpy().sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(normal, policy):
    half = policy.removeprefix("mixed_")
    inputs = normal(4, 3)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = GradientReversal(dtype=policy)(inputs, alpha=0.5)
    assert outputs.dtype == half
    np.testing.assert_array_equal(tape.gradient(outputs, inputs), np.full((4, 3), -0.5))
    classifier = TaskClassifier(2, dtype=policy)
    assert classifier(inputs).dtype == tf.float32
    assert classifier(keras.Input((3,))).dtype == "float32"
    assert classifier.kernel.dtype == "float32"


def test_configuration_round_trip_and_compilation(normal, check_config, check_compiled):
    for layer in (
        GradientReversal(name="reversal"),
        TaskClassifier(3, "he_normal", keras.regularizers.L2(0.1)),
    ):
        check_config(layer, normal(5, 6))
        check_compiled(layer, normal(5, 6))


def test_a_classifier_of_no_tasks_is_refused():
    with pytest.raises(ValueError, match=r"num_tasks must be 1 or more. Received: 0"):
        TaskClassifier(0)
