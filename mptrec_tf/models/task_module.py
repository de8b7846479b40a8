"""What can be added to a trained MPT-Rec model for a new task."""

from typing import TYPE_CHECKING, Any

import keras

from mptrec_tf.models.backbone import Representation

if TYPE_CHECKING:
    from mptrec_tf.models.mptrec import MPTRec


class TaskModule(keras.layers.Layer):
    """The head of a task that was added to a trained model; it reads what is frozen there.

    A subclass gives `build` and `call`, and `build_on` and `logits_on` if it reads more of the
    model than the representation of a batch. It is registered with Keras and has a complete
    `get_config`, from which `MPTRec.add_task` makes the module of each task.

    Args:
        num_outputs: Outputs of the head; set by `MPTRec.add_task`. Defaults to 1.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        representation: A `Representation` from the frozen backbone.

    Output: a list with one float32 tensor (B, `num_outputs`), logits.
    """

    def __init__(self, num_outputs: int = 1, **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.num_outputs = num_outputs

    def build_on(self, model: "MPTRec") -> None:
        """Creates the weights for a model.

        Args:
            model: The model.
        """
        self.build(model.representation_shape)

    def logits_on(
        self, model: "MPTRec", representation: Representation, training: bool = False
    ) -> list[Any]:
        """Calls the module with what it reads of a model.

        Args:
            model: The model.
            representation: What the model's `represent` gave.
            training: Whether dropout acts. Defaults to `False`.
        """
        return self(representation, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_outputs": self.num_outputs}
