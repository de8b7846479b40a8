"""Inputs of mean 0 and deviation 1, by what training has seen."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from mptrec_tf.layers.replicas import over_replicas

MOST_ROWS = 1e7


@keras.saving.register_keras_serializable("mptrec_tf")
class RunningStandardization(keras.layers.Layer):
    """Standardizes each column by the mean and the variance of all rows seen in training.

    `(x - mean) / sqrt(variance + epsilon)`, in training and afterwards alike: what is served is
    what was trained, also after a few steps. That differs from batch normalization, which trains
    with the statistics of a batch and serves with a moving average; it suits inputs whose
    distribution stays, such as the output of frozen layers.

    The statistics are those of all rows so far, up to ten million; from there on new rows weigh as
    a part of ten million. Rows with a number that is not finite are left out. The replicas of a
    strategy count together.

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

    Reference: the update is that of Chan, Golub and LeVeque, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances", COMPSTAT 1982.
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
            aggregation="mean",  # all replicas assign the same
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.cast(inputs, "float32")
        if training and self.trainable:
            self._take_in(x)
        x = (x - self.mean) * ops.rsqrt(self.variance + self.epsilon)
        return ops.cast(x, inputs.dtype)

    def _take_in(self, x: Any) -> None:
        # A row that overflows in half precision costs a step, and must not cost all later ones.
        finite = ops.all(ops.isfinite(x), axis=-1, keepdims=True)
        count, away = ops.sum(ops.cast(finite, "float32")), ops.where(finite, x - self.mean, 0.0)
        new, distances = over_replicas(tf.distribute.ReduceOp.SUM, [count, ops.sum(away, 0)])
        # Of the rows around their own mean, which may be far from that of the rows so far.
        distance = distances / ops.maximum(new, 1.0)
        around = ops.where(finite, ops.square(away - distance), 0.0)
        (squares,) = over_replicas(tf.distribute.ReduceOp.SUM, [ops.sum(around, 0)])
        rows = self.rows + new
        share = new / ops.maximum(rows, 1.0)
        between = ops.square(distance) * self.rows * share
        variance = (self.variance * self.rows + squares + between) / ops.maximum(rows, 1.0)
        self.variance.assign(ops.where(new > 0, variance, self.variance))
        self.mean.assign(self.mean + distance * share)
        self.rows.assign(ops.minimum(rows, MOST_ROWS))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
