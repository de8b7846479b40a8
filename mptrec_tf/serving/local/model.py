"""One model: its versions, the state of each, and which are served."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import threading
from collections.abc import Collection

import grpc
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus as State
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from mptrec_tf.serving.layout import found_versions
from mptrec_tf.serving.local.errors import RequestError
from mptrec_tf.serving.local.servable import Servable
from mptrec_tf.serving.local.warmup import warm_up

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass
class Version:
    """What is known of a version.

    Args:
        state: As in GetModelStatus. Defaults to START.
        servable: The loaded version, while it is available. Defaults to `None`.
        error: Code and message of a failure. Defaults to none.
        files: Those of a version that failed: it is tried again when they change.
    """

    state: int = State.START
    servable: Servable | None = None
    error: tuple[int, str] = (0, "")
    files: frozenset[tuple[str, int, int]] | None = None

    def status(self, number: int) -> State:
        """The answer to GetModelStatus."""
        status = State(version=number, state=self.state)
        status.status.error_code, status.status.error_message = self.error
        return status


class Model:
    """The versions of a model.

    One thread at a time calls `update` and `drop`, any number the rest.

    Args:
        config: Name, base path, policy.

    Example:

    ```python
    model = Model(config)
    model.update()
    servable = model.lend()
    servable.release()
    ```
    """

    def __init__(self, config: ModelConfig):
        self.config = config
        self._lock = threading.Lock()
        self._versions: dict[int, Version] = {}

    def available(self) -> list[int]:
        """The versions that are served, in ascending order."""
        with self._lock:
            return sorted(number for number, one in self._versions.items() if one.servable)

    def statuses(self) -> dict[int, State]:
        """The states of all versions, in ascending order; those that are gone among them."""
        with self._lock:
            return {number: one.status(number) for number, one in sorted(self._versions.items())}

    def lend(self, number: int | None = None) -> Servable:
        """Gives a version, which stays loaded until it is released.

        Args:
            number: The version. Defaults to `None`: the latest.

        Returns:
            The version, acquired.

        Raises:
            RequestError: If it is not available.
        """
        with self._lock:
            served = [one for one, version in self._versions.items() if version.servable]
            wanted = max(served, default=None) if number is None else number
            servable = self._versions[wanted].servable if wanted in served else None
            if servable is None:
                raise not_found(self.config.name, number)
            servable.acquire()
            return servable

    def update(self) -> None:
        """Loads the versions that are wanted and new, the latest first, then drops others.

        Others go once a wanted one is available, or when none is wanted.
        """
        try:
            wanted = wanted_versions(self.config)
        except OSError as error:
            LOGGER.warning("model %s: the base path cannot be read: %s", self.config.name, error)
            return
        new = {number: path for number, path in wanted.items() if self._is_new(number, path)}
        with self._lock:
            self._versions |= {number: Version() for number in new}
        for number, path in new.items():
            self._load(number, path)
        if not wanted or wanted.keys() & set(self.available()):
            self.drop(kept=wanted.keys())

    def drop(self, kept: Collection[int] = ()) -> None:
        """Stops serving versions; each is closed when the last request on it has ended.

        Args:
            kept: Versions that stay. Defaults to none.
        """
        for number in self._versions.keys() - set(kept):
            version = self._versions[number]
            version.files = None
            with self._lock:
                servable, version.servable = version.servable, None
                if servable:
                    version.state = State.UNLOADING
            if servable:
                servable.retire(functools.partial(self._end, version))

    def _is_new(self, number: int, path: pathlib.Path) -> bool:
        """Not seen yet, or unloaded before, or failed with other files than it has now."""
        known = self._versions.get(number)
        if known is None:
            return True
        return known.state == State.END and known.files != _files(path)

    def _load(self, number: int, path: pathlib.Path) -> None:
        name, version, files = self.config.name, self._versions[number], _files(path)
        with self._lock:
            version.state = State.LOADING
        try:
            servable = _load_warm(name, number, path)
        except Exception as error:  # one unusable version must not stop the others
            with self._lock:
                version.state, version.error = State.END, _code_and_message(error)
            version.files = files
            LOGGER.warning(
                "model %s: version %d cannot be served: %s", name, number, version.error[1]
            )
            return
        with self._lock:
            version.state, version.servable = State.AVAILABLE, servable
        LOGGER.info("model %s: version %d is served", name, number)

    def _end(self, version: Version) -> None:
        with self._lock:
            version.state = State.END


def wanted_versions(config: ModelConfig) -> dict[int, pathlib.Path]:
    """The versions that a model's policy chooses of those on disk.

    Args:
        config: Base path and policy.

    Returns:
        Directories by version, the latest first.

    Raises:
        OSError: If the base path cannot be read.
    """
    found = sorted(found_versions(pathlib.Path(config.base_path)).items(), reverse=True)
    policy = config.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            chosen = found
        case "specific":
            chosen = [
                (number, path) for number, path in found if number in policy.specific.versions
            ]
        case _:
            chosen = found[: max(policy.latest.num_versions, 1)]
    return dict(chosen)


def not_found(name: str, number: int | None) -> RequestError:
    """The error of a request for a version, or the latest, that is not served."""
    wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
    return RequestError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")


def _files(path: pathlib.Path) -> frozenset[tuple[str, int, int]]:
    """Name, size and time of change of all files of a version."""
    files = set()
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            files.add((str(file), stat.st_size, stat.st_mtime_ns))
    return frozenset(files)


def _load_warm(name: str, number: int, path: pathlib.Path) -> Servable:
    servable = Servable(name, number, path)
    try:
        warm_up(servable, path)
    except BaseException:
        servable.retire()
        raise
    return servable


def _code_and_message(error: Exception) -> tuple[int, str]:
    if isinstance(error, RequestError):
        return error.code.value[0], error.message
    if isinstance(error, tf.errors.OpError):
        return error.error_code, error.message
    code = grpc.StatusCode.NOT_FOUND if isinstance(error, OSError) else grpc.StatusCode.UNKNOWN
    return code.value[0], str(error)
