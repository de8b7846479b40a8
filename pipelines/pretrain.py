"""Stage 1 as a pipeline: from files to a served model of the tasks that are trained together."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx

from mptrec_tf.config import Config
from mptrec_tf.spec.parsing import dump
from pipelines import nodes
from pipelines.components.example_gen import ingest
from pipelines.components.trainer import StageRun

NAME = "pretrain"


def create_pipeline(
    config: Config,
    *,
    sources: Mapping[str, str],
    root: str,
    push_to: str,
    metadata: metadata_store_pb2.ConnectionConfig | None = None,
    schema: str | None = None,
    baseline: str | None = None,
    baseline_tasks: Sequence[str] = (),
    seed: int = 0,
    span: int | None = None,
) -> tfx.dsl.Pipeline:
    """The pipeline of stage 1.

    Args:
        config: The configuration.
        sources: Path or pattern of the raw rows by split, see `components.example_gen.ingest`.
        root: Where artifacts are written to.
        push_to: Directory of the served versions.
        metadata: Connection of ML Metadata. Defaults to `None`: the orchestrator's own.
        schema: Text of a curated schema. Defaults to `None`: learned from the rows.
        baseline: URI of the model that thresholds on changes compare with. Defaults to `None`.
        baseline_tasks: The tasks of that model.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        span: The span of the data. Defaults to `None`: the latest.
    """
    tasks = config.stage1.tasks
    run = StageRun(config, None, seed, f"{root}/state")
    examples = ingest(config, sources, tasks, span=span)
    statistics = nodes.statistics(examples.outputs["examples"])
    known = nodes.schema(config, statistics.outputs["statistics"], schema)
    validator, valid = nodes.validation(
        config, statistics=statistics.outputs["statistics"], schema=known.outputs["schema"]
    )
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=known.outputs["schema"],
        preprocessing_fn="pipelines.components.preprocessing.preprocessing_fn",
        custom_config={"features": dump(config.features), "tasks": list(tasks)},
        disable_statistics=True,
    )
    transform.add_upstream_node(valid)
    components: list[Any] = [examples, statistics, known, validator, valid, transform]
    hyperparameters = None
    if config.pipeline.tune:
        tuner = nodes.tuner(
            run,
            examples=transform.outputs["transformed_examples"],
            transform_graph=transform.outputs["transform_graph"],
        )
        hyperparameters = tuner.outputs["best_hyperparameters"]
        components.append(tuner)
    trainer = nodes.trainer(
        run,
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=known.outputs["schema"],
        hyperparameters=hyperparameters,
    )
    last = None
    if baseline is not None:
        last = nodes.imported("BaselineModel", baseline, tfx.types.standard_artifacts.Model)
        components.append(last)
    evaluator = nodes.evaluator(
        config,
        tasks,
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        baseline=None if last is None else last.outputs["result"],
        baseline_tasks=baseline_tasks,
    )
    pusher = nodes.pusher(
        push_to, model=trainer.outputs["model"], blessing=evaluator.outputs["blessing"]
    )
    return tfx.dsl.Pipeline(
        pipeline_name=f"{config.pipeline.name}-{NAME}",
        pipeline_root=root,
        components=[*components, trainer, evaluator, pusher],
        enable_cache=True,
        metadata_connection_config=metadata,
        beam_pipeline_args=nodes.beam_arguments(config.pipeline.beam),
    )
