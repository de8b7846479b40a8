"""FrozenTaskGate: a new task must leave the answers of every older one as they were, bit for bit.

Both models are loaded by the same loader and asked the same examples. What older tasks answer is
compared as bytes: a tolerance would hide a weight that moved a little, and NaN never equals itself.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tfx import v1 as tfx
from tfx.components.evaluator import constants
from tfx.components.util import model_utils
from tfx.types import artifact_utils
from tfx.utils import path_utils

from mptrec_tf.errors import PipelineError
from mptrec_tf.serving import Manifest
from mptrec_tf.serving.layout import EXAMPLES, SERVING_DEFAULT
from pipelines.examples import TEST, VALIDATION, read_records, split_files

GATE_FILE = "gate.json"
"""What was compared, in the directory of the blessing."""

Examples = tfx.types.standard_artifacts.Examples
Model = tfx.types.standard_artifacts.Model
ModelBlessing = tfx.types.standard_artifacts.ModelBlessing


@dataclasses.dataclass(frozen=True)
class TaskComparison:
    """What two models answered for one task.

    Args:
        rows: Rows that were compared.
        rows_that_differ: Rows in which a byte differs.
        largest_difference: Largest absolute difference of two numbers; `None` if a NaN or an
            infinity stands against another number.
        base_sha256: SHA-256 of the answers of the base.
        sha256: SHA-256 of the answers of the candidate; `None` if it lacks the task.
        unchanged: Whether all bytes are the same.
    """

    rows: int
    rows_that_differ: int
    largest_difference: float | None
    base_sha256: str
    sha256: str | None
    unchanged: bool


@tfx.dsl.components.component
def FrozenTaskGate(  # noqa: N802
    model: tfx.dsl.components.InputArtifact[Model],
    base_model: tfx.dsl.components.InputArtifact[Model],
    examples: tfx.dsl.components.InputArtifact[Examples],
    model_blessing: tfx.dsl.components.InputArtifact[ModelBlessing],
    blessing: tfx.dsl.components.OutputArtifact[ModelBlessing],
    max_rows: tfx.dsl.components.Parameter[int] = 50_000,
) -> None:
    """Blesses a model if the Evaluator did and nothing older has changed.

    Its blessing is the final one: the Pusher and the resolver of the next base read it alone.
    `gate.json` beside it tells what was compared.

    Args:
        model: The candidate, with the new task.
        base_model: The model that the candidate began with.
        examples: Raw examples. The split `test` is compared, `validation` if there is none.
        model_blessing: The blessing of the Evaluator.
        blessing: The final blessing, with the properties that the Evaluator writes.
        max_rows: Rows that are compared at most, the first ones. Defaults to 50,000.

    Raises:
        PipelineError: If there are no rows to compare.
        ServingError: If one of the models is not an export of this library.
    """
    candidate, base = (path_utils.serving_model_path(a.uri) for a in (model, base_model))
    manifests = [Manifest.read(path) for path in (candidate, base)]
    split = _split(examples)
    tasks = compare(candidate, base, split_files(examples.uri, split), max_rows)
    same_weights = manifests[0].frozen_fingerprint == manifests[1].fingerprint
    evaluated = model_utils.is_model_blessed(model_blessing)
    problems = find_problems(tasks, same_weights=same_weights, evaluated=evaluated)
    rows = next(iter(tasks.values())).rows
    verdict = (
        "refused: " + "; ".join(problems)
        if problems
        else f"blessed: the Evaluator blessed it, and on {rows} rows of the split {split!r} the "
        f"tasks {list(tasks)} answer byte for byte as before"
    )
    report = {
        "blessed": not problems,
        "verdict": verdict,
        "model": model.uri,
        "base_model": base_model.uri,
        "evaluator_blessed": evaluated,
        "same_frozen_weights": same_weights,
        "frozen_fingerprint": manifests[0].frozen_fingerprint,
        "base_fingerprint": manifests[1].fingerprint,
        "split": split,
        "tasks": {name: dataclasses.asdict(task) for name, task in tasks.items()},
    }
    _bless(blessing, model, base_model, report)
    print(verdict)


def compare(
    candidate: str, base: str, files: Sequence[str], max_rows: int
) -> dict[str, TaskComparison]:
    """What two models answer to the same rows, by each task of the base.

    The files are read batch by batch in their order, so memory does not depend on their size, and
    the same files give the same result.

    Args:
        candidate: Directory of a SavedModel whose `serving_default` takes serialized examples.
        base: Directory of another one.
        files: Compressed TFRecords of examples.
        max_rows: Rows that are compared at most.

    Raises:
        PipelineError: If there are no rows.
    """
    # The models are kept: a signature alone does not keep its variables alive.
    models = [tf.saved_model.load(path) for path in (base, candidate)]
    ask = [model.signatures[SERVING_DEFAULT] for model in models]
    tallies = {name: _Tally() for name in sorted(ask[0].structured_outputs)}
    rows = 0
    for batch in read_records(files):
        batch = batch[: max(0, max_rows - rows)]
        if not len(batch):
            break
        rows += len(batch)
        before, after = ({k: v.numpy() for k, v in f(**{EXAMPLES: batch}).items()} for f in ask)
        for name, tally in tallies.items():
            tally.add(before[name], after.get(name))
    if rows == 0:
        raise PipelineError(f"no rows to compare in {list(files)}, at most {max_rows}")
    return {name: tally.result(rows) for name, tally in tallies.items()}


class _Tally:
    """Counts over batches."""

    def __init__(self) -> None:
        self._base, self._candidate, self._absent = hashlib.sha256(), hashlib.sha256(), False
        self._differ = 0
        self._largest: float | None = 0.0

    def add(self, base: np.ndarray, candidate: np.ndarray | None) -> None:
        self._base.update(base.tobytes())
        if candidate is None:
            self._absent = True
        else:
            self._candidate.update(candidate.tobytes())
        if candidate is None or (base.shape, base.dtype) != (candidate.shape, candidate.dtype):
            self._differ, self._largest = self._differ + len(base), None
            return
        differ = (_bytes(base) != _bytes(candidate)).any(axis=1)
        self._differ += int(differ.sum())
        if self._largest is not None and differ.any():
            one, two = base[differ].astype(np.float64), candidate[differ].astype(np.float64)
            same = (one == two) | (np.isnan(one) & np.isnan(two))
            with np.errstate(invalid="ignore"):
                largest = float(np.max(np.where(same, 0.0, np.abs(one - two))))
            self._largest = max(self._largest, largest) if np.isfinite(largest) else None

    def result(self, rows: int) -> TaskComparison:
        return TaskComparison(
            rows=rows,
            rows_that_differ=self._differ,
            largest_difference=self._largest,
            base_sha256=self._base.hexdigest(),
            sha256=None if self._absent else self._candidate.hexdigest(),
            unchanged=self._differ == 0,
        )


def _bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of each row, uint8 (rows, n)."""
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


def find_problems(
    tasks: dict[str, TaskComparison], *, same_weights: bool, evaluated: bool
) -> list[str]:
    """Why a model is not blessed, in words; nothing if it is.

    Args:
        tasks: What was compared, by task of the base.
        same_weights: Whether the frozen weights of the candidate are the weights of the base.
        evaluated: Whether the Evaluator blessed it.
    """
    problems = [] if evaluated else ["the Evaluator did not bless it"]
    if not same_weights:
        problems.append("its frozen weights are not the weights of the base model")
    for name, task in tasks.items():
        if task.sha256 is None:
            problems.append(f"it lacks the task {name!r} of the base model")
        elif not task.unchanged:
            by = task.largest_difference
            size = "with NaN, an infinity or another shape" if by is None else f"by up to {by:.3g}"
            problems.append(
                f"the task {name!r} answers otherwise in {task.rows_that_differ} of {task.rows} "
                f"rows, {size}"
            )
    return problems


def _split(examples: Any) -> str:
    names = artifact_utils.decode_split_names(examples.split_names)
    for split in (TEST, VALIDATION):
        if split in names:
            return split
    raise PipelineError(
        f"{examples.uri} has the splits {names}, expected {TEST!r} or {VALIDATION!r} to compare on"
    )


def _bless(blessing: Any, model: Any, base_model: Any, report: dict[str, Any]) -> None:
    """Writes the blessing as the stock Evaluator does."""
    for uri_key, id_key, artifact in (
        (
            constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY,
            constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY,
            model,
        ),
        (
            constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY,
            constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY,
            base_model,
        ),
    ):
        blessing.set_string_custom_property(uri_key, artifact.uri)
        blessing.set_int_custom_property(id_key, artifact.id)
    blessed = report["blessed"]
    mark = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    files = {GATE_FILE: json.dumps(report, indent=1, ensure_ascii=False), mark: ""}
    for name, text in files.items():
        with tf.io.gfile.GFile(os.path.join(blessing.uri, name), "w") as file:
            file.write(text)
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY,
        constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE,
    )
