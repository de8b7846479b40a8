"""From a model to a version that TensorFlow Serving loads."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from mptrec_tf.data.readers import Source
from mptrec_tf.errors import ServingError
from mptrec_tf.models import GrowingModel
from mptrec_tf.serving.cases import write_cases
from mptrec_tf.serving.checking.checker import check_without_manifest
from mptrec_tf.serving.checking.files import VersionFiles
from mptrec_tf.serving.config.arguments import check_whole
from mptrec_tf.serving.exporting.cases import make_cases
from mptrec_tf.serving.exporting.samples import Columns, made_up_rows, raw_rows
from mptrec_tf.serving.exporting.saved_model import write_saved_model
from mptrec_tf.serving.exporting.signatures import ServingGraph
from mptrec_tf.serving.exporting.versions import check_target, copy_tree, publish, staging, versions
from mptrec_tf.serving.exporting.warmup import write_warmup
from mptrec_tf.serving.layout import MANIFEST_FILE, prediction_log_type
from mptrec_tf.serving.manifest import Manifest, plain_metrics

SAMPLE_ROWS = 64


def export(
    model: GrowingModel,
    base_path: str | os.PathLike[str],
    version: int | None = None,
    *,
    name: str | None = None,
    rows: Source | None = None,
    warmup_batch_sizes: Sequence[int] = (1, 64),
    metrics: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a model with its encoder as a version that TensorFlow Serving loads as it is.

    The version appears under `base_path` when it is complete and checked: it was loaded by
    TensorFlow's C++ loader in another process, its scores were compared with the model's, and its
    warm-up requests were replayed. Several writers at once get a version each. See
    `mptrec_tf.serving.exporting.signatures.ServingGraph` for the signatures.

    Args:
        model: The model, after stage 1 or stage 2.
        base_path: Directory of the model's versions, made if it is not there.
        version: The version, from 1. Defaults to `None`: the next one.
        name: Name that the model is served under. Defaults to `None`: the last part of `base_path`.
        rows: Raw rows for warm-up requests and checks, of which the first 64 are kept with the
            export. Defaults to `None`: rows made up from the encoder's bins and vocabularies.
        warmup_batch_sizes: Rows of the warm-up requests. Defaults to (1, 64).
        metrics: Metrics by task, for the manifest; what is no number there becomes `null`. Defaults
            to `None`.

    Returns:
        The directory of the new version.

    Raises:
        ServingError: If the version is there already, the target cannot be written to, the extra
            `serving` is not installed, a batch size or a metric is none, or the export does not
            pass its check; nothing is published then.
        DataError: If `rows` do not fit the features.

    Example:

    ```python
    export(model, "serving/census")  # serving/census/1
    model.add_task(Task("education", label="education", positive="Masters degree(MA MS MEng)"))
    model.fit(rows)
    export(model, "serving/census")  # serving/census/2: all older tasks answer as before
    ```
    """
    base_path = check_target(base_path, version)
    name = base_path.absolute().name if name is None else name
    metrics = plain_metrics(metrics or {})
    served, sample = _prepare(model, rows, warmup_batch_sizes)
    with staging(base_path) as directory:
        manifest = _write(model, served, sample, directory, name, warmup_batch_sizes, metrics)
        return _publish(directory, base_path, version, manifest)


def write_version(
    model: GrowingModel,
    directory: str | os.PathLike[str],
    *,
    name: str,
    rows: Source | None = None,
    warmup_batch_sizes: Sequence[int] = (1, 64),
    metrics: Mapping[str, Any] | None = None,
) -> Manifest:
    """Writes and checks what `export` publishes, without a number: `publish_version` gives it one.

    The manifest, with version 0, is written last, after the check: a directory without it is not
    complete.

    Args:
        model: The model, after stage 1 or stage 2.
        directory: Where to, made if it is not there; it may be remote. What a writer that crashed
            left is replaced.
        name: Name that the model is served under.
        rows: Raw rows for warm-up requests and checks, as for `export`. Defaults to `None`.
        warmup_batch_sizes: Rows of the warm-up requests. Defaults to (1, 64).
        metrics: Metrics by task, for the manifest; what is no number there becomes `null`. Defaults
            to `None`.

    Returns:
        The manifest.

    Raises:
        ServingError: If the extra `serving` is not installed, or what was written does not pass its
            check.
        DataError: If `rows` do not fit the features.

    Example:

    ```python
    write_version(model, "candidate", name="census")
    publish_version("candidate", "serving/census")  # serving/census/1
    ```
    """
    metrics = plain_metrics(metrics or {})
    served, sample = _prepare(model, rows, warmup_batch_sizes)
    earlier = f"{os.fspath(directory)}/{MANIFEST_FILE}"
    if tf.io.gfile.exists(earlier):
        tf.io.gfile.remove(earlier)
    with contextlib.ExitStack() as stack:
        remote = "://" in os.fspath(directory)
        # Only what is on this machine can be loaded to check it.
        local = stack.enter_context(tempfile.TemporaryDirectory()) if remote else directory
        path = pathlib.Path(local)
        path.mkdir(parents=True, exist_ok=True)
        manifest = _write(model, served, sample, path, name, warmup_batch_sizes, metrics)
        if remote:
            copy_tree(path, directory)
    manifest.write(directory)
    return manifest


def publish_version(
    directory: str | os.PathLike[str],
    base_path: str | os.PathLike[str],
    version: int | None = None,
) -> pathlib.Path:
    """Publishes what `write_version` wrote, as a version that appears whole.

    It is copied beside the versions and gets its number by a rename. Publishing again is harmless:
    if the newest version is this very export, nothing is done.

    Args:
        directory: What `write_version` wrote; it may be remote. It is left as it is.
        base_path: Directory of the model's versions, made if it is not there.
        version: The version, from 1. Defaults to `None`: the next one.

    Returns:
        The directory of the version.

    Raises:
        ServingError: If the directory is not a complete export, the version is there already, or
            `base_path` is remote.

    Example:

    ```python
    write_version(model, "candidate", name="census")
    publish_version("candidate", "serving/census")  # serving/census/1
    ```
    """
    base_path = check_target(base_path, None)
    manifest = Manifest.read(directory)
    newest = max(versions(base_path), default=None)
    if newest is not None and version in (None, newest):
        path = base_path / str(newest)
        known = _manifest(path)
        if known is not None and known.is_same_export(manifest):
            return path
    check_target(base_path, version)
    with staging(base_path) as copy:
        copy_tree(directory, copy)
        return _publish(copy, base_path, version, manifest)


def _prepare(
    model: GrowingModel, rows: Source | None, warmup_batch_sizes: Sequence[int]
) -> tuple[ServingGraph, Columns]:
    """Everything that can be refused before a file is written."""
    prediction_log_type()
    for size in warmup_batch_sizes:
        check_whole("warmup_batch_sizes: a size", size)
    if rows is None:
        sample = made_up_rows(model.encoder, SAMPLE_ROWS)
    else:
        sample = raw_rows(model.encoder.features, rows, SAMPLE_ROWS)
    return ServingGraph(model), sample


def _write(
    model: GrowingModel,
    served: ServingGraph,
    sample: Columns,
    directory: pathlib.Path,
    name: str,
    warmup_batch_sizes: Sequence[int],
    metrics: Mapping[str, Any],
) -> Manifest:
    """Writes and checks everything but the manifest."""
    write_saved_model(served, directory)
    requests = write_warmup(directory, name, model.encoder, model.tasks, sample, warmup_batch_sizes)
    write_cases(directory, make_cases(model, sample))
    findings = check_without_manifest(VersionFiles(directory), ["c_api"])
    problems = [finding for finding in findings if finding.problem]
    if problems:
        listed = "\n".join(f"  {finding.what}: {finding.problem}" for finding in problems)
        raise ServingError(f"{name}: the export does not pass its check:\n{listed}")
    return Manifest.of(model, name, metrics, requests)


def _publish(
    directory: pathlib.Path, base_path: pathlib.Path, version: int | None, manifest: Manifest
) -> pathlib.Path:
    def finish(number: int) -> None:
        parent = _parent(base_path, manifest, number)
        dataclasses.replace(manifest, version=number, parent_version=parent).write(directory)

    return base_path / str(publish(directory, base_path, version, finish))


def _parent(base_path: pathlib.Path, manifest: Manifest, version: int) -> int | None:
    """The latest older version whose weights are exactly those that the last stage froze."""
    if manifest.stage == 1:
        return None
    for older in reversed([number for number in versions(base_path) if number < version]):
        known = _manifest(base_path / str(older))
        if known is not None and known.fingerprint == manifest.frozen_fingerprint:
            return older
    return None


def _manifest(directory: pathlib.Path) -> Manifest | None:
    """The manifest, `None` for a version that something else wrote."""
    try:
        return Manifest.read(directory)
    except ServingError:
        return None
