"""Task prompts, and the attention of a new task over the prompts of older ones."""

from typing import Any

import keras
from keras import ops

from mptrec_tf.layers.softmax import softmax

ATTENTIONS = ("example", "embedding", "fixed")


@keras.saving.register_keras_serializable("mptrec_tf")
class TaskPrompt(keras.layers.Layer):
    """One learned vector for each task, multiplied into the task's specific representation.

    `r_k = s_k * p_k`, element by element.

    Args:
        num_tasks: How many prompts. Defaults to 1.
        initializer: Initializer of the prompts. Defaults to a normal distribution with mean 1 and
            standard deviation 0.1, so that a new prompt passes the representation nearly as it is.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Input shape: float (B, `num_tasks`, h). Output shape: the same.

    Example:

    >>> TaskPrompt(2, initializer="ones")(keras.ops.ones((1, 2, 3))).shape
    TensorShape([1, 2, 3])

    Reference: the prompts p_k of arXiv:2408.17214, section 3.
    """

    def __init__(self, num_tasks: int = 1, initializer: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_tasks < 1:
            raise ValueError(f"num_tasks must be 1 or more. Received: {num_tasks}")
        self.num_tasks = num_tasks
        self.initializer = keras.initializers.get(
            initializer or keras.initializers.RandomNormal(mean=1.0, stddev=0.1)
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if input_shape[1] != self.num_tasks:
            raise ValueError(
                f"expected an input of shape (B, {self.num_tasks}, h). Received: {input_shape}"
            )
        self.prompts = self.add_weight(
            name="prompts", shape=(self.num_tasks, input_shape[-1]), initializer=self.initializer
        )

    def call(self, inputs: Any) -> Any:
        return inputs * self.prompts

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable("mptrec_tf")
class PromptAttention(keras.layers.Layer):
    """How much a new task takes from each old task's specific expert.

    - `"example"`, for each example: `w = softmax(q(x) P^T / tau)` with the query network
      `q(x) = LayerNorm(V2 relu(V1 x))`, no biases in `V1` and `V2`;
    - `"embedding"`, for each task: `w = softmax(p_n P^T / tau)`;
    - `"fixed"`: equal weights.

    `P` holds the prompts of the old tasks, `p_n` is the new one. The softmax is computed in
    float32.

    Args:
        attention: One of the three. Defaults to `"example"`.
        query_units: Width of the query network's hidden layer. Defaults to `None`: `h / 2`.
        temperature: `tau`. Defaults to 150, as published.
        kernel_regularizer: Regularizer of the query network's kernels. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: float (B, d), the model's input `x`.
        source_prompts: float (K, h), `P`.
        prompt: float (h,), `p_n`.

    Output shape: float (B, K), or (1, K) where the weights are the same for all examples; they sum
    to 1.

    Example:

    >>> layer = PromptAttention(temperature=1.0)
    >>> layer(keras.ops.ones((2, 5)), keras.ops.ones((3, 4)), keras.ops.ones(4)).shape
    TensorShape([2, 3])

    Reference: the prompt tuning stage of arXiv:2408.17214, section 3, and its ablations "TES"
    (`"embedding"`) and "FW" (`"fixed"`).
    """

    def __init__(
        self,
        attention: str = "example",
        query_units: int | None = None,
        temperature: float = 150.0,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {ATTENTIONS}. Received: {attention!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0. Received: {temperature}")
        if query_units is not None and query_units < 1:
            raise ValueError(f"query_units must be 1 or more. Received: {query_units}")
        self.attention = attention
        self.query_units = query_units
        self.temperature = temperature
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(
        self,
        inputs_shape: tuple[int | None, ...],
        source_prompts_shape: tuple[int, int],
        prompt_shape: tuple[int, ...] | None = None,
    ) -> None:
        if self.attention != "example":
            return
        width, hidden = inputs_shape[-1], source_prompts_shape[-1]
        units = self.query_units or max(hidden // 2, 1)
        common = {"use_bias": False, "kernel_regularizer": self.kernel_regularizer}
        common["dtype"] = self.dtype_policy
        self.query_hidden = keras.layers.Dense(units, "relu", name="query_hidden", **common)
        self.query_hidden.build((None, width))
        self.query_output = keras.layers.Dense(hidden, name="query_output", **common)
        self.query_output.build((None, units))
        self.query_norm = keras.layers.LayerNormalization(
            name="query_norm", dtype=self.dtype_policy
        )
        self.query_norm.build((None, hidden))

    def call(self, inputs: Any, source_prompts: Any, prompt: Any) -> Any:
        source_prompts = ops.cast(source_prompts, self.compute_dtype)
        if self.attention == "fixed":
            count = source_prompts.shape[0]
            return ops.full((1, count), 1.0 / count, dtype=self.compute_dtype)
        if self.attention == "embedding":
            query = ops.cast(prompt, self.compute_dtype)[None]
        else:
            query = self.query_norm(self.query_output(self.query_hidden(inputs)))
        logits = ops.matmul(query, ops.transpose(source_prompts))
        weights = softmax(ops.cast(logits, "float32") / self.temperature)
        return ops.cast(weights, self.compute_dtype)

    def compute_output_shape(
        self, inputs_shape: Any, source_prompts_shape: Any, prompt_shape: Any = None
    ) -> tuple[int | None, ...]:
        batch = inputs_shape[0] if self.attention == "example" else 1
        return (batch, source_prompts_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "attention": self.attention,
            "query_units": self.query_units,
            "temperature": self.temperature,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
