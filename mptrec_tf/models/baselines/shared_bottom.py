"""One network for all tasks, and a tower for each."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.layers import TowerBank
from mptrec_tf.models.baselines.base import FineTunedModel
from mptrec_tf.spec import Task


@keras.saving.register_keras_serializable("mptrec_tf")
class SharedBottom(FineTunedModel):
    """Tasks that share all but their towers: `T_k(E(x))`.

    An added task has a tower of its own on the frozen bottom.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks.
        **kwargs: See `BaselineModel`; the bottom has the widths `expert_units`.

    Example:

    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "like": [1, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> model = SharedBottom(encoder, [Task("click", "click"), Task("like", "like")])
    >>> sorted(model(encoder.encode(rows)))
    ['click', 'like']

    Reference: Caruana, "Multitask Learning", Machine Learning 28, 1997.
    """

    default_name = "shared_bottom"

    def __init__(self, encoder: FeatureEncoder, tasks: Sequence[Task], **kwargs: Any) -> None:
        super().__init__(encoder, tasks, **kwargs)
        self.features = self.make.inputs(encoder, "features")
        self.bottom = self.make.experts(1, "bottom")
        self.towers = self.make.towers([task.num_outputs for task in self.tasks], "towers")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.features.build()
        self.bottom.build((None, self.features.input_dim))
        self.towers.build((None, self.make.width))
        super().build()

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> Any:
        return self.bottom(self.features(inputs, training=training), training=training)[:, 0]

    def stage1_logits(self, representation: Any, training: bool = False) -> list[Any]:
        return self.towers(representation, training=training)

    def _new_module(self, task: Task, description: Mapping[str, Any]) -> TowerBank:
        tower = self.make.towers([task.num_outputs], task.name)
        tower.build((None, self.make.width))
        return tower

    def _added_logits(self, module: TowerBank, representation: Any, training: bool) -> Any:
        return module(representation, training=training)[0]
