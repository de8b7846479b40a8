"""Numbers as positions within bins."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("mptrec_tf")
class NumericEncoding(keras.layers.Layer):
    """Piecewise-linear encoding or standardization of all numeric columns in one expression.

    A column with the edges `b_0 < b_1 < ... < b_n` becomes `n` values: the `t`-th is
    `clip((x - b_{t-1}) / (b_t - b_{t-1}), 0, 1)`, so it is 0 below its bin, 1 above it, and grows
    within it. A column given as `mean, deviation` becomes one value, `(x - mean) / deviation`.

    The layer computes in float32 whatever the dtype policy: raw numbers do not fit into half
    precision.

    Args:
        edges: For each column, its ascending bin edges (two or more).
        standardized: For each column, whether its two numbers are mean and standard deviation
            instead of edges. Defaults to none.
        **kwargs: `name` and other arguments of `keras.layers.Layer`. `dtype` has no effect.

    Input shape: float (B, number of columns). Output shape: float32 (B, `output_dim`).

    Example:

    >>> layer = NumericEncoding([[0.0, 10.0, 20.0]])
    >>> layer(np.array([[15.0]], "float32")).numpy()
    array([[1. , 0.5]], dtype=float32)

    Reference: Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular
    Deep Learning", NeurIPS 2022, equation 1 (there the outer bins are not clipped; here they are).
    """

    def __init__(
        self,
        edges: Sequence[Sequence[float]],
        standardized: Sequence[bool] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs = {"trainable": False, **kwargs, "dtype": "float32"}
        super().__init__(**kwargs)
        self.edges = [[float(edge) for edge in column] for column in edges]
        self.standardized = (
            [False] * len(self.edges) if standardized is None else list(standardized)
        )
        columns, offsets, scales, lows, highs = [], [], [], [], []
        for index, (column, standard) in enumerate(zip(self.edges, self.standardized, strict=True)):
            if standard:
                pieces, low, high = [(column[0], column[1])], -np.inf, np.inf
            else:
                pieces, low, high = list(zip(column, np.diff(column), strict=False)), 0.0, 1.0
            if not pieces or min(width for _, width in pieces) <= 0:
                raise ValueError(
                    "each column needs ascending edges, or a mean and a deviation above 0. "
                    f"Received for column {index}: {column}"
                )
            for offset, scale in pieces:
                columns.append(index)
                offsets.append(offset)
                scales.append(scale)
                lows.append(low)
                highs.append(high)
        self._columns = np.array(columns, np.int32)
        self._offsets = np.array(offsets, np.float32)
        self._scales = np.array(scales, np.float32)
        self._lows = np.array(lows, np.float32)
        self._highs = np.array(highs, np.float32)
        self.built = True

    @property
    def output_dim(self) -> int:
        """Width of the output."""
        return len(self._columns)

    def call(self, inputs: Any) -> Any:
        spread = ops.take(ops.cast(inputs, "float32"), self._columns, axis=-1)
        return ops.clip((spread - self._offsets) / self._scales, self._lows, self._highs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.output_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "edges": self.edges, "standardized": self.standardized}
