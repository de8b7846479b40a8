"""Embeddings for each task, and experts that all read but only their own task trains."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.models.arguments import check_sizes
from mptrec_tf.models.baselines.base import FineTunedModel, LayerMaker, mix
from mptrec_tf.spec import Task


class NewSpecific(keras.layers.Layer):
    """Specific experts, a gate and a tower of an added task.

    Args:
        make: Makes the layers.
        specific: Number of specific experts.
        others: Number of frozen experts that the gate weighs too.
        outputs: Number of outputs.
        **kwargs: `name`.
    """

    def __init__(
        self, make: LayerMaker, specific: int, others: int, outputs: int, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, dtype=make.dtype, **kwargs)
        self.experts = make.experts(specific, "experts")
        self.gate = make.gate(1, specific + others, "gate")
        self.tower = make.towers([outputs], "tower")
        self._width = make.width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.experts.build(input_shape)
        self.gate.build(input_shape)
        self.tower.build((None, self._width))

    def call(self, x: Any, others: Any, training: bool = False) -> Any:
        own = self.experts(x, training=training)
        fused = mix(self.gate(x)[:, 0], ops.concatenate([own, others], axis=1))
        return self.tower(fused, training=training)[0]


@keras.saving.register_keras_serializable("mptrec_tf")
class STEM(FineTunedModel):
    """Shared and task-specific embeddings, with all-forward, task-specific-backward gates.

    There is a set of embedding tables that is shared, giving `x`, and one for each task, giving
    `x_k`. Shared experts read `x`, the specific experts of task `k` read `x_k`. The gate of task
    `k` reads `x + x_k` and weighs all experts, also those of the other tasks; but no gradient of
    task `k` passes through another task's specific experts, so these and their embeddings learn
    from their own task alone.

    An added task has specific experts of its own that read the frozen shared embeddings, a gate
    over these and all frozen experts, and a tower.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks.
        specific_experts: Experts of each task. Defaults to 1.
        shared_experts: Experts that all tasks share. Defaults to 1.
        **kwargs: See `BaselineModel`.

    Example:

    >>> rows = {"age": [31, 45, 60], "city": ["Lima", "Oslo", "Lima"]}
    >>> encoder = FeatureEncoder([NumericFeature("age"), CategoricalFeature("city")]).adapt(rows)
    >>> model = STEM(encoder, [Task("click", "click"), Task("like", "like")])
    >>> sorted(model(encoder.encode(rows)))
    ['click', 'like']

    Reference: Su et al., "STEM: Unleashing the Power of Embeddings for Multi-Task Recommendation",
    AAAI 2024, arXiv:2308.13537, section 4 (STEM-Net).
    """

    default_name = "stem"

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        specific_experts: int = 1,
        shared_experts: int = 1,
        **kwargs: Any,
    ) -> None:
        own = {"specific_experts": specific_experts, "shared_experts": shared_experts}
        check_sizes(**own)
        super().__init__(encoder, tasks, **kwargs)
        self._settings.update(own)
        count = len(self.tasks)
        self.features = self.make.inputs(encoder, "features")
        self.task_features = [self.make.inputs(encoder, f"features_{t.name}") for t in self.tasks]
        self.shared_experts = self.make.experts(shared_experts, "shared_experts")
        self.experts = self.make.experts(count * specific_experts, "experts")
        self.gates = self.make.gate(count, count * specific_experts + shared_experts, "gates")
        self.towers = self.make.towers([task.num_outputs for task in self.tasks], "towers")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        width, count = self.features.input_dim, len(self.stage1_tasks)
        for features in (self.features, *self.task_features):
            features.build()
        self.shared_experts.build((None, width))
        self.experts.build((None, self.experts.num_experts, width))
        self.gates.build((None, count, width))
        self.towers.build((None, count, self.make.width))
        super().build()

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> Any:
        """`x_k` of each task, (B, K, d), and `x`, shared and specific experts' outputs."""
        x = self.features(inputs, training=training)
        own = [features(inputs, training=training) for features in self.task_features]
        of_tasks = ops.stack(own, axis=1)
        repeated = ops.repeat(of_tasks, self._settings["specific_experts"], axis=1)
        shared = self.shared_experts(x, training=training)
        specific = self.experts(repeated, training=training)
        return of_tasks, (x, shared, specific)

    def stage1_logits(self, representation: Any, training: bool = False) -> list[Any]:
        of_tasks, (x, shared, specific) = representation
        count, each = len(self.stage1_tasks), self._settings["specific_experts"]
        weights = self._weights(of_tasks, x)
        of_shared = weights[..., count * each :]
        of_specific = ops.reshape(weights[..., : count * each], (-1, count, count, each))
        own = ops.eye(count, dtype=weights.dtype)[None, :, :, None]
        own_weights = ops.reshape(ops.sum(of_specific * own, axis=2), (-1, count, each))
        other_weights = ops.reshape(of_specific * (1 - own), (-1, count, count * each))
        fused = mix(own_weights, ops.reshape(specific, (-1, count, each, self.make.width)))
        fused += mix(other_weights, ops.stop_gradient(specific)[:, None])
        fused += mix(of_shared, shared[:, None])
        return self.towers(fused, training=training)

    def _weights(self, of_tasks: Any, x: Any) -> Any:
        """What the gates of the stage 1 tasks give, (B, K, experts)."""
        return self.gates(of_tasks + x[:, None])

    def _new_module(self, task: Task, description: Mapping[str, Any]) -> NewSpecific:
        others = self.experts.num_experts + self.shared_experts.num_experts
        module = NewSpecific(
            self.make,
            self._settings["specific_experts"],
            others,
            task.num_outputs,
            name=task.name,
        )
        module.build((None, self.features.input_dim))
        return module

    def _added_logits(self, module: NewSpecific, representation: Any, training: bool) -> Any:
        _, (x, shared, specific) = representation
        return module(x, ops.concatenate([specific, shared], axis=1), training=training)

    def gate_weights(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """How much each task uses of each expert.

        Args:
            inputs: A batch as `FeatureEncoder` gives it.

        Returns:
            By task, float (B, experts): the specific experts of all stage 1 tasks in their order,
            then the shared ones; of an added task its own experts come first.
        """
        of_tasks, (x, _, _) = self.represent(inputs)
        gates = self._weights(of_tasks, x)
        weights = {task.name: gates[:, k] for k, task in enumerate(self.stage1_tasks)}
        for name, module in self.task_modules.modules.items():
            weights[name] = module.gate(x)[:, 0]
        return weights
