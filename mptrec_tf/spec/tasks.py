"""Tasks: what the model predicts, and where its labels come from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from mptrec_tf.spec.features import Name, Strings
from mptrec_tf.spec.parsing import STRICT, raises_spec_errors

Values = str | int | Annotated[tuple[str | int, ...], Field(strict=False)]

SIGNATURES = ("serving_default", "columns", "encoded", "heads")
"""Signatures of every exported model; each other one is named after its task."""

SHARED_METRICS = {"mean": "mean_auc", "val": "val_loss"}
"""Metrics of all tasks together, by the task name that would give a task's own the same name."""


@raises_spec_errors
@dataclass(frozen=True, config=STRICT)
class Task:
    """One thing that is predicted.

    A row whose label cell is empty has no label for the task: it counts in neither the task's loss
    nor its metrics.

    Args:
        name: Task name, the key of its predictions, the prefix of its metrics, the signature that
            serves it: a letter, then letters, digits and `_`. Reserved are `serving_default`,
            `columns`, `encoded` and `heads`, signatures of every exported model; `val`, and `mean`
            of a binary task, whose metrics would be named as those of all tasks, `val_loss` and
            `mean_auc`; and names that begin with `val_`, as the metrics of validation do.
        label: Column that holds the label. No task's label column may be a feature.
        kind: `"binary"` (default), `"multiclass"` or `"regression"`.
        positive: For a binary task, the value or values that mean 1; all others mean 0. One of them
            must occur in the rows that the task is trained on.
        negative: For a binary task, the value or values that mean 0; all others mean 1. One of them
            must occur in the rows that the task is trained on.
        above: For a binary task, the number above which a label means 1. Without any of these three
            rules the column must hold 0 and 1.
        classes: For a multiclass task, its label values, in the order of the outputs.
        mask: Column of 0 and 1; where it is 0 (or empty), the row has no label for this task.
            Defaults to `None`.
        weight: Column of example weights (>= 0) for this task's loss and metrics. Defaults to
            `None`: every row weighs 1.
        loss_weight: Weight of this task's loss in the sum over tasks. Defaults to 1.

    Raises:
        SpecError: If the name is reserved or not of that form, rules for another kind of task are
            given, or several rules at once.

    Example:

    >>> Task("income", label="income", positive="50000+.").kind
    'binary'
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    label: Name
    kind: Literal["binary", "multiclass", "regression"] = "binary"
    positive: Values | None = None
    negative: Values | None = None
    above: float | None = None
    classes: Strings | None = None
    mask: Name | None = None
    weight: Name | None = None
    loss_weight: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _check_name(self) -> "Task":
        if self.name in SIGNATURES:
            raise ValueError(
                f"task {self.name!r}: every exported model has a signature of this name; give the "
                "task another one"
            )
        if self.name.startswith("val_"):
            raise ValueError(
                f"task {self.name!r}: metrics that begin with val_ are those of validation; give "
                "the task another name"
            )
        if self.name == "val" or (self.name == "mean" and self.kind == "binary"):
            raise ValueError(
                f"task {self.name!r}: a metric of it would be named {SHARED_METRICS[self.name]!r}, "
                "as that of all tasks is; give the task another name"
            )
        return self

    @model_validator(mode="after")
    def _check_rules(self) -> "Task":
        rules = [r for r in ("positive", "negative", "above") if getattr(self, r) is not None]
        if len(rules) > 1:
            raise ValueError(f"task {self.name!r}: give one of {rules}, not {len(rules)}")
        if rules and self.kind != "binary":
            raise ValueError(f"task {self.name!r}: {rules[0]} is for binary tasks only")
        if self.kind == "multiclass":
            if self.classes is None or len(self.classes) < 2:
                raise ValueError(f"task {self.name!r}: a multiclass task needs 2 or more classes")
            if len(set(self.classes)) < len(self.classes):
                raise ValueError(f"task {self.name!r}: classes must differ")
        elif self.classes is not None:
            raise ValueError(f"task {self.name!r}: classes is for multiclass tasks only")
        return self

    @property
    def num_outputs(self) -> int:
        """How many numbers the task's tower gives: one for each class, or 1."""
        return len(self.classes) if self.classes is not None else 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the task's labels, mask and weights are read from."""
        return tuple(c for c in (self.label, self.mask, self.weight) if c is not None)
