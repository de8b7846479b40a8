"""Conversion learned from all impressions, as the product of two probabilities."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.models.baselines.funnel import FunnelModel
from mptrec_tf.models.multi_task import Outcome
from mptrec_tf.spec import Task


@keras.saving.register_keras_serializable("mptrec_tf")
class ESMM(FunnelModel):
    """Entire space multi-task model, for a funnel such as click and then conversion.

    Each step has an expert and a tower on shared embeddings, which give the probability of the
    step once the one before was taken: p(ctr), p(cvr). What is trained is the probability of having
    reached it, on all rows: `p(ctcvr) = p(ctr) * p(cvr)`. So p(cvr) learns without the bias of the
    clicked rows. A funnel of more steps multiplies further.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks, all binary; see `FunnelModel` for labels that are missing.
        funnel: Their names from the first step to the last. Defaults to `None`: their own order.
        conditional: Whether a step's prediction is its probability once the one before was taken,
            p(cvr), and measured on those rows alone, whatever labels the others have. Defaults to
            `False`: the probability of having reached it, p(ctcvr), measured on all rows.
        **kwargs: See `BaselineModel`.

    Example:

    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "buy": [0, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> tasks = [Task("click", "click"), Task("buy", "buy")]
    >>> scores = ESMM(encoder, tasks, funnel=["click", "buy"])(encoder.encode(rows))
    >>> bool(ops.all(scores["buy"] < scores["click"]))
    True

    Reference: Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating
    Post-Click Conversion Rate", SIGIR 2018, arXiv:1804.07931, section 2.
    """

    default_name = "esmm"

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        funnel: Sequence[str] | None = None,
        conditional: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, tasks, funnel=funnel, **kwargs)
        self._settings["conditional"] = conditional
        self.conditional = conditional
        self.features = self.make.inputs(encoder, "features")
        self.experts = self.make.experts(len(self.tasks), "experts")
        self.towers = self.make.towers([1] * len(self.tasks), "towers")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.features.build()
        self.experts.build((None, self.features.input_dim))
        self.towers.build((None, len(self.tasks), self.make.width))
        super().build()

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> Any:
        return self.experts(self.features(inputs, training=training), training=training)

    def stage1_logits(self, representation: Any, training: bool = False) -> list[Any]:
        steps = self.towers(representation, training=training)
        return self.in_order(steps if self.conditional else _products(steps))

    def measured(self, y: Mapping[str, Any]) -> Mapping[str, Any]:
        """Labels of what is predicted: NaN where p(cvr) is, and an earlier step was not taken."""
        reached = self.reached(y)
        if not self.conditional:
            return reached
        labels = dict(reached)
        for before, step in itertools.pairwise(reached):
            own = ops.cast(y[step], "float32")
            labels[step] = ops.where(ops.equal(reached[before], 0), np.nan, own)
        return labels

    def training_outcome(self, x: Any, y: Mapping[str, Any], weights: Mapping[str, Any]) -> Outcome:
        """The losses of having reached each step, and metrics of what is predicted."""
        steps = self.towers(self.represent(x, training=True), training=True)
        names = [task.name for task in self.tasks]
        joint = dict(zip(names, self.in_order(_products(steps)), strict=True))
        outcome = self.with_penalties(self.reached(y), weights, joint)
        if not self.conditional:
            return outcome
        predicted = dict(zip(names, self.in_order(steps), strict=True))
        losses = self._example_losses(self.measured(y), predicted)
        return outcome._replace(logits=predicted, losses=losses)


def _products(steps: Sequence[Any]) -> list[Any]:
    """Logits of the product of the probabilities up to each step, from the steps' own logits."""
    products = [steps[0]]
    for step in steps[1:]:
        products.append(product_logit(products[-1], step))
    return products


def product_logit(first: Any, second: Any) -> Any:
    """The logit of `sigmoid(first) * sigmoid(second)`, exact also where these are tiny.

    With `p` and `q` the two, `log(pq) - log(1 - pq)` and `1 - pq = (1 - p) + p (1 - q)`.

    Args:
        first: Logits of any shape.
        second: Logits of the same shape.

    Example:

    >>> float(ops.sigmoid(product_logit(ops.array(0.0), ops.array(0.0))))
    0.25
    """
    log_product = ops.log_sigmoid(first) + ops.log_sigmoid(second)
    log_rest = ops.logaddexp(
        ops.log_sigmoid(-first), ops.log_sigmoid(first) + ops.log_sigmoid(-second)
    )
    return log_product - log_rest
