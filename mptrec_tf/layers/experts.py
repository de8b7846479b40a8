"""Many experts of one shape as one batched product."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mptrec_tf.layers.dropout import HashedDropout


@keras.saving.register_keras_serializable("mptrec_tf")
class ExpertBank(keras.layers.Layer):
    """A number of multi-layer perceptrons of the same shape, computed together.

    Expert `e` is `E_e(x) = relu(... relu(x W_e1 + b_e1) ... W_en + b_en)`, with an activation after
    every layer. The first layer of all experts is one matrix product where they share their input.

    Args:
        num_experts: How many experts.
        units: Width of each layer of an expert.
        activation: Activation after every layer. Defaults to `"relu"`.
        dropout: Rate of dropout after every layer, in [0, 1). Defaults to 0.
        kernel_initializer: Defaults to `"he_uniform"`, with the fan of a single expert.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        seed: Seed of the dropout. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Input shape: float (B, d), the same input for all experts, or (B, `num_experts`, d), one input
    for each. Output shape: float (B, `num_experts`, `units[-1]`).

    Kernels: (`num_experts`, d, h); the first one (d, `num_experts`, h) where the input is shared.

    Example:

    >>> ExpertBank(3, units=(8, 4))(keras.ops.ones((2, 5))).shape
    TensorShape([2, 3, 4])

    Reference: the experts E_s and E_k of arXiv:2408.17214, section 3.
    """

    def __init__(
        self,
        num_experts: int,
        units: Sequence[int],
        activation: Any = "relu",
        dropout: float = 0.0,
        kernel_initializer: Any = "he_uniform",
        kernel_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_experts < 1 or not units or min(units) < 1:
            raise ValueError(
                "num_experts and all units must be 1 or more. "
                f"Received: num_experts={num_experts}, units={units}"
            )
        self.num_experts = num_experts
        self.units = list(units)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self._dropout = (
            HashedDropout(dropout, seed=seed, dtype=self.dtype_policy) if dropout else None
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) == 3 and input_shape[1] != self.num_experts:
            raise ValueError(
                f"expected an input of shape (B, {self.num_experts}, d) or (B, d). "
                f"Received: {input_shape}"
            )
        self.kernels, self.biases = [], []
        fan_in = input_shape[-1]
        for index, width in enumerate(self.units):
            # Where the experts share their input, their kernels lie side by side.
            axis = 1 if index == 0 and len(input_shape) == 2 else 0
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{index}",
                    shape=(fan_in, self.num_experts, width)
                    if axis
                    else (self.num_experts, fan_in, width),
                    initializer=for_each(self.kernel_initializer, axis),
                    regularizer=self.kernel_regularizer,
                )
            )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{index}", shape=(self.num_experts, width), initializer="zeros"
                )
            )
            fan_in = width

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = inputs
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            outputs = self.activation(expert_products(outputs, kernel) + bias)
            if self._dropout is not None:
                outputs = self._dropout(outputs, training=training)
        return outputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.num_experts, self.units[-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }


def for_each(initializer: keras.initializers.Initializer, axis: int) -> Any:
    """Initializes each matrix of a stack by itself, so that the fan is that of one of them.

    A seeded initializer gets another seed for each, the next one of its generator if it has one:
    equal experts would stay equal.

    Args:
        initializer: What initializes a matrix.
        axis: The axis along which the matrices are stacked.

    Returns:
        An initializer of the stack.
    """
    generator = getattr(initializer, "seed", None)

    def initialize(shape: tuple[int, ...], dtype: Any = None) -> Any:
        matrices, matrix = [], tuple(np.delete(shape, axis))
        for index in range(shape[axis]):
            config = initializer.get_config()
            if isinstance(generator, keras.random.SeedGenerator):
                config["seed"] = int(keras.random.randint((), 0, 2**31 - 1, seed=generator))
            elif isinstance(config.get("seed"), int):
                config["seed"] += index
            matrices.append(initializer.from_config(config)(matrix, dtype=dtype))
        return ops.stack(matrices, axis=axis)

    return initialize


def expert_products(inputs: Any, kernels: Any) -> Any:
    """The product of an input, or of one input for each expert, with each expert's kernel.

    Args:
        inputs: float (B, d) for all experts, or (B, experts, d).
        kernels: float (d, experts, h), or (experts, d, h) with an input for each.

    Returns:
        float (B, experts, h).

    Example:

    >>> expert_products(ops.ones((2, 5)), ops.ones((5, 3, 4))).shape
    TensorShape([2, 3, 4])
    """
    count = kernels.shape[1 if inputs.ndim == 2 else 0]
    if inputs.ndim == 2 or count == 1:
        # One plain product. On a CPU a batched one takes several times as long: it copies the
        # kernels into another order each time.
        fan_in, width = inputs.shape[-1], kernels.shape[-1]
        joined = ops.reshape(kernels, (fan_in, count * width))
        product = ops.matmul(ops.reshape(inputs, (-1, fan_in)), joined)
        return ops.reshape(product, (-1, count, width))
    return ops.einsum("bed,edh->beh", inputs, kernels)
