"""Where the rows of a run come from, checked before any work is done."""

import glob
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from mptrec_tf.config import Config
from mptrec_tf.data import has_labels, read_chunks
from mptrec_tf.data.readers import expand_paths
from mptrec_tf.errors import PipelineError
from mptrec_tf.spec import CategoricalFeature, Task
from pipelines.components.example_gen import choose_span, find_files
from pipelines.components.schema import check_schema_file
from pipelines.examples import TEST, TRAIN, VALIDATION
from pipelines.files import local_copy, matching


def sources_of(config: Config) -> dict[str, str]:
    """Path or glob pattern of the raw rows by split, as this machine sees them.

    Raises:
        PipelineError: If a part is missing or is more than one path or pattern.
    """
    paths = _paths_of(config).items()
    return {split: path if "://" in path else os.path.abspath(path) for split, path in paths}


def sources_elsewhere(config: Config) -> dict[str, str]:
    """Path or glob pattern of the raw rows by split, as other machines see them.

    Raises:
        PipelineError: If a part is missing or is more than one path or pattern, or is known to this
            machine alone: a data set by its name, or a relative path.
    """
    if config.data.dataset is not None:
        raise PipelineError(
            f"data.dataset: {config.data.dataset} would be a file of this machine; give "
            "data.train, data.validation and data.test, as the containers see them"
        )
    paths = _paths_of(config)
    for split, path in paths.items():
        if "://" not in path and not os.path.isabs(path):
            raise PipelineError(
                f"data.{split}: {path} is relative; give it as the containers see it, such as "
                "gs://BUCKET/FILES or a path that is mounted in them"
            )
    return paths


def _paths_of(config: Config) -> dict[str, str]:
    if config.data.dataset is not None:
        paths = dict(zip((TRAIN, VALIDATION, TEST), config.data.sources(), strict=True))
    else:
        paths = {TRAIN: config.data.train}
        if config.pipeline.split is None:
            paths |= {VALIDATION: config.data.validation, TEST: config.data.test}
    sources = {}
    for split, path in paths.items():
        if isinstance(path, tuple) and len(path) == 1:
            (path,) = path
        if not isinstance(path, str):
            raise PipelineError(
                f"data.{split}: the pipelines need one path or glob pattern, got "
                f"{'nothing' if path is None else list(path)}"
            )
        sources[split] = path
    return sources


def check_sources(
    config: Config, sources: Mapping[str, str], tasks: Sequence[Task], span: int | None = None
) -> dict[str, str]:
    """Refuses files that are not there, or lack a column, before any work is done.

    The first file of each pattern is looked at, unless it is in a remote file system.

    Args:
        config: The configuration.
        sources: What `sources_of` gives.
        tasks: The tasks whose labels are read.
        span: The span of the data. Defaults to `None`: the latest.

    Returns:
        The sources, the span filled in.

    Raises:
        DataError: Names the file and the column, or the span.
    """
    chosen = choose_span(sources, span)
    others = [*config.pipeline.slice_columns]
    if config.pipeline.split is not None:
        others.append(config.pipeline.split.column)
    columns = [*config.features, *map(CategoricalFeature, others)]
    left_out = (lambda reason: None) if config.pipeline.checks.max_bad_rows else None
    for path in chosen.values():
        if "://" not in path:
            next(read_chunks(expand_paths(path)[0], columns, tasks, left_out=left_out))
    return chosen


def curated_schema(config: Config) -> str | None:
    """Text of the curated schema, if the configuration names one.

    Raises:
        PipelineError: If it cannot be read, or does not know a feature.
    """
    file = config.pipeline.schema
    return None if file is None else check_schema_file(file, config.features, config.stage1.tasks)


def labelled(tasks: Sequence[Task], sources: Mapping[str, str]) -> list[str]:
    """Those tasks that every source has labels of.

    Of a source in a remote file system the first file is looked at.

    Args:
        tasks: The tasks.
        sources: What `check_sources` gives.

    Returns:
        Their names.
    """
    names = {task.name for task in tasks}
    for pattern in sources.values():
        with local_copy(find_files(pattern)[0]) as first:
            source = first if "://" in pattern else pattern
            names &= {task.name for task in tasks if has_labels(task, source)}
    return [task.name for task in tasks if task.name in names]


def state_of(pattern: str) -> list[Any]:
    """The files of a pattern, with what changes when their content does."""
    found = []
    if "://" in pattern:
        for file in matching(pattern):
            remote = tf.io.gfile.stat(file)
            found.append([file, remote.length, remote.mtime_nsec])
        return found
    for file in sorted(glob.glob(pattern)):  # whose times TensorFlow gives in whole seconds
        local = os.stat(file)
        found.append([file, local.st_size, local.st_mtime_ns])
    return found
