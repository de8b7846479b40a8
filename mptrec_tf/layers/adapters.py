"""Low-rank changes to frozen experts."""

from typing import Any

import keras
from keras import ops

from mptrec_tf.layers.experts import ExpertBank, expert_products, for_each


@keras.saving.register_keras_serializable("mptrec_tf")
class ExpertAdapter(keras.layers.Layer):
    """Computes frozen experts with a low-rank matrix of its own added to each kernel (LoRA).

    Each kernel `W` of the bank acts as `W + (alpha / rank) A B`. `A` begins random and `B` zero, so
    the experts begin as they are. The bank itself does not change and gets no gradient.

    Args:
        rank: Rank of `A B`. Defaults to 4.
        alpha: Strength of the added matrices. Defaults to `None`: `rank`, a factor of 1.
        kernel_regularizer: Regularizer of `A` and `B`. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: float (B, d), the input of all experts.
        experts: A built `ExpertBank` whose experts share their input.

    Output shape: float (B, `experts.num_experts`, h).

    Example:

    >>> experts = ExpertBank(3, units=(8, 4))
    >>> experts.build((None, 5))
    >>> adapter = ExpertAdapter(rank=2)
    >>> adapter.build([kernel.shape for kernel in experts.kernels])
    >>> x = ops.ones((2, 5))
    >>> bool(ops.all(adapter(x, experts=experts) == experts(x)))
    True

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
    arXiv:2106.09685; scale and beginning as in `keras.layers.Dense.enable_lora`.
    """

    def __init__(
        self,
        rank: int = 4,
        alpha: float | None = None,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if rank < 1:
            raise ValueError(f"rank must be 1 or more. Received: {rank}")
        self.rank = rank
        self.alpha = alpha
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, kernel_shapes: list[tuple[int, ...]]) -> None:
        """Creates the weights.

        Args:
            kernel_shapes: The shapes of the kernels of the bank.
        """
        self.downs, self.ups = [], []
        for index, shape in enumerate(kernel_shapes):
            # The experts are the second axis of the first kernel, the first of the others.
            axis = 0 if index else 1
            count = shape[axis]
            common = {"regularizer": self.kernel_regularizer}
            self.downs.append(
                self.add_weight(
                    name=f"lora_kernel_a_{index}",
                    shape=(*shape[:2], self.rank),
                    initializer=for_each(keras.initializers.HeUniform(), axis),
                    **common,
                )
            )
            self.ups.append(
                self.add_weight(
                    name=f"lora_kernel_b_{index}",
                    shape=(count, self.rank, shape[-1]),
                    initializer="zeros",
                    **common,
                )
            )

    def call(self, inputs: Any, experts: ExpertBank) -> Any:
        scale = (self.rank if self.alpha is None else self.alpha) / self.rank
        outputs = inputs
        layers = zip(experts.kernels, experts.biases, self.downs, self.ups, strict=True)
        for kernel, bias, down, up in layers:
            # The bank may have another precision.
            kernel, bias = (
                ops.stop_gradient(ops.cast(part, self.compute_dtype)) for part in (kernel, bias)
            )
            frozen = expert_products(outputs, kernel) + bias
            own = expert_products(expert_products(outputs, down), up)
            outputs = experts.activation(frozen + scale * own)
        return outputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        num_experts, _, width = self.ups[-1].shape
        return (input_shape[0], num_experts, width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rank": self.rank,
            "alpha": self.alpha,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
