"""Which models are served: TensorFlow Serving's own `ModelServerConfig`."""

import pathlib

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.files import naming, read_models
from mptrec_tf.serving.config.models import PLATFORM, check_models


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
    config = read_models(file).config
    with naming(file):
        check_config(config)
    return config


def check_config(config: ModelServerConfig) -> None:
    """Refuses what `check_models` refuses, and directories that are not on this machine.

    Args:
        config: The configuration.

    Raises:
        ServingError: Names the model and what is wrong.
    """
    check_models(config)
    for model in config.model_config_list.config:
        if not model.base_path.startswith("/"):
            raise ServingError(
                f"the base path of {model.name!r} is a URL, and the local server reads directories "
                f"of this machine only. Received: {model.base_path!r}"
            )
