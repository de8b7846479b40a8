"""Each step of a funnel learns from the one before by attention."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.layers.softmax import softmax
from mptrec_tf.models.arguments import check_weights
from mptrec_tf.models.baselines.base import LayerMaker, mix
from mptrec_tf.models.baselines.funnel import FunnelModel
from mptrec_tf.spec import Task


class InformationTransfer(keras.layers.Layer):
    """Attention of one step over what comes from the step before and what is its own.

    `p = relu(G z)` is what the step before hands on; `u` runs over `p` and the own `q`:
    `w_u = softmax_u(<h2(u), h3(u)> / sqrt(h))`, and the result is `sum_u w_u h1(u)`, with dense
    layers `h1`, `h2`, `h3`.

    Args:
        make: Makes the layers.
        **kwargs: `name`.

    Call arguments:
        before: `z` of the step before, float (B, h).
        own: `q`, float (B, h).

    Output shape: float (B, h).
    """

    def __init__(self, make: LayerMaker, **kwargs: Any) -> None:
        super().__init__(autocast=False, dtype=make.dtype, **kwargs)
        self._width = make.width

        def dense(name: str, activation: str | None = None) -> keras.layers.Dense:
            return keras.layers.Dense(
                make.width,
                activation,
                kernel_regularizer=make.regularizer,
                name=name,
                dtype=make.dtype,
            )

        self.handing_on = dense("handing_on", "relu")
        self.value, self.key, self.query = dense("value"), dense("key"), dense("query")

    def build(self, before_shape: Any, own_shape: Any) -> None:
        for layer in (self.handing_on, self.value, self.key, self.query):
            layer.build(own_shape)

    def call(self, before: Any, own: Any) -> Any:
        both = ops.stack([self.handing_on(before), own], axis=1)
        products = ops.cast(self.key(both) * self.query(both), "float32")
        weights = softmax(ops.sum(products, axis=-1) / self._width**0.5)
        return mix(ops.cast(weights, self.compute_dtype), self.value(both))


class Calibrator(keras.layers.Layer):
    """Penalty on a step that is more probable than the one before it.

    Adds the loss `weight * sum_k mean(max(p_k - p_(k-1), 0))`, over the rows of a batch.

    Args:
        weight: Weight of the loss.
        **kwargs: `name`.

    Input: logits of the steps in order, a list of float32 (B, 1). No output.
    """

    def __init__(self, weight: float, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.weight = weight
        self.built = True

    def call(self, steps: list[Any]) -> None:
        probabilities = ops.sigmoid(ops.concatenate(steps, axis=-1))
        excess = ops.relu(probabilities[:, 1:] - probabilities[:, :-1])
        rows = ops.maximum(ops.cast(ops.shape(excess)[0], "float32"), 1)
        self.add_loss(self.weight * ops.sum(excess) / rows)


@keras.saving.register_keras_serializable("mptrec_tf")
class AITM(FunnelModel):
    """Adaptive information transfer multi-task framework, for a funnel of steps.

    Each step has an expert `q_k = E_k(x)` and a tower. The first step's tower reads `z_1 = q_1`,
    that of each later step what `InformationTransfer` makes of `z_(k-1)` and `q_k`. The
    predictions are the probabilities of having reached each step; the behavioral expectation
    calibrator is a penalty on those that rise from a step to the next.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks, all binary; see `FunnelModel` for labels that are missing.
        funnel: Their names from the first step to the last. Defaults to `None`: their own order.
        calibrator_weight: Weight of that penalty. Defaults to 0.6, as published.
        **kwargs: See `BaselineModel`.

    Example:

    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "buy": [0, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> model = AITM(encoder, [Task("click", "click"), Task("buy", "buy")])
    >>> model.funnel
    ('click', 'buy')

    Reference: Xi et al., "Modeling the Sequential Dependence among Audience Multi-step Conversions
    with Multi-task Learning in Targeted Display Advertising", KDD 2021, arXiv:2105.08489,
    section 3.
    """

    default_name = "aitm"

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        funnel: Sequence[str] | None = None,
        calibrator_weight: float = 0.6,
        **kwargs: Any,
    ) -> None:
        check_weights(calibrator_weight=calibrator_weight)
        super().__init__(encoder, tasks, funnel=funnel, **kwargs)
        self._settings["calibrator_weight"] = calibrator_weight
        self.features = self.make.inputs(encoder, "features")
        self.experts = self.make.experts(len(self.tasks), "experts")
        self.transfers = [
            InformationTransfer(self.make, name=f"transfer_{step}") for step in self.funnel[1:]
        ]
        self.towers = self.make.towers([1] * len(self.tasks), "towers")
        self.calibrator = Calibrator(calibrator_weight, name="calibrator")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        width = (None, self.make.width)
        self.features.build()
        self.experts.build((None, self.features.input_dim))
        for transfer in self.transfers:
            transfer.build(width, width)
        self.towers.build((None, len(self.tasks), self.make.width))
        super().build()

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> Any:
        own = self.experts(self.features(inputs, training=training), training=training)
        steps = [own[:, 0]]
        for position, transfer in enumerate(self.transfers, start=1):
            steps.append(transfer(steps[-1], own[:, position]))
        return ops.stack(steps, axis=1)

    def stage1_logits(self, representation: Any, training: bool = False) -> list[Any]:
        steps = self.towers(representation, training=training)
        if training:
            self.calibrator(steps)
        return self.in_order(steps)
