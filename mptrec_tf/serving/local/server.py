"""The local server: TensorFlow Serving's APIs in this process, for notebooks and tests."""

import logging
import pathlib
import threading
from types import TracebackType
from typing import Any

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.local.config import read_config, single_model
from mptrec_tf.serving.local.core import Core
from mptrec_tf.serving.local.errors import RequestError
from mptrec_tf.serving.local.grpc_api import start_grpc
from mptrec_tf.serving.local.manager import Manager
from mptrec_tf.serving.local.rest_api import RestApi
from mptrec_tf.serving.local.rest_server import RestServer

LOGGER = logging.getLogger(__name__)


class LocalServer:
    """Serves exported models over gRPC and REST as TensorFlow Serving does.

    It is for notebooks and tests. Production is TensorFlow Serving: the same exports, the same
    configuration file, the same requests, but C++, batching and far more load.

    A version that appears in the base path is loaded before the older one goes; requests go on
    being answered.

    Args:
        base_path: Directory whose children with integer names are versions. Defaults to `None`:
            `config_file` is given.
        name: Name of the model. Defaults to `None`: the last part of `base_path`.
        config_file: `ModelServerConfig` in protobuf's text format, read again when it changes,
            instead of `base_path`. Defaults to `None`.
        host: Address to listen on. Defaults to `"127.0.0.1"`: this machine only. There is neither
            encryption nor authentication.
        grpc_port: Defaults to `0`: any that is free.
        rest_port: Likewise.
        poll_seconds: Time between two looks at the disk. Defaults to `1.0`.
        max_request_bytes: Size above which requests are refused. Defaults to 64 MiB.
        threads: Requests that each transport answers at the same time. Defaults to `8`.

    Raises:
        ServingError: If the name cannot be served or the configuration is wrong.

    Example:

    ```python
    with LocalServer("models/census") as server:
        requests.post(f"{server.rest_url}/v1/models/census:predict", json={"instances": rows})
        channel = grpc.insecure_channel(server.grpc_address)
    ```
    """

    def __init__(
        self,
        base_path: str | pathlib.Path | None = None,
        *,
        name: str | None = None,
        config_file: str | pathlib.Path | None = None,
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        rest_port: int = 0,
        poll_seconds: float = 1.0,
        max_request_bytes: int = 64 << 20,
        threads: int = 8,
    ):
        if (base_path is None) == (config_file is None):
            raise ServingError("give either base_path or config_file")
        if config_file is not None:
            if name is not None:
                raise ServingError("name goes with base_path; a config_file has the names itself")
            self._config_file: pathlib.Path | None = pathlib.Path(config_file)
            self._config = read_config(self._config_file)
        else:
            base_path = pathlib.Path(str(base_path)).absolute()
            self._config_file = None
            self._config = single_model(base_path.name if name is None else name, base_path)
        self.host = host
        self._ports = (grpc_port, rest_port)
        self._poll_seconds = poll_seconds
        self._limits: dict[str, Any] = {"threads": threads, "max_request_bytes": max_request_bytes}
        self._stopping = threading.Event()

    @property
    def grpc_address(self) -> str:
        """`host:port` of gRPC; once started."""
        return f"{self._address}:{self._grpc_port}"

    @property
    def rest_url(self) -> str:
        """`http://host:port` of REST; once started."""
        return f"http://{self._address}:{self._rest.port}"

    @property
    def versions(self) -> dict[str, list[int]]:
        """The versions that are served now, by model; once started."""
        return {name: model.available() for name, model in self._core.manager.models.items()}

    def start(self) -> "LocalServer":
        """Loads the models and listens.

        Returns:
            Itself.

        Raises:
            ServingError: If a model has no version that can be loaded, or a port is in use.
        """
        manager = Manager(self._config)
        self._core = Core(manager)
        self._config_stamp = self._stamp()
        self._refused: str | None = None
        try:
            self._require_versions()
            self._rest = RestServer(RestApi(self._core), self.host, self._ports[1], **self._limits)
            try:
                self._grpc, self._grpc_port = start_grpc(
                    self._core, self.host, self._ports[0], **self._limits
                )
            except ServingError:
                self._rest.stop(grace=0)
                raise
        except ServingError:
            manager.close()
            raise
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()
        return self

    def stop(self, grace: float = 10.0) -> None:
        """Accepts no more requests, answers those under way, and unloads the models; once.

        Args:
            grace: Seconds that requests under way have. Defaults to `10.0`.
        """
        if self._stopping.is_set():
            return
        self._stopping.set()
        stopped = self._grpc.stop(grace)
        self._rest.stop(grace)
        stopped.wait()
        self._watcher.join()
        self._core.manager.close()

    def __enter__(self) -> "LocalServer":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _address(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def _require_versions(self) -> None:
        for name, model in self._core.manager.models.items():
            if model.available():
                continue
            base_path = pathlib.Path(model.config.base_path)
            reasons = [
                f"{number}: {status.status.error_message}"
                for number, status in model.statuses().items()
            ] or ["no directory there has an integer name"]
            if not base_path.is_dir():
                reasons = ["there is no such directory"]
            raise ServingError(
                f"model {name}: no version in {base_path} can be served: {'; '.join(reasons)}"
            )

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self._core.manager.poll()
                self._reread_config()
            except Exception:  # the server goes on with what it has
                LOGGER.exception("looking for new versions failed")

    def _reread_config(self) -> None:
        stamp = self._stamp()
        if not self._config_file or stamp == self._config_stamp:
            return
        try:
            self._core.manager.reload(read_config(self._config_file))
        except (ServingError, RequestError) as error:
            # It is tried again, as by TensorFlow Serving: a label's version may still arrive.
            if str(error) != self._refused:
                LOGGER.warning("the configuration is not taken: %s", error)
            self._refused = str(error)
        else:
            self._config_stamp, self._refused = stamp, None

    def _stamp(self) -> tuple[int, int] | None:
        """What changes when the configuration file does."""
        try:
            stat = self._config_file.stat() if self._config_file else None
        except OSError:
            stat = None
        return (stat.st_mtime_ns, stat.st_ino) if stat else None
