"""A model for each task, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mptrec_tf.balancing import Balancing
from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.models.baselines.base import BaselineModel
from mptrec_tf.spec import Task


@keras.saving.register_keras_serializable("mptrec_tf")
class SingleTask(BaselineModel):
    """Tasks that share nothing: each has embeddings, an expert and a tower of its own.

    For task `k`: `T_k(E_k(x_k))`. The models are trained in one pass over the data, and since they
    have no weight in common, each learns what it would learn alone. A balancing that compares the
    tasks' gradients over shared weights is refused by `compile`.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks.
        **kwargs: See `BaselineModel`.

    Example:

    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "like": [1, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> model = SingleTask(encoder, [Task("click", "click"), Task("like", "like")])
    >>> sorted(model(encoder.encode(rows)))
    ['click', 'like']

    Reference: the baseline "SingleTask" of arXiv:2408.17214.
    """

    default_name = "single_task"

    def __init__(self, encoder: FeatureEncoder, tasks: Sequence[Task], **kwargs: Any) -> None:
        super().__init__(encoder, tasks, **kwargs)
        self.features = [self.make.inputs(encoder, f"features_{t.name}") for t in self.tasks]
        self.experts = self.make.experts(len(self.tasks), "experts")
        self.towers = self.make.towers([task.num_outputs for task in self.tasks], "towers")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        for features in self.features:
            features.build()
        count = len(self.tasks)
        self.experts.build((None, count, self.features[0].input_dim))
        self.towers.build((None, count, self.make.width))
        super().build()

    def _begin(self, balancing: Balancing | None) -> None:
        if balancing is not None and balancing.uses_gradients:
            raise ModelError(
                f"balancing by {type(balancing).__name__} compares the tasks' gradients over the "
                f"weights that they share, and in a {type(self).__name__} they share none; give "
                "balancing=None"
            )
        super()._begin(balancing)

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> Any:
        x = [features(inputs, training=training) for features in self.features]
        return self.experts(ops.stack(x, axis=1), training=training)

    def stage1_logits(self, representation: Any, training: bool = False) -> list[Any]:
        return self.towers(representation, training=training)
