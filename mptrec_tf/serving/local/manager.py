"""Which models are served, under which labels; lends their versions to requests."""

import contextlib
import threading
from collections.abc import Iterator, Mapping

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.local.config import check_config
from mptrec_tf.serving.local.errors import RequestError, invalid
from mptrec_tf.serving.local.model import Model, not_found
from mptrec_tf.serving.local.servable import Servable


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
        self._loading = threading.Lock()
        self._models: dict[str, Model] = {}
        self._dropped: dict[str, Model] = {}
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
            for model in self._models.values():
                model.update()

    def reload(self, config: ModelServerConfig) -> None:
        """Takes another configuration, and all of it: models that it leaves out are dropped.

        Args:
            config: The models.

        Raises:
            ServingError: If the configuration is wrong; nothing is changed.
            RequestError: If it is empty, or a label names a version that is not available now, and
                nothing is changed; or if a new model has no version that can be loaded.
        """
        check_config(config)
        if self._models and not config.HasField("model_config_list"):
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Cannot transition to requested config: it is empty, and not a model_config_list",
            )
        with self._loading:
            labels = self._checked_labels(config)
            new = self._adopt(config)
            self._labels = labels
        self.poll()
        missing = [name for name in new if not self._models[name].available()]
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
        number = self._number(spec)
        model = self._models.get(spec.name)
        if model is None:
            raise not_found(spec.name, number)
        servable = model.lend(number)
        try:
            yield servable
        finally:
            servable.release()

    @property
    def models(self) -> Mapping[str, Model]:
        """The models of the configuration, by name."""
        return self._models

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
        name = request.model_spec.name
        model = self._models.get(name) or self._dropped.get(name)
        statuses = model.statuses() if model else {}
        wanted, message = set(statuses), f"Could not find any versions of model {name}"
        if request.model_spec.HasField("version"):
            number = request.model_spec.version.value
            wanted &= {number}
            message = f"Could not find version {number} of model {name}"
        if not wanted:
            raise RequestError(grpc.StatusCode.NOT_FOUND, message)
        return get_model_status_pb2.GetModelStatusResponse(
            model_version_status=[statuses[number] for number in sorted(wanted)]
        )

    def close(self) -> None:
        """Drops all versions."""
        with self._loading:
            for model in self._models.values():
                model.drop()

    def _adopt(self, config: ModelServerConfig) -> list[str]:
        """Takes the models of a configuration, drops the others, and names the new ones."""
        old, seen = self._models, self._models | self._dropped
        models = {}
        for one in config.model_config_list.config:
            model = models[one.name] = seen.get(one.name) or Model(one)
            model.config = one
        self._models = models
        for name in old.keys() - models.keys():
            self._dropped[name] = old[name]
            old[name].drop()
        return sorted(models.keys() - old.keys())

    def _number(self, spec: model_pb2.ModelSpec) -> int | None:
        match spec.WhichOneof("version_choice"):
            case "version":
                return spec.version.value
            case "version_label":
                label = spec.version_label
                try:
                    return self._labels[spec.name][label]
                except KeyError:
                    raise invalid(f"Unrecognized servable version label: {label}") from None
        return None

    def _checked_labels(self, config: ModelServerConfig) -> dict[str, dict[str, int]]:
        labels = {}
        for one in config.model_config_list.config:
            labels[one.name] = dict(one.version_labels)
            model = self._models.get(one.name)
            available = model.available() if model else []
            for number in sorted(set(one.version_labels.values()) - set(available)):
                raise RequestError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {one.name}, which is "
                    "not currently available for inference",
                )
        return labels
