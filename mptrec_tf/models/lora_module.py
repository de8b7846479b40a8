"""A new task with low-rank changes of its own to the frozen experts."""

from typing import TYPE_CHECKING, Any

import keras

from mptrec_tf.layers import ExpertAdapter, ExpertBank, Gate
from mptrec_tf.models.backbone import Representation
from mptrec_tf.models.task_module import TowerModule

if TYPE_CHECKING:
    from mptrec_tf.models.mptrec import MPTRec


@keras.saving.register_keras_serializable("mptrec_tf")
class LoRAModule(TowerModule):
    """The sharing expert and the specific experts, changed for one task, a gate and a tower.

    `f = sum_e a_e E'_e(x)` over all experts of the backbone, where each kernel of `E'_e` is the
    frozen one plus the task's own low-rank matrix, `a = softmax(W x)`, and the tower reads `f`. The
    older tasks go on with the experts as they are.

    Args:
        num_outputs: Outputs of the tower; set by `MPTRec.add_task`. Defaults to 1.
        rank: Rank of the added matrices. Defaults to 4.
        alpha: Their strength, see `ExpertAdapter`. Defaults to `None`: `rank`.
        **kwargs: See `TowerModule`.

    Call arguments:
        representation: A `Representation` from the frozen backbone, of which `x` is read.
        experts: The backbone's `ExpertBank`.

    Output: a list with one float32 tensor (B, `num_outputs`), logits.

    Example:

    ```python
    model.add_task(Task("education", label="education"), module=LoRAModule(rank=8))
    ```

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
    arXiv:2106.09685.
    """

    def __init__(
        self,
        num_outputs: int = 1,
        *,
        rank: int = 4,
        alpha: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_outputs, **kwargs)
        self.rank = rank
        self.alpha = alpha
        self.adapter = ExpertAdapter(rank, alpha, name="adapter", **self._common)
        self.tower = self._tower()

    def build_on(self, model: "MPTRec") -> None:
        kernels = model.backbone.experts.kernels
        self.build(model.representation_shape, [tuple(kernel.shape) for kernel in kernels])

    def logits_on(
        self, model: "MPTRec", representation: Representation, training: bool = False
    ) -> list[Any]:
        return self(representation, experts=model.backbone.experts, training=training)

    def build(
        self, representation_shape: Representation, kernel_shapes: list[tuple[int, ...]]
    ) -> None:
        x_shape, shared_shape, _, _ = representation_shape
        self.gate = Gate(1, kernel_shapes[0][1], name="gate", **self._common)
        self.gate.build(x_shape)
        self.adapter.build(kernel_shapes)
        self.tower.build((None, shared_shape[-1]))

    def call(
        self, representation: Representation, experts: ExpertBank, training: bool = False
    ) -> list[Any]:
        weights = self.gate(representation.x)[:, 0, :, None]
        outputs = self.adapter(representation.x, experts=experts)
        return self.tower(keras.ops.sum(weights * outputs, axis=1), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rank": self.rank, "alpha": self.alpha}
