"""The adversarial part of stage 1, in the published form and in a better-founded one."""

from typing import Any

import keras
import numpy as np
from keras import ops

from mptrec_tf.layers import GradientReversal, TaskClassifier
from mptrec_tf.layers.replicas import counted_mean

FORMS = ("representations", "assigned", "periodic")


class Adversary(keras.layers.Layer):
    """Loss that drives task-specific information out of the sharing expert.

    - `"representations"`: a classifier tells from a representation which task it belongs to. It
      learns on the specific representations, `CE(D(s_k), k)`, which also become recognizable; the
      shared one is pushed to leave it undecided, `alpha * CE(D(g), uniform)`, the classifier held.
    - `"assigned"`, as published: each example is assigned to the task `z` that currently has the
      lowest loss on it, and the classifier reads `g` through a gradient reversal,
      `CE(D(GRL_alpha(g)), z)`. The assignment is made inside the step, so data may be shuffled,
      sharded or streamed. Examples without any label count in no loss.
    - `"periodic"`, as in the reference code: the same with assignments that are remembered for each
      example and renewed every few epochs by the callback `PeriodicAssignment`.

    Args:
        form: One of the three.
        num_tasks: Number of stage 1 tasks, `K`.
        **kwargs: `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Call arguments:
        shared: `g`, float (B, h).
        specific: `s_k`, float (B, K, h).
        alpha: Strength, a scalar.
        assignment: `z`, int (B,), -1 for an example that counts in no loss; ignored by
            `"representations"`.

    Output: a scalar.

    Reference: arXiv:2408.17214, section 3.
    """

    def __init__(self, form: str, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        if form not in FORMS:
            raise ValueError(f"adversarial must be None or one of {FORMS}. Received: {form!r}")
        self.form = form
        self.num_tasks = num_tasks
        self.reversal = GradientReversal(dtype=self.dtype_policy)
        self.classifier = TaskClassifier(num_tasks, name="classifier", dtype=self.dtype_policy)

    def build(self, shared_shape: tuple[int | None, ...]) -> None:
        self.classifier.build(shared_shape)

    def call(self, shared: Any, specific: Any, alpha: Any, assignment: Any = None) -> Any:
        if self.form == "representations":
            own = ops.broadcast_to(
                ops.arange(self.num_tasks)[None], (ops.shape(shared)[0], self.num_tasks)
            )
            recognized = _cross_entropy(own, self.classifier(specific))
            log_odds = ops.log_softmax(self.classifier(shared, frozen=True))
            return _mean(recognized) - ops.cast(alpha, "float32") * _mean(log_odds)
        logits = self.classifier(self.reversal(shared, alpha=alpha))
        losses = _cross_entropy(ops.maximum(assignment, 0), logits)
        return counted_mean(ops.cast(losses, "float32"), assignment >= 0)


def assign_lowest_loss(losses: Any) -> Any:
    """The task with the lowest loss on each example.

    Args:
        losses: float (B, K), NaN where an example has no label of the task.

    Returns:
        int32 (B,), -1 where an example has no label at all. Equal losses go to the first task.

    Example:

    >>> assign_lowest_loss(keras.ops.array([[0.5, 0.2], [float("nan"), float("nan")]])).numpy()
    array([ 1, -1], dtype=int32)

    Reference: arXiv:2408.17214, section 3; the reference code does this every second epoch.
    """
    known = ops.logical_not(ops.isnan(losses))
    lowest = ops.argmin(ops.where(known, losses, np.inf), axis=-1)
    return ops.cast(ops.where(ops.any(known, axis=-1), lowest, -1), "int32")


def _mean(values: Any) -> Any:
    return counted_mean(ops.cast(values, "float32"), ops.ones_like(values, "bool"))


def _cross_entropy(classes: Any, logits: Any) -> Any:
    return ops.sparse_categorical_crossentropy(classes, logits, from_logits=True)
