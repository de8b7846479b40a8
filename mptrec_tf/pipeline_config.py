"""What the TFX pipelines need beyond what a training needs: the section `pipeline`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from mptrec_tf.spec.features import Name
from mptrec_tf.spec.parsing import STRICT

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Columns = Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]

Metric = Literal["auc", "log_loss", "calibration", "accuracy", "mse", "mae"]
METRICS: dict[str, tuple[Metric, ...]] = {
    "binary": ("auc", "log_loss", "calibration"),
    "multiclass": ("accuracy", "log_loss"),
    "regression": ("mse", "mae"),
}
"""The metrics of the evaluation by kind of task."""


@dataclass(frozen=True, config=STRICT)
class SplitConfig:
    """How rows of one source are parted: by a hash of a column, such as the user.

    All rows with the same value fall into the same part.

    Args:
        column: The column.
        train: Share of the values for training. Defaults to 8.
        validation: Share for validation. Defaults to 1.
        test: Share for the evaluation. Defaults to 1.
    """

    column: Name
    train: Annotated[int, Field(ge=1)] = 8
    validation: Annotated[int, Field(ge=1)] = 1
    test: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True, config=STRICT)
class ChecksConfig:
    """What is allowed of data before a run stops.

    Args:
        max_bad_rows: Rows of a part that cannot be read (a text in a column of numbers, a label
            that the task does not allow). They are left out, counted and shown. Defaults to 0.
        max_new_categories: Fraction of a column's values that may be categories which the schema
            does not know. Defaults to 0.
        max_missing: Fraction of the rows in which a column may be empty that the schema knows as
            always there. Defaults to 0.
        max_drift: How far a feature of the training rows may be from those of stage 1: the
            L-infinity distance of the frequencies of categories, the Jensen-Shannon divergence of
            numbers. Defaults to 0.1.
    """

    max_bad_rows: Count = 0
    max_new_categories: Fraction = 0.0
    max_missing: Fraction = 0.0
    max_drift: Fraction = 0.1


@dataclass(frozen=True, config=STRICT)
class Threshold:
    """What a model must keep to be pushed, on the test rows.

    Args:
        task: The task.
        metric: `"auc"` (default), `"log_loss"` or `"calibration"` of a binary task, `"accuracy"` or
            `"log_loss"` of a multiclass one, `"mse"` or `"mae"` of a regression.
        min: The smallest value allowed. Defaults to `None`.
        max: The largest value allowed. Defaults to `None`.
        worse_by: How much worse than the last blessed model at most. Not for `"calibration"`.
            Defaults to `None`.
        slices: Whether it also holds in every slice of `pipeline.slices` whose labels define the
            metric. Defaults to `False`.

    Raises:
        ValueError: If it demands nothing, or nothing can meet it, or the metric has no better and
            worse.
    """

    task: Name
    metric: Metric = "auc"
    min: float | None = None
    max: float | None = None
    worse_by: Annotated[float, Field(ge=0)] | None = None
    slices: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Threshold":
        if self.min is None and self.max is None and self.worse_by is None:
            raise ValueError(f"the threshold for {self.task!r}: give min, max or worse_by")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(
                f"the threshold for {self.task!r}: min {self.min:g} is above max {self.max:g}"
            )
        if self.metric == "calibration" and self.worse_by is not None:
            raise ValueError("worse_by is not for calibration: neither more nor less is better")
        return self


@dataclass(frozen=True, config=STRICT)
class KubeflowConfig:
    """For `mptrec pipeline compile`.

    Args:
        image: Container image with mptrec_tf and its extra `tfx`, see `deploy/pipelines`.
        root: Where artifacts are written to, such as `gs://bucket/pipelines`.
    """

    image: Name
    root: Name


@dataclass(frozen=True, config=STRICT)
class PipelineConfig:
    """The TFX pipelines.

    Args:
        name: Name of the model; the pipelines are `NAME-pretrain` and `NAME-TASK`. Defaults to
            `"mptrec"`.
        push_to: Directory of the served versions. Defaults to `None`: `serving/NAME` in the
            output directory of the command.
        metadata: `mysql://USER:PASSWORD@HOST:PORT/DATABASE` or `postgresql://...` of ML Metadata.
            Defaults to `None`: a SQLite file in the output directory.
        schema: File of a curated schema (text protobuf). Defaults to `None`: learned from the rows.
        split: How one source is parted. Defaults to `None`: `data` names every part.
        checks: What is allowed of the data.
        slices: Columns, or lists of columns, whose values' metrics are shown. Defaults to none.
        thresholds: What a model must keep to be pushed. Defaults to none.
        tune: Whether each run searches for settings first, as `tuner` says. Defaults to `False`.
        beam: Arguments of Apache Beam. Defaults to its in-process runner.
        kubeflow: For Kubeflow and Vertex. Defaults to `None`.

    Example:

    ```yaml
    pipeline:
      name: census
      slices: [sex, [sex, race]]
      thresholds:
        - {task: income, min: 0.9, worse_by: 0.005}
    ```
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")] = "mptrec"
    push_to: Name | None = None
    metadata: Annotated[str, Field(pattern=r"^(mysql|postgresql)://")] | None = None
    schema: Name | None = None
    split: SplitConfig | None = None
    checks: ChecksConfig = ChecksConfig()
    slices: Annotated[tuple[Name | Columns, ...], Field(strict=False)] = ()
    thresholds: Annotated[tuple[Threshold, ...], Field(strict=False)] = ()
    tune: bool = False
    beam: Annotated[tuple[str, ...], Field(strict=False)] = ("--runner=FnApiRunner",)
    kubeflow: KubeflowConfig | None = None

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """Every column that a slice needs."""
        columns = [[s] if isinstance(s, str) else s for s in self.slices]
        return tuple(dict.fromkeys(column for group in columns for column in group))
