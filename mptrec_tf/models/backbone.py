"""What all tasks of a model share: input layers and experts."""

import itertools
from typing import Any, NamedTuple

import keras
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.layers import ExpertBank, FeatureEmbedding, NumericEncoding


class Representation(NamedTuple):
    """What a task's head reads of a batch.

    Attributes:
        x: The model's input: encoded numbers and embeddings, float (B, d).
        shared: Output `g` of the sharing expert, float (B, h).
        specific: Outputs `s_k` of the specific experts, float (B, K, h).
    """

    x: Any
    shared: Any
    specific: Any


class Backbone(keras.layers.Layer):
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

    Attributes:
        input_dim: Width `d` of `x`.
        input_columns: By name of a feature, the columns of `x` that are its own, a slice.

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
        super().__init__(autocast=False, **kwargs)
        numeric, single = encoder.numeric_features, encoder.categorical_features
        multi = encoder.multivalued_features
        self.numeric = self.embedding = None
        if numeric:
            self.numeric = NumericEncoding(
                [encoder.numeric_state[f.name] for f in numeric],
                [f.encoding == "standardize" for f in numeric],
                name="numeric",
            )
        if single or multi:
            self.embedding = FeatureEmbedding(
                [encoder.vocabulary_size(f.name) for f in single],
                [f.embedding_dim or embedding_dim for f in single],
                [encoder.vocabulary_size(f.name) for f in multi],
                [f.embedding_dim or embedding_dim for f in multi],
                [f.max_length for f in multi],
                [f.pooling for f in multi],
                [f.quotient_remainder for f in [*single, *multi]],
                l2=l2_embedding,
                name="embedding",
                dtype=self.dtype_policy,
            )
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
        widths = {
            f.name: 1 if f.encoding == "standardize" else len(encoder.numeric_state[f.name]) - 1
            for f in numeric
        }
        widths |= {f.name: f.embedding_dim or embedding_dim for f in [*single, *multi]}
        stops = itertools.accumulate(widths.values())
        self.input_columns = {
            name: slice(stop - width, stop)
            for (name, width), stop in zip(widths.items(), stops, strict=True)
        }
        self.input_dim = sum(widths.values())

    def build(self, input_shape: Any = None) -> None:
        if self.embedding is not None:
            self.embedding.build()
        self.experts.build((None, self.input_dim))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Representation:
        parts = []
        if self.numeric is not None:
            parts.append(ops.cast(self.numeric(inputs["numeric"]), self.compute_dtype))
        if self.embedding is not None:
            embedded = self.embedding(
                inputs.get("categorical"), inputs.get("multivalued"), training=training
            )
            parts.append(embedded)
        x = ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        experts = self.experts(x, training=training)
        return Representation(x, experts[:, 0], experts[:, 1:])
