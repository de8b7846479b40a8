"""A task's own way from the frozen input to its tower."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.layers import FeatureEmbedding, RunningStandardization
from mptrec_tf.models.inputs import embedding_of, id_columns


class InputPath(keras.layers.Layer):
    """The input, standardized, and embeddings of the task's own, projected to a low rank.

    The tables of stage 1 differ widely in scale, and a low rate learns little from small numbers;
    so the input is standardized. They hold of a category what the older tasks needed; so a task may
    have embeddings of its own beside them, which begin as zero.

    Args:
        units: Width of the projection. It has no bias: the layer that reads it has one.
        embedding_dim: Width of the embeddings; 0 leaves them out. Defaults to 0.
        embedding_features: The categorical features that are embedded. Defaults to `None`: all.
        kernel_regularizer: Regularizer of the projection. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Attributes:
        standardization: A `RunningStandardization` of the input.
        embedding: A `FeatureEmbedding`, or `None`; `embed` makes it.
        id_columns: Which of the ids it reads.
        projection: The dense layer on both.

    Call arguments:
        x: float (B, d), the frozen input.
        ids: int32 (B, P), the ids of its categorical features.
        training: Whether the statistics take the rows in. Defaults to `False`.

    Output: float (B, `units`).
    """

    def __init__(
        self,
        units: int,
        embedding_dim: int = 0,
        embedding_features: Sequence[str] | None = None,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.embedding_dim = embedding_dim
        self.embedding_features = embedding_features
        dtype = self.dtype_policy
        self.standardization = RunningStandardization(name="standardization", dtype=dtype)
        self.embedding: FeatureEmbedding | None = None
        self.id_columns: list[int] = []
        self.projection = keras.layers.Dense(
            units,
            use_bias=False,
            kernel_regularizer=kernel_regularizer,
            name="projection",
            dtype=dtype,
        )

    def embed(self, encoder: FeatureEncoder) -> None:
        """Makes the embeddings, if it is to have any, before `build`.

        Args:
            encoder: The model's encoder, which knows the features and their ids.

        Raises:
            ModelError: If a feature that is to be embedded is none of the categorical ones, or
                there are none.
        """
        if not self.embedding_dim:
            return
        categorical = [*encoder.categorical_features, *encoder.multivalued_features]
        features = {feature.name: feature for feature in categorical}
        names = list(features) if self.embedding_features is None else self.embedding_features
        if unknown := [name for name in names if name not in features]:
            raise ModelError(
                f"embedding_features: {unknown} are none of the model's categorical features "
                f"{list(features)}"
            )
        if not names:
            raise ModelError(
                f"embedding_dim={self.embedding_dim}: there is no categorical feature to embed"
            )
        chosen = [name for name in features if name in names]
        self.embedding = embedding_of(
            encoder,
            [features[name] for name in chosen],
            dict.fromkeys(chosen, self.embedding_dim),
            embeddings_initializer="zeros",
            name="embedding",
            dtype=self.dtype_policy,
        )
        columns = id_columns(encoder)
        self.id_columns = [column for name in chosen for column in columns[name]]

    def build(self, x_shape: tuple[int | None, int]) -> None:
        if self.embedding_dim and self.embedding is None:
            raise ModelError(
                f"embedding_dim={self.embedding_dim}: the features must be known first; use "
                "build_on(model), or input_path.embed(encoder) before build"
            )
        self.standardization.build(x_shape)
        _, width = x_shape
        if self.embedding is not None:
            self.embedding.build()
            width += self.embedding.output_dim
        self.projection.build((None, width))

    def call(self, x: Any, ids: Any, training: bool = False) -> Any:
        own = self.standardization(x, training=training)
        if self.embedding is not None:
            embedded = self.embedding(ops.take(ids, self.id_columns, axis=-1))
            own = ops.concatenate([own, embedded], axis=-1)
        return self.projection(own)
