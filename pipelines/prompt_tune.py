"""Stage 2 as a pipeline, once for each new task: from a base model to one that serves it too."""

from collections.abc import Mapping, Sequence

from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx

from mptrec_tf.config import Config
from pipelines import nodes
from pipelines.base import Base
from pipelines.components.encoding import Encode
from pipelines.components.example_gen import ingest
from pipelines.components.gate import FrozenTaskGate
from pipelines.components.trainer import StageRun


def create_pipeline(
    config: Config,
    task: str,
    base: Base,
    *,
    sources: Mapping[str, str],
    labelled_tasks: Sequence[str],
    root: str,
    push_to: str,
    metadata: metadata_store_pb2.ConnectionConfig | None = None,
    seed: int = 0,
    span: int | None = None,
    base_is_pinned: bool = False,
) -> tfx.dsl.Pipeline:
    """The pipeline of a new task.

    The Evaluator compares with no other model: that the older tasks answer as before, to the bit,
    is what the gate demands.

    Args:
        config: The configuration.
        task: Name of the new task.
        base: What it is built on.
        sources: Path or pattern of the raw rows by split, see `components.example_gen.ingest`.
        labelled_tasks: The older tasks whose labels these rows have; they are evaluated too.
        root: Where artifacts are written to.
        push_to: Directory of the served versions.
        metadata: Connection of ML Metadata. Defaults to `None`: the orchestrator's own.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        span: The span of the data. Defaults to `None`: the latest.
        base_is_pinned: Whether the base was chosen by hand, and may be older than the last version
            that was pushed. Defaults to `False`.
    """
    types = tfx.types.standard_artifacts
    tasks = [*labelled_tasks, task]
    run = StageRun(config, task, seed, f"{root}/state")
    model = nodes.imported("BaseModel", base.model, types.Model)
    graph = nodes.imported("BaseTransformGraph", base.transform_graph, types.TransformGraph)
    schema = nodes.imported("BaseSchema", base.schema, types.Schema)
    base_statistics = nodes.imported("BaseStatistics", base.statistics, types.ExampleStatistics)
    examples = ingest(config, sources, tasks, span=span, trained=[task])
    statistics = nodes.statistics(examples.outputs["examples"])
    validator, valid = nodes.validation(
        config,
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["result"],
        base_statistics=base_statistics.outputs["result"],
    )
    encode = Encode(
        examples=examples.outputs["examples"],
        transform_graph=graph.outputs["result"],
        task=task,
    )
    encode.add_upstream_node(valid)
    imported = [model, graph, schema, base_statistics]
    components = [*imported, examples, statistics, validator, valid, encode]
    hyperparameters = None
    if config.pipeline.tune:
        tuner = nodes.tuner(
            run,
            examples=encode.outputs["encoded"],
            transform_graph=graph.outputs["result"],
            base_model=model.outputs["result"],
        )
        hyperparameters = tuner.outputs["best_hyperparameters"]
        components.append(tuner)
    trainer = nodes.trainer(
        run,
        examples=encode.outputs["encoded"],
        transform_graph=graph.outputs["result"],
        schema=schema.outputs["result"],
        base_model=model.outputs["result"],
        hyperparameters=hyperparameters,
    )
    evaluator = nodes.evaluator(
        config,
        tasks,
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
    )
    gate = FrozenTaskGate(
        model=trainer.outputs["model"],
        base_model=model.outputs["result"],
        examples=examples.outputs["examples"],
        model_blessing=evaluator.outputs["blessing"],
    )
    pusher = nodes.pusher(
        push_to,
        model=trainer.outputs["model"],
        blessing=gate.outputs["blessing"],
        base_is_pinned=base_is_pinned,
    )
    return tfx.dsl.Pipeline(
        pipeline_name=f"{config.pipeline.name}-{task}",
        pipeline_root=root,
        components=[*components, trainer, evaluator, gate, pusher],
        enable_cache=True,
        metadata_connection_config=metadata,
        beam_pipeline_args=nodes.beam_arguments(config.pipeline.beam),
    )
