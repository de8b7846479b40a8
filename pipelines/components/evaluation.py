"""Evaluation by TensorFlow Model Analysis: every task, its slices, and what a model must keep."""

from collections.abc import Iterable, Sequence

from tensorflow_model_analysis.proto import config_pb2

from mptrec_tf.pipeline_config import METRICS, Metric, Threshold
from mptrec_tf.serving.layout import SERVING_DEFAULT
from mptrec_tf.spec import Task
from pipelines.examples import LABEL, LEAST, WEIGHT

CANDIDATE, BASELINE = "candidate", "baseline"
THRESHOLDS_OF_AUC = 10_000
"""Steps of the AUC's approximation: its error is below 1e-4, where Keras' 200 steps err by 1e-3."""

NAMES: dict[Metric, tuple[str, str]] = {
    "auc": ("DefinedAUC", f'"num_thresholds": {THRESHOLDS_OF_AUC}'),
    "log_loss": ("BinaryCrossentropy", ""),
    "calibration": ("Calibration", ""),
    "accuracy": ("SparseCategoricalAccuracy", ""),
    "mse": ("MeanSquaredError", ""),
    "mae": ("MeanAbsoluteError", ""),
}
"""Class and arguments by metric; the multiclass log loss has a class of its own.

The log loss is that of Keras: TFMA's own is NaN as soon as one prediction is exactly 0 or 1.
"""

MODULES: dict[Metric, str] = {"auc": "pipelines.components.judge"}
"""Where a class is that is not TFMA's."""

MULTICLASS_LOG_LOSS = "SparseCategoricalCrossentropy"
LABELLED, MEAN_LABEL = "labelled_rows", "mean_label"
HIGHER_IS_BETTER = ("auc", "accuracy")


def eval_config(
    tasks: Sequence[Task],
    *,
    baseline_tasks: Sequence[str] = (),
    slices: Iterable[str | Sequence[str]] = (),
    thresholds: Sequence[Threshold] = (),
) -> config_pb2.EvalConfig:
    """What the stock Evaluator computes and demands, on raw examples.

    Every task must at least have a labelled row: an evaluation without any threshold would bless
    nothing.

    Args:
        tasks: The tasks whose labels the examples hold.
        baseline_tasks: Those of them that the last blessed model has. Defaults to none, as where
            there is no such model.
        slices: Columns, or groups of columns, whose values' metrics are computed.
        thresholds: What the model must keep; those of other tasks are left out.

    Returns:
        The configuration.
    """
    specs = [_model_spec(CANDIDATE, [task.name for task in tasks])]
    if baseline_tasks:
        specs.append(_model_spec(BASELINE, baseline_tasks))
    return config_pb2.EvalConfig(
        model_specs=specs,
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(
                config_pb2.SlicingSpec(feature_keys=[s] if isinstance(s, str) else s)
                for s in slices
            ),
        ],
        metrics_specs=[
            _metrics_spec(
                task,
                [t for t in thresholds if t.task == task.name],
                compared=task.name in baseline_tasks,
                both=bool(baseline_tasks),
            )
            for task in tasks
        ],
    )


def _model_spec(name: str, tasks: Sequence[str]) -> config_pb2.ModelSpec:
    return config_pb2.ModelSpec(
        name=name,
        is_baseline=name == BASELINE,
        signature_name=SERVING_DEFAULT,
        label_keys={task: LABEL + task for task in tasks},
        example_weight_keys={task: WEIGHT + task for task in tasks},
    )


def _metrics_spec(
    task: Task, thresholds: Sequence[Threshold], *, compared: bool, both: bool
) -> config_pb2.MetricsSpec:
    names = METRICS[task.kind]
    metrics = []
    for name in names:
        chosen = [t for t in thresholds if t.metric == name]
        class_name, arguments = NAMES[name]
        if task.kind == "multiclass" and name == "log_loss":
            class_name = MULTICLASS_LOG_LOSS
        extra = f", {arguments}" if arguments else ""
        metric = config_pb2.MetricConfig(
            class_name=class_name,
            module=MODULES.get(name, ""),
            config=f'"name": "{name}"{extra}',
        )
        for threshold in chosen:
            demanded = _demand(threshold, compared)
            if demanded is None:
                continue
            if threshold.slices:
                metric.threshold.MergeFrom(demanded)
            else:
                metric.per_slice_thresholds.append(_overall(demanded))
        metrics.append(metric)
    some = config_pb2.MetricThreshold(  # it is the sum of weights, each at least this
        value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": LEAST})
    )
    metrics.append(
        config_pb2.MetricConfig(
            class_name="WeightedExampleCount",
            config=f'"name": "{LABELLED}"',
            per_slice_thresholds=[_overall(some)],
        )
    )
    if task.kind == "binary":
        metrics.append(
            config_pb2.MetricConfig(class_name="MeanLabel", config=f'"name": "{MEAN_LABEL}"')
        )
    return config_pb2.MetricsSpec(
        output_names=[task.name],
        model_names=[] if compared or not both else [CANDIDATE],
        metrics=metrics,
    )


def _overall(threshold: config_pb2.MetricThreshold) -> config_pb2.PerSliceMetricThreshold:
    """A threshold for all rows together; TFMA holds every slice to one that names none."""
    return config_pb2.PerSliceMetricThreshold(
        slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold
    )


def _demand(threshold: Threshold, compared: bool) -> config_pb2.MetricThreshold | None:
    demanded = config_pb2.MetricThreshold()
    if threshold.min is not None:
        demanded.value_threshold.lower_bound.value = threshold.min
    if threshold.max is not None:
        demanded.value_threshold.upper_bound.value = threshold.max
    if threshold.worse_by is not None and compared:
        higher = threshold.metric in HIGHER_IS_BETTER
        demanded.change_threshold.absolute.value = (
            -threshold.worse_by if higher else threshold.worse_by
        )
        demanded.change_threshold.direction = (
            config_pb2.MetricDirection.HIGHER_IS_BETTER
            if higher
            else config_pb2.MetricDirection.LOWER_IS_BETTER
        )
    return demanded if demanded.ByteSize() else None
