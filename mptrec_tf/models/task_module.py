"""What can be added to a trained MPT-Rec model for a new task."""

from typing import TYPE_CHECKING, Any

import keras

from mptrec_tf.layers import TowerBank
from mptrec_tf.models.arguments import check_sizes
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

    Example:

    >>> @keras.saving.register_keras_serializable("my_package")
    ... class OnShared(TaskModule):
    ...     def build(self, representation_shape):
    ...         self.layer = keras.layers.Dense(self.num_outputs)
    ...         self.layer.build(representation_shape.shared)
    ...
    ...     def call(self, representation, training=False):
    ...         return [ops.cast(self.layer(representation.shared), "float32")]
    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "buy": [0, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> model = MPTRec(encoder, [Task("click", "click")], expert_units=(4,), tower_units=(2,))
    >>> model.compile("adam")
    >>> history = model.fit(make_dataset(rows, encoder, model.tasks), verbose=0)
    >>> model.add_task(Task("buy", "buy"), module=OnShared())
    >>> sorted(model(encoder.encode(rows)))
    ['buy', 'click']
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


class TowerModule(TaskModule):
    """A head that ends in a tower.

    Args:
        num_outputs: Outputs of the tower; set by `MPTRec.add_task`. Defaults to 1.
        tower_units: Hidden widths of the tower. Defaults to (64, 32).
        activation: Activation of the tower. Defaults to `None`: the model's own, `"relu"` without
            a model.
        dropout: Dropout in the tower. Defaults to 0.
        l2: L2 penalty on the kernels. Defaults to 0.
        seed: Seed of the dropout. Defaults to `None`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.add_task(new, module=ProbeModule(tower_units=(8,), dropout=0.1))  # one of these
    ```
    """

    def __init__(
        self,
        num_outputs: int = 1,
        *,
        tower_units: tuple[int, ...] = (64, 32),
        activation: Any = None,
        dropout: float = 0.0,
        l2: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_outputs, **kwargs)
        self.tower_units = tuple(tower_units)
        self.activation = None if activation is None else keras.activations.get(activation)
        self.dropout = dropout
        self.l2 = l2
        self.seed = seed
        self._common = {
            "kernel_regularizer": keras.regularizers.L2(l2) if l2 else None,
            "dtype": self.dtype_policy,
        }

    def _tower(self) -> TowerBank:
        check_sizes(tower_units=self.tower_units)
        return TowerBank(
            [self.num_outputs],
            self.tower_units,
            self.activation or "relu",
            self.dropout,
            seed=self.seed,
            name="tower",
            **self._common,
        )

    def get_config(self) -> dict[str, Any]:
        activation = self.activation and keras.activations.serialize(self.activation)
        return {
            **super().get_config(),
            "tower_units": self.tower_units,
            "activation": activation,
            "dropout": self.dropout,
            "l2": self.l2,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TowerModule":
        # Files that are older than this setting hold towers with ReLU, whatever the model has.
        return super().from_config({"activation": "relu", **config})
