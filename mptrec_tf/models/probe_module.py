"""The simplest head of a new task: a layer or a tower on what is frozen."""

from typing import Any

import keras
from keras import ops

from mptrec_tf.layers import ExpertBank
from mptrec_tf.models.backbone import Representation
from mptrec_tf.models.task_module import TowerModule


@keras.saving.register_keras_serializable("mptrec_tf")
class ProbeModule(TowerModule):
    """A linear layer, or a tower, on all frozen representations side by side.

    It reads `[g, s_1, ..., s_K]`; nothing is weighed for each example.

    Args:
        num_outputs: Outputs of the head; set by `MPTRec.add_task`. Defaults to 1.
        tower_units: Hidden widths of a tower. Defaults to (): a linear probe.
        **kwargs: See `TowerModule`.

    Call arguments:
        representation: A `Representation` from the frozen backbone.

    Output: a list with one float32 tensor (B, `num_outputs`), logits.

    Example:

    >>> ids = ops.zeros((2, 1), "int32")
    >>> r = Representation(ops.ones((2, 5)), ops.ones((2, 4)), ops.ones((2, 3, 4)), ids)
    >>> ProbeModule(tower_units=(8,))(r)[0].shape
    TensorShape([2, 1])

    Reference: Alain and Bengio, "Understanding intermediate layers using linear classifier probes",
    2016, arXiv:1610.01644.
    """

    def __init__(
        self, num_outputs: int = 1, *, tower_units: tuple[int, ...] = (), **kwargs: Any
    ) -> None:
        super().__init__(num_outputs, tower_units=tower_units, **kwargs)
        self.head: keras.layers.Layer
        if self.tower_units:
            self.head = self._tower()
        else:
            self.head = ExpertBank(
                1, (num_outputs,), "linear", kernel_initializer="glorot_uniform", name="linear",
                **self._common,
            )  # fmt: skip

    def build(self, representation_shape: Representation) -> None:
        _, shared, specific, _ = representation_shape
        self.head.build((None, shared[-1] + specific[-2] * specific[-1]))

    def call(self, representation: Representation, training: bool = False) -> list[Any]:
        _, shared, specific, _ = representation
        flat = ops.reshape(specific, (-1, specific.shape[1] * specific.shape[2]))
        logits = self.head(ops.concatenate([shared, flat], axis=-1), training=training)
        return logits if self.tower_units else [ops.cast(logits[:, 0], "float32")]
