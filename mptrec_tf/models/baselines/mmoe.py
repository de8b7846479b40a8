"""Experts that all tasks share, weighed by a gate for each task."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.models.arguments import check_sizes
from mptrec_tf.models.baselines.base import FineTunedModel, LayerMaker, mix
from mptrec_tf.spec import Task


class ExpertOutputs(NamedTuple):
    """What the tasks share of a batch.

    Attributes:
        x: The model's input, float (B, d).
        experts: Outputs of the experts, float (B, E, h).
    """

    x: Any
    experts: Any


class MixtureHeads(keras.layers.Layer):
    """Gates over shared experts, and towers, of some tasks.

    Args:
        make: Makes the layers.
        num_experts: Number of experts, `E`.
        outputs: Number of outputs of each task.
        **kwargs: `name`.
    """

    def __init__(
        self, make: LayerMaker, num_experts: int, outputs: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, dtype=make.dtype, **kwargs)
        self.gates = make.gate(len(outputs), num_experts, "gates")
        self.towers = make.towers(outputs, "towers")
        self._shape = (None, len(outputs), make.width)

    def build(self, input_shape: Any = None) -> None:
        self.gates.build(input_shape)
        self.towers.build(self._shape)

    def call(self, outputs: ExpertOutputs, training: bool = False) -> list[Any]:
        fused = mix(self.gates(outputs.x), outputs.experts[:, None])
        return self.towers(fused, training=training)


@keras.saving.register_keras_serializable("mptrec_tf")
class MMoE(FineTunedModel):
    """Multi-gate mixture of experts.

    For task `k`: `f_k = sum_e a_k[e] E_e(x)` with `a_k = softmax(W_k x)`, and `T_k(f_k)`.

    An added task has a gate of its own over the frozen experts, and a tower.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks.
        num_experts: Number of experts. Defaults to 3.
        **kwargs: See `BaselineModel`.

    Example:

    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "like": [1, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> model = MMoE(encoder, [Task("click", "click"), Task("like", "like")], num_experts=4)
    >>> model.gate_weights(encoder.encode(rows))["click"].shape
    TensorShape([3, 4])

    Reference: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018, section 4.2.
    """

    default_name = "mmoe"

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        num_experts: int = 3,
        **kwargs: Any,
    ) -> None:
        check_sizes(num_experts=num_experts)
        super().__init__(encoder, tasks, **kwargs)
        self._settings["num_experts"] = num_experts
        self.features = self.make.inputs(encoder, "features")
        self.experts = self.make.experts(num_experts, "experts")
        self.heads = self._heads([task.num_outputs for task in self.tasks], "heads")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.features.build()
        width = (None, self.features.input_dim)
        self.experts.build(width)
        self.heads.build(width)
        super().build()

    def _heads(self, outputs: Sequence[int], name: str) -> MixtureHeads:
        return MixtureHeads(self.make, self._settings["num_experts"], outputs, name=name)

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> ExpertOutputs:
        x = self.features(inputs, training=training)
        return ExpertOutputs(x, self.experts(x, training=training))

    def stage1_logits(self, representation: ExpertOutputs, training: bool = False) -> list[Any]:
        return self.heads(representation, training=training)

    def _new_module(self, task: Task, description: Mapping[str, Any]) -> MixtureHeads:
        heads = self._heads([task.num_outputs], task.name)
        heads.build((None, self.features.input_dim))
        return heads

    def _added_logits(
        self, module: MixtureHeads, representation: ExpertOutputs, training: bool
    ) -> Any:
        return module(representation, training=training)[0]

    def gate_weights(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """How much each task uses of each expert.

        Args:
            inputs: A batch as `FeatureEncoder` gives it.

        Returns:
            By task, float (B, `num_experts`).
        """
        x = self.represent(inputs).x
        gates = self.heads.gates(x)
        weights = {task.name: gates[:, k] for k, task in enumerate(self.stage1_tasks)}
        for name, module in self.task_modules.modules.items():
            weights[name] = module.gates(x)[:, 0]
        return weights
