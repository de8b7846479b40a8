"""What an exported version says of itself, in `assets.extra/manifest.json`."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mptrec_tf.errors import ServingError
from mptrec_tf.models import GrowingModel
from mptrec_tf.serving.layout import MANIFEST_FILE
from mptrec_tf.spec import DataSpec
from mptrec_tf.spec.parsing import dump

LIBRARIES = ("mptrec-tf", "tensorflow", "keras", "numpy")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Where a version comes from, and what it holds.

    Args:
        name: The model's name.
        version: The version.
        parent_version: The version whose weights are all part of this one, to which it adds a task;
            `None` if there is none beside it.
        stage: 1, or 2 if tasks were added.
        stage1_tasks: Names of the tasks that were trained together.
        added_tasks: Names of the tasks that were added, in order.
        spec: Features and tasks, as `DataSpec` reads them.
        fingerprint: SHA-256 over all weights of the model.
        frozen_fingerprint: SHA-256 over the weights that the last stage did not train: the
            `fingerprint` of the model that it began with. `None` in stage 1.
        metrics: Metrics by task, as given to `export`.
        warmup_requests: How many requests a server replays at load.
        created: When it was exported, ISO 8601, UTC.
        libraries: Versions by package, Python included.

    Example:

    ```python
    manifest = Manifest.read("serving/census/2")
    manifest.parent_version, manifest.added_tasks  # (1, ["education"])
    ```
    """

    name: str
    version: int
    parent_version: int | None
    stage: int
    stage1_tasks: list[str]
    added_tasks: list[str]
    spec: dict[str, Any]
    fingerprint: str
    frozen_fingerprint: str | None
    metrics: dict[str, Any]
    warmup_requests: int
    created: str
    libraries: dict[str, str]

    @classmethod
    def of(
        cls, model: GrowingModel, name: str, metrics: Mapping[str, Any], warmup_requests: int
    ) -> "Manifest":
        """The manifest of a model that has no version yet (0).

        Args:
            model: The model.
            name: Its name.
            metrics: Its metrics by task, as `plain_metrics` gives them.
            warmup_requests: How many warm-up requests were written.
        """
        stage1 = [task.name for task in model.stage1_tasks]
        stage = 1 if len(stage1) == len(model.tasks) else 2
        versions = {library: importlib.metadata.version(library) for library in LIBRARIES}
        return cls(
            name=name,
            version=0,
            parent_version=None,
            stage=stage,
            stage1_tasks=stage1,
            added_tasks=[task.name for task in model.tasks if task.name not in stage1],
            spec=dump(DataSpec(model.encoder.features, model.tasks)),
            fingerprint=model.fingerprint(),
            frozen_fingerprint=model.fingerprint(frozen_only=True) if stage == 2 else None,
            metrics=dict(metrics),
            warmup_requests=warmup_requests,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            libraries={**versions, "python": platform.python_version()},
        )

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> "Manifest":
        """The manifest of an exported version.

        Args:
            directory: The version, which may be remote.

        Raises:
            ServingError: If there is none, or it is broken.
        """
        file = f"{os.fspath(directory)}/{MANIFEST_FILE}"
        try:
            with tf.io.gfile.GFile(file) as opened:
                return cls(**json.loads(opened.read()))
        except tf.errors.NotFoundError as error:
            raise ServingError(f"{directory} has no {MANIFEST_FILE}: not an export") from error
        except tf.errors.OpError as error:
            raise ServingError(f"{file}: {error.message}") from error
        except (ValueError, TypeError) as error:
            raise ServingError(f"{file}: broken manifest: {error}") from error

    def is_same_export(self, other: "Manifest") -> bool:
        """Whether both are of one export, under whatever version.

        Args:
            other: Another manifest.
        """
        # As text, in which a metric of older manifests that is NaN equals itself.
        one, two = (
            json.dumps(dataclasses.asdict(dataclasses.replace(m, version=0, parent_version=None)))
            for m in (self, other)
        )
        return one == two

    def write(self, directory: str | os.PathLike[str]) -> None:
        """Writes the manifest into a version's directory, which may be remote."""
        file = f"{os.fspath(directory)}/{MANIFEST_FILE}"
        tf.io.gfile.makedirs(file.rpartition("/")[0])
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
        with tf.io.gfile.GFile(file, "w") as opened:
            opened.write(text + "\n")


def plain_metrics(value: Any, where: str = "metrics") -> Any:
    """Metrics as JSON has them: NumPy's numbers as Python's, `None` for NaN and infinity.

    Args:
        value: A dict, list, text or number, or dicts and lists of them.
        where: What it is, for the error. Defaults to `"metrics"`.

    Raises:
        ServingError: If it is or holds anything else.

    Example:

    >>> plain_metrics({"click": {"auc": np.float32(0.5), "grouped_auc": float("nan")}})
    {'click': {'auc': 0.5, 'grouped_auc': None}}
    """
    if isinstance(value, Mapping):
        return {str(key): plain_metrics(part, f"{where}[{key!r}]") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_metrics(part, f"{where}[{n}]") for n, part in enumerate(value)]
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float):
        return plain if math.isfinite(plain) else None
    if plain is None or isinstance(plain, str | int):
        return plain
    raise ServingError(f"{where} should be a number. Received: {value!r}")
