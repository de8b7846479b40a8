"""Shared and specific experts in several levels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.models.arguments import check_sizes
from mptrec_tf.models.baselines.base import FineTunedModel, LayerMaker, mix
from mptrec_tf.spec import Task


class Extraction(NamedTuple):
    """What the tasks share of a batch, and what those of stage 1 made of it.

    Attributes:
        x: The model's input, float (B, d).
        shared: For each level the outputs of its shared experts, float (B, S, h).
        fused: What the towers of the stage 1 tasks read, float (B, K, h).
    """

    x: Any
    shared: tuple[Any, ...]
    fused: Any


class SpecificPath(keras.layers.Layer):
    """Specific experts, gates and towers of some tasks.

    Args:
        make: Makes the layers.
        levels: Number of levels.
        specific: Specific experts of each task at each level.
        shared: Shared experts at each level.
        outputs: Number of outputs of each task.
        **kwargs: `name`.
    """

    def __init__(
        self,
        make: LayerMaker,
        levels: int,
        specific: int,
        shared: int,
        outputs: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, dtype=make.dtype, **kwargs)
        self.tasks, self.specific = len(outputs), specific
        self._width = make.width
        self.experts = [
            make.experts(self.tasks * specific, f"experts_{level}") for level in range(levels)
        ]
        self.gates = [
            make.gate(self.tasks, specific + shared, f"gates_{level}") for level in range(levels)
        ]
        self.towers = make.towers(outputs, "towers")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for level, (experts, gates) in enumerate(zip(self.experts, self.gates, strict=True)):
            own = (None, self.tasks, self._width)
            experts.build((None, experts.num_experts, self._width) if level else input_shape)
            gates.build(own if level else input_shape)
        self.towers.build((None, self.tasks, self._width))

    def extract(self, level: int, inputs: Any, shared: Any, training: bool) -> tuple[Any, Any]:
        """One level.

        Args:
            level: Its number, from 0.
            inputs: `x` at level 0, float (B, d); then what the level before gave, (B, K, h).
            shared: Outputs of the level's shared experts, float (B, S, h).
            training: Whether dropout acts.

        Returns:
            What each task goes on with, float (B, K, h), and the outputs of all specific experts,
            float (B, K * `specific`, h).
        """
        of_experts = ops.repeat(inputs, self.specific, axis=1) if level else inputs
        experts = self.experts[level](of_experts, training=training)
        weights = self.gates[level](inputs)
        own = ops.reshape(experts, (-1, self.tasks, self.specific, self._width))
        fused = mix(weights[..., : self.specific], own)
        fused += mix(weights[..., self.specific :], shared[:, None])
        return fused, experts

    def last_weights(self, x: Any, shared: Sequence[Any]) -> Any:
        """What the gates of the last level give.

        Args:
            x: The model's input, float (B, d).
            shared: For each level the outputs of its shared experts, float (B, S, h).

        Returns:
            float (B, K, `specific` + S).
        """
        own = x
        for level, outputs in enumerate(shared[:-1]):
            own, _ = self.extract(level, own, outputs, False)
        return self.gates[-1](own)


@keras.saving.register_keras_serializable("mptrec_tf")
class PLE(FineTunedModel):
    """Progressive layered extraction; with one level, customized gate control (CGC).

    At each level, task `k` weighs its specific experts and the shared ones by a gate that reads the
    task's input of that level: `x` at the first, then what the level before gave it. The shared
    experts of the next level read a mixture of all experts, by a gate of their own.

    An added task has specific experts, gates and a tower of its own. At each level it reads the
    frozen shared experts, whose inputs do not depend on it.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks.
        levels: Number of levels. Defaults to 2; 1 is CGC.
        specific_experts: Experts of each task at each level. Defaults to 1.
        shared_experts: Experts that all tasks share at each level. Defaults to 1.
        **kwargs: See `BaselineModel`; `expert_units` are the widths of the experts at each level.

    Example:

    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "like": [1, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> cgc = PLE(encoder, [Task("click", "click"), Task("like", "like")], levels=1)
    >>> sorted(cgc(encoder.encode(rows)))
    ['click', 'like']

    Reference: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL)
    Model for Personalized Recommendations", RecSys 2020, sections 4.1 and 4.2.
    """

    default_name = "ple"

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        levels: int = 2,
        specific_experts: int = 1,
        shared_experts: int = 1,
        **kwargs: Any,
    ) -> None:
        own = {
            "levels": levels,
            "specific_experts": specific_experts,
            "shared_experts": shared_experts,
        }
        check_sizes(**own)
        super().__init__(encoder, tasks, **kwargs)
        self._settings.update(own)
        self.features = self.make.inputs(encoder, "features")
        self.shared_experts = [
            self.make.experts(shared_experts, f"shared_experts_{level}") for level in range(levels)
        ]
        choices = len(self.tasks) * specific_experts + shared_experts
        self.shared_gates = [
            self.make.gate(1, choices, f"shared_gate_{level}") for level in range(levels - 1)
        ]
        self.specific = self._specific_path([task.num_outputs for task in self.tasks], "specific")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.features.build()
        first, later = (None, self.features.input_dim), (None, self.make.width)
        for level, experts in enumerate(self.shared_experts):
            experts.build(later if level else first)
        for level, gate in enumerate(self.shared_gates):
            gate.build(later if level else first)
        self.specific.build(first)
        super().build()

    def _specific_path(self, outputs: Sequence[int], name: str) -> SpecificPath:
        levels, specific, shared = (
            self._settings[key] for key in ("levels", "specific_experts", "shared_experts")
        )
        return SpecificPath(self.make, levels, specific, shared, outputs, name=name)

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> Extraction:
        x = self.features(inputs, training=training)
        own = of_shared = x
        outputs = []
        for level, experts in enumerate(self.shared_experts):
            shared = experts(of_shared, training=training)
            own, specific = self.specific.extract(level, own, shared, training)
            outputs.append(shared)
            if level < len(self.shared_gates):
                weights = self.shared_gates[level](of_shared)[:, 0]
                of_shared = mix(weights, ops.concatenate([specific, shared], axis=1))
        return Extraction(x, tuple(outputs), own)

    def stage1_logits(self, representation: Extraction, training: bool = False) -> list[Any]:
        return self.specific.towers(representation.fused, training=training)

    def _new_module(self, task: Task, description: Mapping[str, Any]) -> SpecificPath:
        path = self._specific_path([task.num_outputs], task.name)
        path.build((None, self.features.input_dim))
        return path

    def _added_logits(
        self, module: SpecificPath, representation: Extraction, training: bool
    ) -> Any:
        own = representation.x
        for level, shared in enumerate(representation.shared):
            own, _ = module.extract(level, own, shared, training)
        return module.towers(own, training=training)[0]

    def gate_weights(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """How much each task uses of each expert at the last level.

        Args:
            inputs: A batch as `FeatureEncoder` gives it.

        Returns:
            By task, float (B, `specific_experts` + `shared_experts`): its own experts, then the
            shared ones.
        """
        x, shared, _ = self.represent(inputs)
        gates = self.specific.last_weights(x, shared)
        weights = {task.name: gates[:, k] for k, task in enumerate(self.stage1_tasks)}
        for name, module in self.task_modules.modules.items():
            weights[name] = module.last_weights(x, shared)[:, 0]
        return weights
