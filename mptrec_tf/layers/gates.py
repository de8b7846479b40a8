"""How much of the task-specific and how much of the shared representation a task uses."""

from typing import Any

import keras
from keras import ops

from mptrec_tf.layers.experts import for_each
from mptrec_tf.layers.softmax import softmax


@keras.saving.register_keras_serializable("mptrec_tf")
class Gate(keras.layers.Layer):
    """Weights over representations, from the model's input, for one or several tasks at once.

    For task `k`: `a_k = softmax(x W_k)`, without a bias. The softmax is computed in float32.

    Args:
        num_tasks: How many gates.
        num_choices: Over how many representations each weighs. Defaults to 2: specific and shared.
        kernel_initializer: Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regularizer of the kernel. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Input shape: float (B, d), the same input for all gates, or (B, `num_tasks`, d), one input for
    each. Output shape: float (B, `num_tasks`, `num_choices`), each sums to 1.

    Kernel: (d, `num_tasks` * `num_choices`), or (`num_tasks`, d, `num_choices`) with an input for
    each.

    Example:

    >>> Gate(3)(keras.ops.ones((2, 5))).shape
    TensorShape([2, 3, 2])

    Reference: the gates of arXiv:2408.17214, section 3.
    """

    def __init__(
        self,
        num_tasks: int,
        num_choices: int = 2,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(num_tasks, num_choices) < 1:
            raise ValueError(
                "num_tasks and num_choices must be 1 or more. "
                f"Received: num_tasks={num_tasks}, num_choices={num_choices}"
            )
        self.num_tasks = num_tasks
        self.num_choices = num_choices
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape: tuple[int | None, ...]
        if len(input_shape) == 3:
            if input_shape[1] != self.num_tasks:
                raise ValueError(
                    f"expected an input of shape (B, {self.num_tasks}, d) or (B, d). "
                    f"Received: {input_shape}"
                )
            shape = (self.num_tasks, input_shape[-1], self.num_choices)
            initializer = for_each(self.kernel_initializer, axis=0)
        else:
            shape = (input_shape[-1], self.num_tasks * self.num_choices)
            initializer = self.kernel_initializer
        self.kernel = self.add_weight(
            name="kernel",
            shape=shape,
            initializer=initializer,
            regularizer=self.kernel_regularizer,
        )

    def call(self, inputs: Any) -> Any:
        if inputs.ndim == 3:
            logits = ops.einsum("bkd,kdc->bkc", inputs, self.kernel)
        else:
            logits = ops.matmul(inputs, self.kernel)
        weights = softmax(ops.reshape(logits, (-1, self.num_tasks, self.num_choices)))
        return ops.cast(weights, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.num_tasks, self.num_choices)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "num_choices": self.num_choices,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
