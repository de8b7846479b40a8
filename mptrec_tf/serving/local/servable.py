"""One version of a model in memory."""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable, Iterable, Mapping

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.framework import ops

from mptrec_tf.serving.local.errors import RequestError
from mptrec_tf.serving.local.tensors import TensorSpec, specs

_CACHED_CALLABLES = 64
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature of a SavedModel.

    Args:
        definition: As the SavedModel has it.
        inputs: By alias, in alphabetical order.
        outputs: Likewise.
    """

    definition: meta_graph_pb2.SignatureDef
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


class Servable:
    """A loaded version: a session, its signatures, and a count of who uses it.

    Args:
        name: Name of the model.
        version: Its version.
        path: Directory of the SavedModel, tag `serve`.

    Raises:
        OSError, ValueError, tensorflow.errors.OpError: If it cannot be loaded.

    Example:

    ```python
    servable = Servable("census", 3, pathlib.Path("/models/census/3"))
    scores = servable.run({"examples:0": examples}, ["click:0"])["click:0"]
    servable.retire()
    ```
    """

    def __init__(self, name: str, version: int, path: pathlib.Path):
        self.name = name
        self.version = version
        self._callable = functools.lru_cache(_CACHED_CALLABLES)(self._make_callable)
        self._lock = threading.Lock()
        self._users = 0
        self._on_closed: Callable[[], None] | None = None
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                loaded = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(path))
        except BaseException:
            self._session.close()
            raise
        self.signatures = {
            key: Signature(definition, specs(definition.inputs), specs(definition.outputs))
            for key, definition in loaded.signature_def.items()
        }

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Iterable[str]) -> dict[str, np.ndarray]:
        """Runs the graph once.

        Args:
            feeds: Arrays by the names of the tensors that they stand for.
            fetches: Names of tensors.

        Returns:
            The fetched arrays by name.

        Raises:
            RequestError: With the status that TensorFlow gives.
        """
        names = tuple(sorted(set(fetches)))
        try:
            arrays = self._callable(tuple(feeds), names)(*feeds.values())
        except tf.errors.OpError as error:
            raise RequestError(_STATUS[error.error_code], error.message) from error
        return dict(zip(names, arrays, strict=True))

    def acquire(self) -> None:
        """Counts one more user."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Counts one user less; the last one of a retired version closes it."""
        with self._lock:
            self._users -= 1
            last = self._users == 0 and self._on_closed is not None
        if last:
            self._close()

    def retire(self, on_closed: Callable[[], None] = lambda: None) -> None:
        """Closes the version as soon as nobody uses it; nobody may acquire it any more.

        Args:
            on_closed: Called when it is closed. Defaults to nothing.
        """
        with self._lock:
            self._on_closed = on_closed
            idle = self._users == 0
        if idle:
            self._close()

    def _close(self) -> None:
        """Frees the memory now; a full garbage collection comes late, or stops all requests."""
        graph = self._session.graph
        self._session.close()
        del self._callable, self._session
        ops.dismantle_graph(graph)
        if self._on_closed:
            self._on_closed()

    def _make_callable(
        self, feeds: tuple[str, ...], fetches: tuple[str, ...]
    ) -> Callable[..., list[np.ndarray]]:
        """Half the time of `Session.run`, which looks all names up again in each call."""
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        return self._session._make_callable_from_options(options)
