"""What all tasks of an MPT-Rec model share: input layers and experts."""

from typing import Any, NamedTuple

import keras

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.layers import ExpertBank
from mptrec_tf.models.inputs import InputLayers


class Representation(NamedTuple):
    """What a task's head reads of a batch.

    Attributes:
        x: The model's input: encoded numbers and embeddings, float (B, d).
        shared: Output `g` of the sharing expert, float (B, h).
        specific: Outputs `s_k` of the specific experts, float (B, K, h).
        ids: What `x` embeds: the ids of the categorical features, int32 (B, P), the single-valued
            ones first.
    """

    x: Any
    shared: Any
    specific: Any
    ids: Any


class Backbone(InputLayers):
    """Input layers, the sharing expert and a specific expert for each stage 1 task.

    The sharing expert is the first of one `ExpertBank`, so all experts are one batched product.

    Args:
        encoder: An adapted encoder, which defines the input.
        num_tasks: Number of stage 1 tasks, `K`.
        embedding_dim: Width of the embeddings of features that give none of their own.
        expert_units: Widths of an expert's layers.
        activation: Activation of the experts.
        dropout: Dropout after each layer of the experts.
        l2_embedding: L2 penalty on the embeddings that are looked up.
        l2: L2 penalty on the experts' kernels.
        seed: Seed of the dropout.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Input: a dict as `FeatureEncoder` gives it. Output: a `Representation`.

    Reference: arXiv:2408.17214, section 3.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        num_tasks: int,
        *,
        embedding_dim: int,
        expert_units: tuple[int, ...],
        activation: Any,
        dropout: float,
        l2_embedding: float,
        l2: float,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, embedding_dim, l2_embedding, **kwargs)
        self.experts = ExpertBank(
            num_tasks + 1,
            expert_units,
            activation,
            dropout,
            kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
            seed=seed,
            name="experts",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        self.experts.build((None, self.input_dim))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Representation:
        x = super().call(inputs, training=training)
        experts = self.experts(x, training=training)
        return Representation(x, experts[:, 0], experts[:, 1:], self.ids(inputs))
