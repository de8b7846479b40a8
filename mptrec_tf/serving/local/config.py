"""Which models are served: TensorFlow Serving's own `ModelServerConfig`."""

import pathlib
import re

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mptrec_tf.serving.local.errors import ServerError

PLATFORM = "tensorflow"
_NO_NAME = re.compile(r"[/\\:\x00-\x1f\x7f]|\.\.|^\.?$")


def single_model(name: str, base_path: pathlib.Path) -> ModelServerConfig:
    """The configuration of one model, of which the latest version is served.

    Args:
        name: Name of the model.
        base_path: Directory of its versions.

    Returns:
        The configuration, checked.

    Raises:
        ServerError: If the name cannot be served.

    Example:

    >>> single_model("census", pathlib.Path("/models/census")).model_config_list.config[0].name
    'census'
    """
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=str(base_path.absolute()), model_platform=PLATFORM
    )
    check_config(config)
    return config


def read_config(file: pathlib.Path) -> ModelServerConfig:
    """Reads a model configuration file as `--model_config_file` of TensorFlow Serving does.

    Args:
        file: A `ModelServerConfig` in protobuf's text format.

    Returns:
        The configuration, checked.

    Raises:
        ServerError: If it cannot be read, or cannot be served.
    """
    try:
        config = text_format.Parse(file.read_text(encoding="utf-8"), ModelServerConfig())
        check_config(config)
    except OSError as error:
        raise ServerError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ServerError(f"{file}: {error}") from error
    except text_format.ParseError as error:
        raise ServerError(f"{file}: no ModelServerConfig in text format: {error}") from error
    return config


def check_config(config: ModelServerConfig) -> None:
    """Refuses what TensorFlow Serving refuses, and names that are paths.

    Args:
        config: The configuration.

    Raises:
        ServerError: If it is no list of models, or a name, path or platform is wrong.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise ServerError("only a model_config_list is supported")
    seen = set()
    for model in config.model_config_list.config:
        check_name(model.name)
        if model.name in seen:
            raise ServerError(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)
        if not pathlib.PurePath(model.base_path).is_absolute():
            raise ServerError(
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}"
            )
        if model.model_platform != PLATFORM:
            raise ServerError(
                f"model {model.name}: model_platform is {model.model_platform!r}, expected "
                f"{PLATFORM!r}"
            )


def check_name(name: str) -> None:
    """Refuses names that are empty, parts of paths, or not printable.

    Args:
        name: Name of a model.

    Raises:
        ServerError: If it cannot be the name of a model.

    Example:

    >>> check_name("../census")
    Traceback (most recent call last):
    mptrec_tf.serving.local.errors.ServerError: '../census' cannot name a model: ...
    """
    if _NO_NAME.search(name):
        raise ServerError(
            f"{name!r} cannot name a model: expected a name without '/', '\\', ':', '..' and "
            "control characters"
        )
