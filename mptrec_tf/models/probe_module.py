"""The simplest head of a new task: a layer or a tower on what is frozen."""

from typing import Any

import keras
from keras import ops

from mptrec_tf.layers import ExpertBank, TowerBank
from mptrec_tf.models.backbone import Representation
from mptrec_tf.models.task_module import TaskModule


@keras.saving.register_keras_serializable("mptrec_tf")
class ProbeModule(TaskModule):
    """A linear layer, or a tower, on all frozen representations side by side.

    It reads `[g, s_1, ..., s_K]`; nothing is weighed for each example.

    Args:
        num_outputs: Outputs of the head; set by `MPTRec.add_task`. Defaults to 1.
        tower_units: Hidden widths of a tower. Defaults to (): a linear probe.
        dropout: Dropout in the tower. Defaults to 0.
        l2: L2 penalty on the kernels. Defaults to 0.
        seed: Seed of the dropout. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        representation: A `Representation` from the frozen backbone.

    Output: a list with one float32 tensor (B, `num_outputs`), logits.

    Example:

    >>> r = Representation(ops.ones((2, 5)), ops.ones((2, 4)), ops.ones((2, 3, 4)))
    >>> ProbeModule(tower_units=(8,))(r)[0].shape
    TensorShape([2, 1])

    Reference: Alain and Bengio, "Understanding intermediate layers using linear classifier probes",
    2016, arXiv:1610.01644.
    """

    def __init__(
        self,
        num_outputs: int = 1,
        *,
        tower_units: tuple[int, ...] = (),
        dropout: float = 0.0,
        l2: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_outputs, **kwargs)
        self.tower_units = tuple(tower_units)
        self.dropout = dropout
        self.l2 = l2
        self.seed = seed
        common = {
            "kernel_regularizer": keras.regularizers.L2(l2) if l2 else None,
            "dtype": self.dtype_policy,
        }
        self.head: keras.layers.Layer
        if self.tower_units:
            self.head = TowerBank(
                [num_outputs], tower_units, dropout=dropout, seed=seed, name="tower", **common
            )
        else:
            self.head = ExpertBank(
                1, (num_outputs,), "linear", kernel_initializer="glorot_uniform", name="linear",
                **common,
            )  # fmt: skip

    def build(self, representation_shape: Representation) -> None:
        _, shared, specific = representation_shape
        self.head.build((None, shared[-1] + specific[-2] * specific[-1]))

    def call(self, representation: Representation, training: bool = False) -> list[Any]:
        _, shared, specific = representation
        flat = ops.reshape(specific, (-1, specific.shape[1] * specific.shape[2]))
        logits = self.head(ops.concatenate([shared, flat], axis=-1), training=training)
        return logits if self.tower_units else [ops.cast(logits[:, 0], "float32")]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "tower_units": self.tower_units,
            "dropout": self.dropout,
            "l2": self.l2,
            "seed": self.seed,
        }
