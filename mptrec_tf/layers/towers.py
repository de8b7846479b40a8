"""From a task's representation to its outputs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mptrec_tf.layers.experts import ExpertBank


@keras.saving.register_keras_serializable("mptrec_tf")
class TowerBank(keras.layers.Layer):
    """A tower for each task: a multi-layer perceptron that ends in the task's outputs.

    The hidden layers of all towers are one batched product, and so are the last layers of all
    towers with the same number of outputs.

    Args:
        num_outputs: Number of outputs of each tower.
        units: Widths of the hidden layers. Defaults to (64, 32).
        activation: Activation of the hidden layers. Defaults to `"relu"`.
        dropout: Rate of dropout after each hidden layer. Defaults to 0.
        kernel_regularizer: Regularizer of the kernels. Defaults to `None`.
        seed: Seed of the dropout. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Input shape: float (B, number of towers, h), or (B, h), the same input for all. Output: a list
    with a float32 tensor (B, `num_outputs[k]`) for each tower, without an activation (logits).

    Example:

    >>> [t.shape for t in TowerBank([1, 5], units=(8,))(keras.ops.ones((2, 2, 3)))]
    [TensorShape([2, 1]), TensorShape([2, 5])]

    Reference: the towers T_k of arXiv:2408.17214, section 3.
    """

    def __init__(
        self,
        num_outputs: Sequence[int],
        units: Sequence[int] = (64, 32),
        activation: Any = "relu",
        dropout: float = 0.0,
        kernel_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = list(num_outputs)
        self.units = list(units)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self.hidden = ExpertBank(
            len(self.num_outputs),
            self.units,
            activation,
            dropout,
            kernel_regularizer=kernel_regularizer,
            seed=seed,
            name="hidden",
            dtype=self.dtype_policy,
        )
        self.heads = [
            ExpertBank(
                self.num_outputs.count(width),
                (width,),
                "linear",
                kernel_initializer="glorot_uniform",
                kernel_regularizer=kernel_regularizer,
                name=f"head_{width}",
                dtype=self.dtype_policy,
            )
            for width in sorted(set(self.num_outputs))
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.hidden.build(input_shape)
        for head in self.heads:
            head.build((None, head.num_experts, self.units[-1]))

    def call(self, inputs: Any, training: bool = False) -> list[Any]:
        hidden = self.hidden(inputs, training=training)
        outputs: dict[int, Any] = {}
        for head in self.heads:
            towers = [i for i, width in enumerate(self.num_outputs) if width == head.units[-1]]
            every_tower = len(towers) == len(self.num_outputs)
            logits = head(hidden if every_tower else ops.take(hidden, towers, axis=1))
            for position, tower in enumerate(towers):
                outputs[tower] = ops.cast(logits[:, position], "float32")
        return [outputs[tower] for tower in range(len(outputs))]

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> list[tuple[int | None, ...]]:
        return [(input_shape[0], width) for width in self.num_outputs]

    def compute_output_spec(self, inputs: Any, training: bool = False) -> list[Any]:
        shapes = self.compute_output_shape(inputs.shape)
        return [keras.KerasTensor(shape, "float32") for shape in shapes]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }
