"""Model files: written whole or not at all, and read without running anything they contain."""

import json
import os
import pathlib
import zipfile
from typing import Any, overload

import keras

from mptrec_tf.errors import ModelError
from mptrec_tf.files import written_whole
from mptrec_tf.models.growing import GrowingModel, ModelT
from mptrec_tf.models.mptrec import MPTRec


def save_model(model: GrowingModel, path: str | os.PathLike[str]) -> None:
    """Writes a model as a `.keras` file; the file appears under its name when it is complete.

    Args:
        model: The model.
        path: A name that ends in `.keras`, on this machine.

    Raises:
        ModelError: If it does not, or is a URI.

    Example:

    ```python
    save_model(model, "runs/census/stage1.keras")
    ```
    """
    path = _local(path)
    if path.suffix != ".keras":
        raise ModelError(f"{path}: the name of a model file ends in .keras")
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        model.save(partial)


@overload
def load_model(path: str | os.PathLike[str]) -> MPTRec: ...


@overload
def load_model(path: str | os.PathLike[str], kind: type[ModelT]) -> ModelT: ...


def load_model(path: str | os.PathLike[str], kind: type[GrowingModel] = MPTRec) -> GrowingModel:
    """Reads a model file, in Keras's safe mode: nothing that it contains is executed.

    `keras.models.load_model` reads these files too; this function adds errors that tell what is
    wrong with a file.

    Args:
        path: A `.keras` file of a model of this library, on this machine.
        kind: What the model must be, such as `MMoE`; `GrowingModel` allows all. Defaults to
            `MPTRec`.

    Returns:
        The model, compiled if it was saved so, with the same weights, tasks and trainable parts.

    Raises:
        ModelError: If the file is missing, broken, or holds something else, or the path is a URI.

    Example:

    ```python
    model = load_model("runs/census/stage1.keras")
    baseline = load_model("runs/mmoe/stage1.keras", MMoE)
    ```
    """
    path = _local(path)
    _config_of(path, kind)
    try:
        return keras.models.load_model(path, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: the model cannot be read: {error}") from error


def saved_tasks(path: str | os.PathLike[str]) -> list[str]:
    """Names of the tasks of a model file, whose weights are not read.

    Args:
        path: A `.keras` file of any model of this library, on this machine.

    Raises:
        ModelError: If the file is missing, broken, or holds something else, or the path is a URI.
    """
    config = _config_of(_local(path), GrowingModel)["config"]
    tasks = [*config["tasks"], *(entry["task"] for entry in config["added"])]
    return [task["name"] for task in tasks]


def _local(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path, unless it is a URI, which `pathlib` would take for a directory of this machine."""
    if "://" in os.fspath(path):
        raise ModelError(
            f"{path}: expected a path on this machine; tf.io.gfile.copy copies a file from or to a "
            "remote file system"
        )
    return pathlib.Path(path)


def _config_of(path: pathlib.Path, kind: type[GrowingModel]) -> dict[str, Any]:
    """What a model file says of its model, which must be of that kind."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ModelError(f"{path}: not a .keras model file, or a broken one: {error}") from error
    config = config if isinstance(config, dict) else {}
    found = keras.saving.get_registered_object(config.get("registered_name"))
    if not isinstance(found, type) or not issubclass(found, kind):
        name = config.get("class_name")
        raise ModelError(f"{path}: holds the model {name!r}, expected {kind.__name__}")
    return config
