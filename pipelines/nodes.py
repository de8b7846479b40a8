"""The components that both pipelines share, as `Config` sets them."""

from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from tfx import v1 as tfx
from tfx.dsl.components.base import executor_spec
from tfx.types import Artifact, BaseChannel

from mptrec_tf.config import Config
from mptrec_tf.tuning.hyperparameters import space_of
from pipelines.components.evaluation import eval_config
from pipelines.components.judge import EvaluatorExecutor
from pipelines.components.pusher import BASE_IS_PINNED, PusherExecutor
from pipelines.components.schema import CuratedSchema, LearnedSchema, feature_kinds
from pipelines.components.trainer import StageRun
from pipelines.components.validation import DataValidator, RequireValidData
from pipelines.examples import TEST, TRAIN, VALIDATION

TRAINING_SPLITS: dict[str, Any] = {
    "train_args": tfx.proto.TrainArgs(splits=[TRAIN]),
    "eval_args": tfx.proto.EvalArgs(splits=[VALIDATION]),
}


# Runners that work on this machine, with the packages that are installed here.
LOCAL_RUNNERS = ("FnApiRunner", "DirectRunner")


def beam_arguments(beam: Sequence[str]) -> list[str]:
    """The arguments of Beam for a pipeline of TFX.

    Where no argument says how workers get TFX, TFX packs itself for them, again in each component:
    some seconds and 52 MB of temporary files that stay. Runners of this machine have no use for it;
    the name of an image, which they do not look at, keeps TFX from it.

    Args:
        beam: The arguments as configured.
    """
    runner = PipelineOptions(list(beam)).view_as(StandardOptions).runner
    return ["--sdk_container_image=none", *beam] if runner in LOCAL_RUNNERS else list(beam)


def statistics(examples: BaseChannel) -> tfx.components.StatisticsGen:
    """Statistics of the raw examples of every split."""
    return tfx.components.StatisticsGen(examples=examples)


def trainer(
    run: StageRun,
    *,
    examples: BaseChannel,
    transform_graph: BaseChannel,
    schema: BaseChannel,
    base_model: BaseChannel | None = None,
    hyperparameters: BaseChannel | None = None,
) -> tfx.components.Trainer:
    """The training of a stage on encoded examples.

    Args:
        run: What is trained.
        examples: Encoded examples.
        transform_graph: The graph that encoded them.
        schema: The schema of the raw examples, kept with the model's lineage.
        base_model: The model that gets a task. Defaults to `None`: stage 1.
        hyperparameters: What the Tuner found. Defaults to `None`: the configuration as it is.
    """
    return tfx.components.Trainer(
        run_fn="pipelines.components.trainer.run_fn",
        custom_config=run.to_dict(),
        examples=examples,
        transform_graph=transform_graph,
        schema=schema,
        base_model=base_model,
        hyperparameters=hyperparameters,
        **TRAINING_SPLITS,
    )


def tuner(
    run: StageRun,
    *,
    examples: BaseChannel,
    transform_graph: BaseChannel,
    base_model: BaseChannel | None = None,
) -> tfx.components.Tuner:
    """The search for a stage's settings; see `trainer` for the arguments.

    Raises:
        SpecError: If the configuration declares nothing that could be tuned in that stage.
    """
    space_of(run.config, run.stage)  # not found out after all rows have been encoded
    return tfx.components.Tuner(
        tuner_fn="pipelines.components.tuner.tuner_fn",
        custom_config=run.to_dict(),
        examples=examples,
        transform_graph=transform_graph,
        base_model=base_model,
        **TRAINING_SPLITS,
    )


def evaluator(
    config: Config,
    tasks: Sequence[str],
    *,
    examples: BaseChannel,
    model: BaseChannel,
    baseline: BaseChannel | None = None,
    baseline_tasks: Sequence[str] = (),
) -> tfx.components.Evaluator:
    """The metrics of a model on the test rows, and whether it keeps what it must.

    Args:
        config: The configuration.
        tasks: Names of the tasks whose labels the examples hold.
        examples: Raw examples.
        model: The model.
        baseline: The last blessed model. Defaults to `None`.
        baseline_tasks: The tasks that it has; those of `tasks` are compared.
    """
    compared = [name for name in baseline_tasks if name in tasks]
    component = tfx.components.Evaluator(
        examples=examples,
        model=model,
        baseline_model=baseline if compared else None,
        example_splits=[TEST],
        eval_config=eval_config(
            config.spec.with_tasks(*tasks).tasks,
            baseline_tasks=compared,
            slices=config.pipeline.slices,
            thresholds=config.pipeline.thresholds,
        ),
    )
    component.executor_spec = executor_spec.BeamExecutorSpec(EvaluatorExecutor)
    return component


def schema(config: Config, statistics: BaseChannel, curated: str | None) -> Any:
    """The schema: a curated one, or one learned from the rows.

    Args:
        config: The configuration.
        statistics: Statistics of the rows.
        curated: Text of the curated schema, or `None`.
    """
    if curated is not None:
        return CuratedSchema(text=curated)
    return LearnedSchema(statistics=statistics, features=feature_kinds(config.features))


def validation(
    config: Config,
    *,
    statistics: BaseChannel,
    schema: BaseChannel,
    base_statistics: BaseChannel | None = None,
) -> tuple[Any, Any]:
    """The check of the rows, and what stops the run if they do not fit.

    Args:
        config: The configuration.
        statistics: Statistics of the rows.
        schema: Their schema.
        base_statistics: Statistics of the rows of stage 1. Defaults to `None`: no drift.
    """
    checks = config.pipeline.checks
    validator = DataValidator(
        statistics=statistics,
        schema=schema,
        base_statistics=base_statistics,
        features=feature_kinds(config.features),
        max_new_categories=checks.max_new_categories,
        max_missing=checks.max_missing,
        max_drift=checks.max_drift,
    )
    return validator, RequireValidData(anomalies=validator.outputs["anomalies"])


def pusher(
    push_to: str, *, model: BaseChannel, blessing: BaseChannel, base_is_pinned: bool = False
) -> tfx.components.Pusher:
    """The push of a blessed model, as a version that appears whole.

    Args:
        push_to: Directory of the served versions.
        model: The model.
        blessing: The final blessing.
        base_is_pinned: Whether the base was chosen by hand. Defaults to `False`.
    """
    return tfx.components.Pusher(
        model=model,
        model_blessing=blessing,
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=push_to)
        ),
        custom_config={BASE_IS_PINNED: base_is_pinned},
        custom_executor_spec=executor_spec.ExecutorClassSpec(PusherExecutor),
    )


def imported(name: str, uri: str, artifact_type: type[Artifact]) -> tfx.dsl.Importer:
    """An artifact of another run; where ML Metadata knows its URI, the very same artifact.

    Args:
        name: Name of the node.
        uri: Where it is.
        artifact_type: Its type.
    """
    return tfx.dsl.Importer(source_uri=uri, artifact_type=artifact_type, reimport=False).with_id(
        name
    )
