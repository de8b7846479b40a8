"""Kubeflow Pipelines V2 and Vertex: the pipelines as files that those services run."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import yaml
from tfx import v1 as tfx

from mptrec_tf.config import Config
from mptrec_tf.errors import PipelineError
from pipelines import pretrain, prompt_tune
from pipelines.base import Base


def compile_pipeline(
    config: Config,
    output: str | os.PathLike[str],
    *,
    sources: Mapping[str, str],
    schema: str | None = None,
    task: str | None = None,
    base: Base | None = None,
    labelled_tasks: Sequence[str] = (),
    seed: int = 0,
    base_is_pinned: bool = False,
) -> pathlib.Path:
    """Writes the definition of a pipeline.

    What another pipeline made cannot be looked up there, and TFX would leave such an input out
    without a word; so the base of a new task is given by URI.

    Args:
        config: The configuration, with `pipeline.kubeflow` and `pipeline.push_to`.
        output: File on this machine that ends in `.json` or `.yaml`.
        sources: Path or pattern of the raw rows by split, as the workers see them.
        schema: Text of a curated schema, for stage 1. Defaults to `None`: learned from the rows.
        task: The new task. Defaults to `None`: stage 1.
        base: What the new task is built on. Defaults to `None`, for stage 1.
        labelled_tasks: The older tasks whose labels the rows have. Defaults to none.
        seed: Seed of weights, dropout and shuffle. Defaults to 0.
        base_is_pinned: Whether the base may be older than the version that was pushed last.
            Defaults to `False`: such a push is refused.

    Returns:
        The file.

    Raises:
        PipelineError: If the configuration lacks what Kubeflow needs, or a new task its base; or
            demands a comparison with an earlier version, which is not known there; or
            `pipeline.push_to` is remote storage, also as mounted under `/gcs`.

    Example:

    ```python
    compile_pipeline(config, "pretrain.json", sources={"train": "gs://bucket/train-*.parquet", ...})
    ```
    """
    settings = config.pipeline
    path = pathlib.Path(output)
    if settings.kubeflow is None:
        raise PipelineError("pipeline.kubeflow: image and root are needed to compile")
    if settings.push_to is None:
        raise PipelineError("pipeline.push_to: needed to compile: no directory of this machine")
    push_to = pathlib.PurePosixPath(settings.push_to)
    if "://" in settings.push_to or push_to.is_relative_to("/gcs"):
        raise PipelineError(
            f"pipeline.push_to: {settings.push_to} is in remote storage; a version is published by "
            "renaming a directory, which that cannot do at once (under /gcs by default not at "
            "all), so give one of a file system that is mounted in the containers, such as NFS or "
            "Filestore"
        )
    if "://" in os.fspath(output):
        raise PipelineError(f"{output}: expected a path on this machine")
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise PipelineError(f"{path}: should end in .json or .yaml")
    if task is None:
        _refuse_comparison(config)
        pipeline = pretrain.create_pipeline(
            config,
            sources=sources,
            root=settings.kubeflow.root,
            push_to=settings.push_to,
            schema=schema,
            seed=seed,
        )
    else:
        pipeline = prompt_tune.create_pipeline(
            config,
            task,
            _checked(task, base),
            sources=sources,
            labelled_tasks=labelled_tasks,
            root=settings.kubeflow.root,
            push_to=settings.push_to,
            seed=seed,
            base_is_pinned=base_is_pinned,
        )
    # Names of tasks may have what names there may not.
    pipeline.pipeline_info.pipeline_name = pipeline.pipeline_info.pipeline_name.lower().replace(
        "_", "-"
    )
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(
        config=tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(
            default_image=settings.kubeflow.image,
            use_pipeline_spec_2_1=True,  # Kubeflow Pipelines V2 takes nothing older
        ),
        output_dir=str(path.parent.absolute()),
        output_filename=path.name,
    )
    runner.run(pipeline)
    if path.suffix != ".json":  # in which TFX has it
        definition = yaml.safe_load(path.read_text())
        definition["defaultPipelineRoot"] = settings.kubeflow.root
        path.write_text(yaml.safe_dump(definition))
    return path


def _refuse_comparison(config: Config) -> None:
    compared = [t.task for t in config.pipeline.thresholds if t.worse_by is not None]
    lost = sorted(set(compared) & set(config.stage1.tasks))
    if lost:
        raise PipelineError(
            f"pipeline.thresholds: worse_by of {lost} compares with the version pushed last, which "
            "cannot be looked up on Kubeflow; give min or max instead"
        )


def _checked(task: str, base: Base | None) -> Base:
    if base is None or not all(base):
        missing = [name for name in Base._fields if base is None or not getattr(base, name)]
        raise PipelineError(
            f"the new task {task!r} needs the URIs of its base, and lacks {missing}; `mptrec "
            "pipeline lineage` tells those of local runs, the service's pages those of its runs"
        )
    return base
