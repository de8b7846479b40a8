"""From what an encoder gives to a model's input: numbers and embeddings side by side."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import ops

from mptrec_tf.data.datasets import encoder_of
from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.layers import FeatureEmbedding, NumericEncoding
from mptrec_tf.spec import CategoricalFeature, MultiValuedFeature


class InputLayers(keras.layers.Layer):
    """Encodes numeric columns, embeds categorical ones, and puts them side by side.

    Args:
        encoder: An adapted encoder, which defines the input.
        embedding_dim: Width of the embeddings of features that give none of their own.
        l2_embedding: L2 penalty on the embeddings that are looked up. Defaults to 0.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Attributes:
        input_dim: Width `d` of `x`.
        input_columns: By name of a feature, the columns of `x` that are its own, a slice.
        num_ids: How many ids a row has, `P`.

    Input: a dict as `FeatureEncoder` gives it. Output: `x`, float (B, `input_dim`).

    Example:

    >>> rows = {"age": [31, 45, 60], "city": ["Lima", "Oslo", "Lima"]}
    >>> encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    >>> layer = InputLayers(encoder, embedding_dim=4)
    >>> layer.build()
    >>> layer(encoder.encode(rows)).shape == (3, layer.input_dim)
    True
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        embedding_dim: int,
        l2_embedding: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        numeric, single = encoder.numeric_features, encoder.categorical_features
        multi = encoder.multivalued_features
        self.numeric: NumericEncoding | None = None
        self.embedding: FeatureEmbedding | None = None
        if numeric:
            self.numeric = NumericEncoding(
                [encoder.numeric_state[f.name] for f in numeric],
                [f.encoding == "standardize" for f in numeric],
                name="numeric",
            )
        dims = {f.name: f.embedding_dim or embedding_dim for f in [*single, *multi]}
        if single or multi:
            self.embedding = embedding_of(
                encoder,
                [*single, *multi],
                dims,
                l2=l2_embedding,
                name="embedding",
                dtype=self.dtype_policy,
            )
        widths = {
            f.name: 1 if f.encoding == "standardize" else len(encoder.numeric_state[f.name]) - 1
            for f in numeric
        }
        widths |= dims
        self.input_columns = {
            name: slice(columns.start, columns.stop)
            for name, columns in _side_by_side(widths).items()
        }
        self.input_dim = sum(widths.values())
        self.num_ids = sum(map(len, id_columns(encoder).values()))

    def build(self, input_shape: Any = None) -> None:
        if self.embedding is not None:
            self.embedding.build()

    def ids(self, inputs: dict[str, Any]) -> Any:
        """The ids of a batch, int32 (B, P), those of single-valued features first.

        Args:
            inputs: A batch as `FeatureEncoder` gives it.
        """
        parts = [inputs[name] for name in ("categorical", "multivalued") if name in inputs]
        if not parts:
            return ops.zeros((ops.shape(inputs["numeric"])[0], 0), "int32")
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        parts = []
        if self.numeric is not None:
            parts.append(ops.cast(self.numeric(inputs["numeric"]), self.compute_dtype))
        if self.embedding is not None:
            embedded = self.embedding(
                inputs.get("categorical"), inputs.get("multivalued"), training=training
            )
            parts.append(embedded)
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def check_inputs(x: Any, encoder: FeatureEncoder) -> None:
    """Refuses inputs of a model that its encoder does not give.

    Args:
        x: What `fit`, `evaluate` or `predict` is given: a dataset, arrays, or something else.
        encoder: The model's.

    Raises:
        ModelError: If they are raw rows, or known to be by another encoder.
    """
    theirs = encoder_of(x)
    if theirs is not None and (other := theirs.differences(encoder)):
        raise ModelError(
            f"the rows were encoded by another encoder than the model's: it encodes {other} "
            "otherwise. Give make_dataset or encode_rows the encoder of the model, model.encoder"
        )
    if isinstance(x, tf.data.Dataset):
        x = x.element_spec
        x = x[0] if type(x) is tuple else x
    names = encoder.output_names
    raw = isinstance(x, pd.DataFrame | np.ndarray | str)
    if raw or (isinstance(x, Mapping) and not x.keys() >= set(names)):
        found = f"a dict of {list(x)}" if isinstance(x, Mapping) else f"a {type(x).__name__}"
        raise ModelError(
            f"the model reads encoded rows, a dict of {list(names)}: such as make_dataset(rows, "
            f"model.encoder, tasks) or model.encoder.encode(rows) gives. Received: {found}"
        )


def embedding_of(
    encoder: FeatureEncoder,
    features: Sequence[CategoricalFeature],
    dims: Mapping[str, int],
    **kwargs: Any,
) -> FeatureEmbedding:
    """Embeddings for categorical features of an encoder.

    Args:
        encoder: The encoder, which knows the vocabularies.
        features: The features, those that are multi-valued last.
        dims: Width of the embeddings by name of a feature.
        **kwargs: Other arguments of `FeatureEmbedding`.

    Returns:
        A layer for the ids of these features, side by side.
    """
    multi = [f for f in features if isinstance(f, MultiValuedFeature)]
    single = features[: len(features) - len(multi)]
    return FeatureEmbedding(
        [encoder.vocabulary_size(f.name) for f in single],
        [dims[f.name] for f in single],
        [encoder.vocabulary_size(f.name) for f in multi],
        [dims[f.name] for f in multi],
        [f.max_length for f in multi],
        [f.pooling for f in multi],
        [f.quotient_remainder for f in features],
        **kwargs,
    )


def id_columns(encoder: FeatureEncoder) -> dict[str, range]:
    """Where the ids of each categorical feature are, among those that `InputLayers.ids` gives.

    Args:
        encoder: The encoder.

    Returns:
        By name of a feature, its columns, in their order.
    """
    lengths = {f.name: 1 for f in encoder.categorical_features}
    lengths |= {f.name: f.max_length for f in encoder.multivalued_features}
    return _side_by_side(lengths)


def _side_by_side(widths: Mapping[str, int]) -> dict[str, range]:
    """The columns of each part, where parts of these widths are side by side."""
    stops = itertools.accumulate(widths.values())
    return {
        name: range(stop - width, stop)
        for (name, width), stop in zip(widths.items(), stops, strict=True)
    }
