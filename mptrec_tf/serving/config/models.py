"""The models of a server: which versions it serves, and which label stands for which version."""

import difflib
from collections.abc import Iterable, Mapping

from google.protobuf import text_format

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.arguments import check_base_path, check_name, check_whole

try:
    from tensorflow_serving.config.model_server_config_pb2 import (
        ModelConfig,
        ModelServerConfig,
        ModelType,
    )
except ImportError as error:
    raise ServingError(f"{error}: pip install 'mptrec-tf[serving]'") from error

PLATFORM = "tensorflow"
PLATFORMS = ((PLATFORM, ModelType.MODEL_TYPE_UNSPECIFIED), ("", ModelType.TENSORFLOW))
"""Of a model the `model_platform` and the `model_type`, an older way to say the same."""


def check_models(config: ModelServerConfig) -> None:
    """Refuses what a server would refuse at its start, and names that cannot be a part of a URL.

    An empty configuration is none of these: a server starts with it, and serves nothing.

    Args:
        config: The models.

    Raises:
        ServingError: Names the model and what is wrong.
    """
    if config.HasField("custom_model_config"):
        raise ServingError("custom_model_config is not supported; expected model_config_list")
    seen = set()
    for model in config.model_config_list.config:
        check_name("model", model.name)
        if model.name in seen:
            raise ServingError(f"the model {model.name!r} is there more than once")
        seen.add(model.name)
        check_base_path(model.name, model.base_path)
        if (model.model_platform, model.model_type) not in PLATFORMS:
            raise ServingError(
                f"the model_platform of {model.name!r} is {model.model_platform!r}, expected "
                f"{PLATFORM!r} and no model_type"
            )
        if model.model_version_policy.HasField("specific"):
            for label, version in model.version_labels.items():
                _check_served(model, label, version)


class ServedModels:
    """What TensorFlow Serving reads from its `--model_config_file`.

    A server takes a new file in this order: it assigns all labels, each of which must stand for a
    version that it has loaded, then loads and unloads versions. So a file that adds a version and
    moves a label to it is refused as a whole, at every look at it. A promotion is two files:
    `add_version`, then `set_label` once the version is available.

    Args:
        config: The parsed file, changed in place. Defaults to `None`: no models.

    Raises:
        ServingError: As `check_models`.

    Example:

    >>> served = ServedModels()
    >>> served.add_model("census", "/models/census", versions=[1], labels={"stable": 1})
    >>> served.add_version("census", 2)
    >>> served.set_label("census", "stable", 2)
    >>> served.versions("census"), served.labels("census")
    ([1, 2], {'stable': 2})
    """

    def __init__(self, config: ModelServerConfig | None = None) -> None:
        self.config = ModelServerConfig() if config is None else config
        check_models(self.config)
        self._models = self.config.model_config_list.config

    @classmethod
    def parse(cls, text: str) -> "ServedModels":
        """Reads a text protobuf.

        Args:
            text: A `ModelServerConfig`. Comments are not kept.

        Raises:
            ServingError: Names line and column, or the model that a server would refuse.
        """
        try:
            return cls(text_format.Parse(text, ModelServerConfig()))
        except text_format.ParseError as error:
            raise ServingError(f"not a ModelServerConfig: {error}") from error

    def text(self) -> str:
        """The text protobuf, without comments."""
        return text_format.MessageToString(self.config)

    @property
    def names(self) -> list[str]:
        """Names of the models, in the order of the file."""
        return [model.name for model in self._models]

    def versions(self, name: str) -> list[int]:
        """The versions that a model is to serve.

        Args:
            name: Name of the model.

        Returns:
            The versions in ascending order; none if the server chooses them by itself.

        Raises:
            ServingError: If there is no such model.
        """
        return sorted(self._model(name).model_version_policy.specific.versions)

    def labels(self, name: str) -> dict[str, int]:
        """The labels of a model in alphabetical order, and the versions that they stand for."""
        return dict(sorted(self._model(name).version_labels.items()))

    def base_path(self, name: str) -> str:
        """The directory of a model's versions, as the server sees it."""
        return self._model(name).base_path

    def add_model(
        self,
        name: str,
        base_path: str,
        versions: Iterable[int] = (),
        labels: Mapping[str, int] | None = None,
    ) -> None:
        """Adds a model.

        Args:
            name: Letters, digits, `.`, `_` and `-`: it is a part of URLs.
            base_path: The directory of the model's versions, as the server sees it: an absolute
                path or a URL.
            versions: Versions to serve. Defaults to none: always the highest that is there, which
                leaves nothing to promote, and takes no labels.
            labels: Labels of versions. Defaults to `None`.

        Raises:
            ServingError: If the model is there already, or an argument is none of these.
        """
        check_name("model", name)
        check_base_path(name, base_path)
        if name in self.names:
            raise ServingError(f"the model {name!r} is there already")
        model = ModelConfig(name=name, base_path=base_path, model_platform=PLATFORM)
        versions = set(versions)
        for version in versions:
            check_whole("version", version)
        if versions:
            model.model_version_policy.specific.versions.extend(sorted(versions))
        else:
            model.model_version_policy.latest.num_versions = 1
        for label, version in (labels or {}).items():
            _assign(model, label, version)
        self._models.append(model)

    def add_version(self, name: str, version: int) -> None:
        """Serves a version beside the others: step one of a promotion.

        Args:
            name: Name of the model.
            version: The version.

        Raises:
            ServingError: If the model is not there, or serves the version already.
        """
        check_whole("version", version)
        model = self._model(name, specific=True)
        served = self.versions(name)
        if version in served:
            raise ServingError(f"the model {name!r} serves version {version} already")
        model.model_version_policy.specific.versions[:] = sorted([*served, version])

    def set_label(self, name: str, label: str, version: int) -> None:
        """Lets a label stand for a version: step two of a promotion, and a rollback.

        Args:
            name: Name of the model.
            label: The label; made if it is not there.
            version: A version that the model serves.

        Raises:
            ServingError: If the model is not there, or does not serve the version.
        """
        _assign(self._model(name, specific=True), label, version)

    def version_before(self, name: str, label: str) -> int:
        """Where a rollback leads: the highest version served below that of a label.

        Args:
            name: Name of the model.
            label: The label.

        Raises:
            ServingError: If model, label or such a version are not there.
        """
        self._model(name, specific=True)
        labels = self.labels(name)
        if label not in labels:
            raise ServingError(f"the model {name!r} has no label {label!r}; it has {list(labels)}")
        current, served = labels[label], self.versions(name)
        below = [version for version in served if version < current]
        if not below:
            raise ServingError(
                f"the model {name!r} serves no version below {current}, for which {label!r} stands "
                f"(it serves {served}); add one, or name the version to go to"
            )
        return below[-1]

    def retire(self, name: str, version: int) -> None:
        """Serves a version no longer.

        Args:
            name: Name of the model.
            version: The version.

        Raises:
            ServingError: If the model does not serve it, serves nothing else, or has a label that
                stands for it.
        """
        model = self._model(name, specific=True)
        served = self.versions(name)
        if version not in served:
            raise ServingError(
                f"the model {name!r} does not serve version {version}; it serves {served}"
            )
        labels = [label for label, target in self.labels(name).items() if target == version]
        if labels:
            raise ServingError(
                f"version {version} of {name!r} has the labels {labels}; move them first"
            )
        if served == [version]:
            raise ServingError(f"version {version} is the last that {name!r} serves")
        model.model_version_policy.specific.versions.remove(version)

    def _model(self, name: str, specific: bool = False) -> ModelConfig:
        for model in self._models:
            if model.name == name:
                break
        else:
            close = difflib.get_close_matches(name, self.names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {self.names}"
            raise ServingError(f"there is no model {name!r}; {hint}")
        if specific:
            _require_specific(model)
        return model


def _require_specific(model: ModelConfig) -> None:
    if not model.model_version_policy.HasField("specific"):
        raise ServingError(
            f"the model {model.name!r} serves what its server finds; versions can be added, "
            "labelled and retired only where the file lists `specific` versions"
        )


def _assign(model: ModelConfig, label: str, version: int) -> None:
    check_name("label", label)
    _require_specific(model)
    _check_served(model, label, version)
    model.version_labels[label] = version


def _check_served(model: ModelConfig, label: str, version: int) -> None:
    served = sorted(model.model_version_policy.specific.versions)
    if version not in served:
        raise ServingError(
            f"the label {label!r} of {model.name!r} cannot stand for version {version}: it is not "
            f"among those that are served, {served}"
        )
