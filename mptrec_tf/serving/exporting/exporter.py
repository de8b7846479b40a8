"""From a model to a version that TensorFlow Serving loads."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mptrec_tf.data.readers import Source
from mptrec_tf.errors import ServingError
from mptrec_tf.models import MPTRec
from mptrec_tf.serving.cases import write_cases
from mptrec_tf.serving.checking.checker import check
from mptrec_tf.serving.exporting.cases import make_cases
from mptrec_tf.serving.exporting.manifest import Manifest
from mptrec_tf.serving.exporting.samples import made_up_rows, raw_rows
from mptrec_tf.serving.exporting.saved_model import write_saved_model
from mptrec_tf.serving.exporting.signatures import ServedModel
from mptrec_tf.serving.exporting.versions import check_target, publish, staging, versions
from mptrec_tf.serving.exporting.warmup import write_warmup
from mptrec_tf.serving.layout import prediction_log_type

SAMPLE_ROWS = 64


def export(
    model: MPTRec,
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
    `mptrec_tf.serving.exporting.signatures.ServedModel` for the signatures.

    Args:
        model: The model, after stage 1 or stage 2.
        base_path: Directory of the model's versions, made if it is not there.
        version: The version, from 1. Defaults to `None`: the next one.
        name: Name that the model is served under. Defaults to `None`: the last part of `base_path`.
        rows: Raw rows for warm-up requests and checks, of which the first 64 are kept with the
            export. Defaults to `None`: rows made up from the encoder's bins and vocabularies.
        warmup_batch_sizes: Rows of the warm-up requests. Defaults to (1, 64).
        metrics: Metrics by task, for the manifest. Defaults to `None`.

    Returns:
        The directory of the new version.

    Raises:
        ServingError: If the version is there already, the target cannot be written to, the extra
            `serving` is not installed, or the export does not pass its check; nothing is published
            then.
        ModelError: If a task's name is that of another signature.
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
    prediction_log_type()  # refused now if it is missing, not after the work
    name = base_path.absolute().name if name is None else name
    features = model.encoder.features
    sample = (
        made_up_rows(model.encoder, SAMPLE_ROWS)
        if rows is None
        else raw_rows(features, rows, SAMPLE_ROWS)
    )
    served = ServedModel(model)
    with staging(base_path) as directory:
        write_saved_model(served, directory)
        requests = write_warmup(
            directory, name, model.encoder, model.tasks, sample, warmup_batch_sizes
        )
        write_cases(directory, make_cases(model, sample))
        problems = [finding for finding in check(directory, ["c_api"]) if finding.problem]
        if problems:
            listed = "\n".join(f"  {finding.what}: {finding.problem}" for finding in problems)
            raise ServingError(f"{base_path}: the export does not pass its check:\n{listed}")
        manifest = Manifest.of(model, name, metrics or {}, requests)

        def finish(number: int) -> None:
            parent = _parent(base_path, manifest, number)
            final = dataclasses.replace(manifest, version=number, parent_version=parent)
            final.write(directory)

        return base_path / str(publish(directory, base_path, version, finish))


def _parent(base_path: pathlib.Path, manifest: Manifest, version: int) -> int | None:
    """The latest older version whose weights are exactly those that the last stage froze."""
    if manifest.stage == 1:
        return None
    for older in reversed([number for number in versions(base_path) if number < version]):
        try:
            known = Manifest.read(base_path / str(older))
        except ServingError:  # a version that something else wrote
            continue
        if known.fingerprint == manifest.frozen_fingerprint:
            return older
    return None
