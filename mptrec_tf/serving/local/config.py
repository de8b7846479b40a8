"""Which models are served: TensorFlow Serving's own `ModelServerConfig`."""

import pathlib

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.arguments import check_name

PLATFORM = "tensorflow"


def single_model(name: str, base_path: pathlib.Path) -> ModelServerConfig:
    """The configuration of one model, of which the latest version is served.

    Args:
        name: Name of the model.
        base_path: Directory of its versions.

    Returns:
        The configuration, checked.

    Raises:
        ServingError: If the name cannot be served.

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
        ServingError: If it cannot be read, or cannot be served.
    """
    try:
        config = text_format.Parse(file.read_text(encoding="utf-8"), ModelServerConfig())
        check_config(config)
    except OSError as error:
        raise ServingError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ServingError(f"{file}: {error}") from error
    except text_format.ParseError as error:
        raise ServingError(f"{file}: no ModelServerConfig in text format: {error}") from error
    return config


def check_config(config: ModelServerConfig) -> None:
    """Refuses what TensorFlow Serving refuses, and names that are paths.

    Args:
        config: The configuration.

    Raises:
        ServingError: If it is no list of models, or a name, path or platform is wrong.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise ServingError("only a model_config_list is supported")
    seen = set()
    for model in config.model_config_list.config:
        check_name("model", model.name)
        if model.name in seen:
            raise ServingError(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)
        if not pathlib.PurePath(model.base_path).is_absolute():
            raise ServingError(
                f"Expected model {model.name} to have an absolute path or URI; got "
                f"base_path()={model.base_path}"
            )
        if model.model_platform != PLATFORM:
            raise ServingError(
                f"model {model.name}: model_platform is {model.model_platform!r}, expected "
                f"{PLATFORM!r}"
            )
