"""Inputs of mean 0 and deviation 1, by what training has seen."""

from typing import Any

import keras
from keras import ops

MOST_ROWS = 1e7


@keras.saving.register_keras_serializable("mptrec_tf")
class RunningStandardization(keras.layers.Layer):
    """Standardizes each column by the mean and the variance of all rows seen in training.

    `(x - mean) / sqrt(variance + epsilon)`, in training and afterwards alike: what is served is
    what was trained, also after a few steps. That differs from batch normalization, which trains
    with the statistics of a batch and serves with a moving average; it suits inputs whose
    distribution stays, such as the output of frozen layers.

    The statistics are those of all rows so far, up to ten million; from there on new rows weigh as
    a part of ten million.

    Args:
        epsilon: Added to the variance. Defaults to 1e-3.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: float (B, d).
        training: Whether to take the rows into the statistics, which a layer that is not trainable
            never does. Defaults to `False`.

    Output shape: the same, in the dtype of the input. The statistics are float32.

    Example:

    >>> layer = RunningStandardization(epsilon=0.0)
    >>> layer(np.array([[1.0], [3.0]], "float32"), training=True).numpy()
    array([[-1.],
           [ 1.]], dtype=float32)
    >>> layer(np.array([[4.0]], "float32")).numpy()
    array([[2.]], dtype=float32)

    Reference: the update is equation 3.1 of Chan, Golub and LeVeque, "Updating Formulae and a
    Pairwise Algorithm for Computing Sample Variances", COMPSTAT 1982, for means over rows.
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        width = input_shape[-1]
        self.mean = self._statistic("mean", (width,), "zeros")
        self.variance = self._statistic("variance", (width,), "ones")
        self.rows = self._statistic("rows", (), "zeros")

    def _statistic(self, name: str, shape: tuple[int | None, ...], initializer: str) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="mean",  # over the replicas of a strategy
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.cast(inputs, "float32")
        if training and self.trainable:
            self._take_in(x)
        x = (x - self.mean) * ops.rsqrt(self.variance + self.epsilon)
        return ops.cast(x, inputs.dtype)

    def _take_in(self, x: Any) -> None:
        new = ops.cast(ops.shape(x)[0], "float32")
        rows = self.rows + new
        share = new / rows
        mean, variance = ops.moments(x, axes=0)
        away = mean - self.mean
        between = share * (1.0 - share) * ops.square(away)
        self.variance.assign(self.variance + share * (variance - self.variance) + between)
        self.mean.assign(self.mean + share * away)
        self.rows.assign(ops.minimum(rows, MOST_ROWS))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
