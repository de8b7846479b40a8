"""Loads versions as they appear, and lends them to requests."""

import contextlib
import functools
import logging
import pathlib
import threading
from collections.abc import Collection, Iterator

import grpc
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.local.config import check_config
from mptrec_tf.serving.local.errors import RequestError, invalid
from mptrec_tf.serving.local.servable import Servable
from mptrec_tf.serving.local.versions import State, Version, fingerprint, wanted_versions
from mptrec_tf.serving.local.warmup import warm_up

LOGGER = logging.getLogger(__name__)


class Manager:
    """The models of a server, each with its versions.

    A version is served from when it is loaded until a later one is; a request keeps the version
    that it began with. `poll` follows the disk, `reload` a new configuration.

    Args:
        config: The models; labels are assigned once the versions are loaded.

    Raises:
        ServingError: If a label names a version that could not be loaded.

    Example:

    ```python
    manager = Manager(read_config(pathlib.Path("models.config")))
    with manager.lease(request.model_spec) as servable:
        response = predict(servable, request)
    ```
    """

    def __init__(self, config: ModelServerConfig):
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._models: dict[str, ModelConfig] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._adopt(config)
        self.poll()
        try:
            self._labels = self._checked_labels(config)
        except RequestError as error:
            self.close()
            raise ServingError(error.message) from error

    def poll(self) -> None:
        """Loads the versions that are wanted and not there, then drops those not wanted."""
        with self._loading:
            for name, model in list(self._models.items()):
                self._update(name, model)

    def reload(self, config: ModelServerConfig) -> None:
        """Takes another configuration, and all of it: models that it leaves out are dropped.

        Args:
            config: The models.

        Raises:
            ServingError: If the configuration is wrong; nothing is changed.
            RequestError: If a label names a version that is not available now, and nothing is
                changed; or if a new model has no version that can be loaded.
        """
        check_config(config)
        with self._loading:
            labels = self._checked_labels(config)
            new = {model.name for model in config.model_config_list.config} - self._models.keys()
            self._adopt(config)
            with self._lock:
                self._labels = labels
        self.poll()
        missing = sorted(name for name in new if not self.available(name))
        if missing:
            raise RequestError(
                grpc.StatusCode.UNKNOWN,
                f"{len(missing)} model(s) did not become available: {', '.join(missing)}",
            )

    @contextlib.contextmanager
    def lease(self, spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        """Lends the version that a request asks for; it stays loaded for as long as it is lent.

        Args:
            spec: Name, and version or label; without these the latest version.

        Raises:
            RequestError: If there is no such version.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        with self._lock:
            servable = self._find(spec)
            servable.acquire()
        try:
            yield servable
        finally:
            servable.release()

    def available(self, name: str) -> list[int]:
        """The versions of a model that are served, in ascending order."""
        with self._lock:
            return sorted(
                number
                for number, version in self._versions.get(name, {}).items()
                if version.state == State.AVAILABLE
            )

    def failures(self, name: str) -> str:
        """Why versions of a model could not be loaded; empty if all could."""
        with self._lock:
            failed = sorted(self._versions.get(name, {}).items())
            return "; ".join(f"{number}: {one.error[1]}" for number, one in failed if one.error[0])

    def names(self) -> list[str]:
        """The models of the configuration."""
        return sorted(self._models)

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Answers GetModelStatus.

        Args:
            request: Name and perhaps version; a label is not looked at, as in TensorFlow Serving.

        Returns:
            The states of all versions, those dropped among them, or of one.

        Raises:
            RequestError: If the model or version was never seen.
        """
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        with self._lock:
            versions = dict(self._versions.get(spec.name, {}))
            if spec.HasField("version"):
                number = spec.version.value
                if number not in versions:
                    raise _not_found(f"Could not find version {number} of model {spec.name}")
                versions = {number: versions[number]}
            if not versions:
                raise _not_found(f"Could not find any versions of model {spec.name}")
            statuses = [version.status(number) for number, version in sorted(versions.items())]
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    def close(self) -> None:
        """Drops all versions."""
        with self._loading:
            for name in list(self._versions):
                self._drop(name)

    def _adopt(self, config: ModelServerConfig) -> None:
        self._models = {model.name: model for model in config.model_config_list.config}
        for name in self._versions.keys() - self._models.keys():
            self._drop(name)

    def _update(self, name: str, model: ModelConfig) -> None:
        """Old versions go once a wanted one is available, or when none is wanted."""
        try:
            wanted = wanted_versions(model)
        except OSError as error:
            LOGGER.warning("model %s: %s: cannot be read: %s", name, model.base_path, error)
            return
        new = {number: path for number, path in wanted.items() if self._is_new(name, number, path)}
        with self._lock:
            self._versions.setdefault(name, {}).update({number: Version() for number in new})
        for number, path in new.items():
            self._load(name, number, path)
        if not wanted or wanted.keys() & set(self.available(name)):
            self._drop(name, kept=wanted.keys())

    def _is_new(self, name: str, number: int, path: pathlib.Path) -> bool:
        """Not seen yet, or unloaded before, or failed with other files than it has now."""
        known = self._versions.get(name, {}).get(number)
        if known is None:
            return True
        return known.state == State.END and known.fingerprint != fingerprint(path)

    def _load(self, name: str, number: int, path: pathlib.Path) -> None:
        version = self._versions[name][number]
        with self._lock:
            version.state = State.LOADING
        files = fingerprint(path)
        try:
            servable = _load_warm(name, number, path)
        except Exception as error:  # one unusable version must not stop the others
            code, message = _code_and_message(error)
            LOGGER.warning("model %s: version %d cannot be served: %s", name, number, message)
            with self._lock:
                version.state, version.error, version.fingerprint = (
                    State.END,
                    (code, message),
                    files,
                )
        else:
            LOGGER.info("model %s: version %d is served", name, number)
            with self._lock:
                version.state, version.servable = State.AVAILABLE, servable

    def _drop(self, name: str, kept: Collection[int] = ()) -> None:
        for number, version in self._versions.get(name, {}).items():
            if number in kept:
                continue
            version.fingerprint = None
            if version.servable is None:
                continue
            with self._lock:
                servable, version.servable = version.servable, None
                version.state = State.UNLOADING
            servable.retire(functools.partial(self._end, version))

    def _end(self, version: Version) -> None:
        with self._lock:
            version.state = State.END

    def _find(self, spec: model_pb2.ModelSpec) -> Servable:
        versions = self._versions.get(spec.name, {})
        match spec.WhichOneof("version_choice"):
            case "version":
                number = spec.version.value
            case "version_label":
                try:
                    number = self._labels[spec.name][spec.version_label]
                except KeyError:
                    raise invalid(
                        f"Unrecognized servable version label: {spec.version_label}"
                    ) from None
            case _:
                served = [number for number, version in versions.items() if version.servable]
                if not served:
                    raise _not_found(f"Servable not found for request: Latest({spec.name})")
                number = max(served)
        servable = versions[number].servable if number in versions else None
        if servable is None:
            raise _not_found(f"Servable not found for request: Specific({spec.name}, {number})")
        return servable

    def _checked_labels(self, config: ModelServerConfig) -> dict[str, dict[str, int]]:
        labels = {}
        for model in config.model_config_list.config:
            labels[model.name] = dict(model.version_labels)
            for number in set(model.version_labels.values()) - set(self.available(model.name)):
                raise RequestError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {model.name}, which is "
                    "not currently available for inference",
                )
        return labels


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


def _not_found(message: str) -> RequestError:
    return RequestError(grpc.StatusCode.NOT_FOUND, message)
