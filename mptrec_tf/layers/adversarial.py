"""What keeps task-specific information out of the sharing expert."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops


def reversal_strength(progress: Any) -> Any:
    """How strongly the gradient is reversed, growing from 0 to 1 over the training.

    `alpha = 2 / (1 + exp(-10 p)) - 1`.

    Args:
        progress: Fraction `p` of all training steps that are done, float in [0, 1], any shape.

    Returns:
        `alpha`, of the same shape.

    Example:

    >>> float(reversal_strength(0.0))
    0.0

    Reference: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016,
    section 5.2;
    used by arXiv:2408.17214, section 3.
    """
    return 2.0 / (1.0 + ops.exp(-10.0 * ops.convert_to_tensor(progress, "float32"))) - 1.0


@tf.custom_gradient
def _reverse(inputs: Any, alpha: Any) -> Any:
    def gradient(upstream: Any) -> tuple[Any, None]:
        return -tf.cast(alpha, upstream.dtype) * upstream, None

    return tf.identity(inputs), gradient


@keras.saving.register_keras_serializable("mptrec_tf")
class GradientReversal(keras.layers.Layer):
    """Passes its input on, and multiplies the gradient by `-alpha` on the way back.

    Args:
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: float, any shape.
        alpha: Strength of the reversal, a scalar. Defaults to 1.

    Output shape: that of the input.

    Example:

    >>> layer, x = GradientReversal(), tf.Variable([3.0])
    >>> with tf.GradientTape() as tape:
    ...     y = layer(x, alpha=0.5)
    >>> tape.gradient(y, x).numpy()
    array([-0.5], dtype=float32)

    Reference: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    def call(self, inputs: Any, alpha: Any = 1.0) -> Any:
        return _reverse(inputs, ops.convert_to_tensor(alpha, "float32"))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable("mptrec_tf")
class TaskClassifier(keras.layers.Layer):
    """The discriminator `D`: one linear layer that tells which task a representation belongs to.

    Args:
        num_tasks: How many tasks.
        kernel_initializer: Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regularizer of the kernel. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: float (..., h).
        frozen: Whether the gradient stops at the classifier's own weights, so that only what feeds
            it learns. Defaults to `False`.

    Output shape: float32 logits (..., `num_tasks`).

    Example:

    >>> TaskClassifier(3)(keras.ops.ones((2, 5))).shape
    TensorShape([2, 3])

    Reference: the task classifier of arXiv:2408.17214, section 3.
    """

    def __init__(
        self,
        num_tasks: int,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_tasks < 1:
            raise ValueError(f"num_tasks must be 1 or more. Received: {num_tasks}")
        self.num_tasks = num_tasks
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.num_tasks),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = self.add_weight(name="bias", shape=(self.num_tasks,), initializer="zeros")

    def call(self, inputs: Any, frozen: bool = False) -> Any:
        kernel, bias = ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias)
        if frozen:
            kernel, bias = ops.stop_gradient(kernel), ops.stop_gradient(bias)
        return ops.cast(ops.matmul(inputs, kernel) + bias, "float32")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.num_tasks)

    def compute_output_spec(self, inputs: Any, frozen: bool = False) -> Any:
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
