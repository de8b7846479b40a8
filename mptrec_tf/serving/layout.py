"""What an exported version consists of: the names of its signatures and files."""

import pathlib
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.arguments import LARGEST
from mptrec_tf.spec.tasks import SIGNATURES

SERVING_DEFAULT, COLUMNS, ENCODED, HEADS = SIGNATURES

EXAMPLES, INPUTS = "examples", "inputs"
"""The one input of `serving_default`, and of the task signatures."""

METHODS = {name: f"tensorflow/serving/{name}" for name in ("predict", "regress", "classify")}
"""The `method_name` of a signature by API; servers with the strict flag require it."""

GRAPH_FILE = "saved_model.pb"
MANIFEST_FILE = "assets.extra/manifest.json"
CASES_FILE = "assets.extra/cases.json"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"

MAX_RECORDS = 1000
"""A server refuses to load a version with more."""


def is_version(name: str) -> bool:
    """Whether a server takes a directory of this name for a version: a whole number of 64 bits."""
    return name.isascii() and name.isdecimal() and int(name) <= LARGEST


def found_versions(base_path: pathlib.Path) -> dict[int, pathlib.Path]:
    """The versions that a server finds; of `7` and `007` the first in the alphabet.

    Args:
        base_path: Directory of a model's versions.

    Returns:
        Directories by version.

    Raises:
        OSError: If the base path cannot be read.
    """
    children = sorted(base_path.iterdir(), reverse=True)
    return {int(c.name): c for c in children if is_version(c.name) and c.is_dir()}


def read_meta_graph(directory: pathlib.Path) -> meta_graph_pb2.MetaGraphDef:
    """The graph that a server loads.

    Args:
        directory: The SavedModel.

    Raises:
        ServingError: If there is no SavedModel, or it is broken, or has no graph to serve.
    """
    file = directory / GRAPH_FILE
    if not file.is_file():
        raise ServingError(f"{directory}: not a SavedModel, it has no {GRAPH_FILE}")
    try:
        saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError as error:
        raise ServingError(f"{file}: broken: {error}") from error
    for meta_graph in saved.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return meta_graph
    raise ServingError(f"{file}: has no graph with the tag 'serve'")


def served_signatures(
    meta_graph: meta_graph_pb2.MetaGraphDef,
) -> dict[str, meta_graph_pb2.SignatureDef]:
    """The signatures that are meant to be called, by name."""
    return {n: d for n, d in meta_graph.signature_def.items() if not n.startswith("__")}


def read_warmup(directory: pathlib.Path) -> list[Any]:
    """The `PredictionLog`s of a version, none if it has no warm-up file.

    Args:
        directory: The SavedModel.

    Raises:
        ServingError: If `tensorflow-serving-api` is not installed.
    """
    file = directory / WARMUP_FILE
    if not file.is_file():
        return []
    log = prediction_log_type()
    return [log.FromString(r) for r in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()]


def prediction_log_type() -> Any:
    """The message type of warm-up requests.

    Raises:
        ServingError: If `tensorflow-serving-api` is not installed.
    """
    try:
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
    except ImportError as error:
        raise ServingError(
            "warm-up requests need the package tensorflow-serving-api: "
            "pip install 'mptrec-tf[serving]'"
        ) from error
    return PredictionLog
