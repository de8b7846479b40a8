"""Tasks that are steps of a funnel, such as click and then conversion."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.models.baselines.base import BaselineModel
from mptrec_tf.models.multi_task import Outcome
from mptrec_tf.spec import Task


class FunnelModel(BaselineModel):
    """A model whose tasks are the steps of a funnel: who takes a step has taken all before it.

    Training and metrics count every row for every step. A row that did not reach a step has not
    taken it, so its label there is 0 whatever the data say, also where they have none: a conversion
    without a click counts as none, and a table with conversion labels of clicked rows alone is as
    good as one with zeros in the others. A row whose label of the step before is missing keeps its
    label, and so do all rows where the labels of that step are not given at all.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks, all binary.
        funnel: Their names from the first step to the last. Defaults to `None`: their own order.
        **kwargs: See `BaselineModel`.

    Raises:
        ModelError: If `funnel` does not name each task once, there are fewer than two, or one is
            not binary.
    """

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        funnel: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        names = [task.name for task in tasks]
        steps = names if funnel is None else list(funnel)
        if len(steps) < 2 or sorted(steps) != sorted(names):
            raise ModelError(
                f"a funnel has two steps or more and names each task once; the tasks are {names}. "
                f"Received: {steps}"
            )
        for task in tasks:
            if task.kind != "binary":
                raise ModelError(
                    f"the steps of a funnel are binary tasks, and {task.name!r} is {task.kind}"
                )
        super().__init__(encoder, tasks, **kwargs)
        self.funnel = tuple(steps)
        self._settings["funnel"] = self.funnel
        self._positions = [names.index(step) for step in steps]

    def in_order(self, by_step: Sequence[Any]) -> list[Any]:
        """What is given by step, in the order of the tasks."""
        found = dict(zip(self._positions, by_step, strict=True))
        return [found[position] for position in range(len(found))]

    def reached(self, y: Mapping[str, Any]) -> dict[str, Any]:
        """Labels of having taken each step and all before it.

        Args:
            y: Labels of some of the steps, float (B,), NaN for no label.

        Returns:
            The same, 0 where an earlier one of them was not taken.
        """
        labels: dict[str, Any] = {}
        before: Any = None
        for step in (step for step in self.funnel if step in y):
            own = ops.cast(y[step], "float32")
            before = own if before is None else ops.where(ops.equal(before, 0), 0.0, own)
            labels[step] = before
        return labels

    def measured(self, y: Mapping[str, Any]) -> Mapping[str, Any]:
        """Labels of having reached each step, as the predictions are."""
        return self.reached(y)

    def training_outcome(self, x: Any, y: Mapping[str, Any], weights: Mapping[str, Any]) -> Outcome:
        """The losses of having reached each step."""
        return super().training_outcome(x, self.reached(y), weights)
