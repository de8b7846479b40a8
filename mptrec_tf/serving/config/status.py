"""What running servers say of the versions that they serve."""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from mptrec_tf.errors import ServingError

ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s/:\[\]]+):\d{1,5}")
AVAILABLE = "AVAILABLE"

INTERVAL = 1.0
"""Seconds between two questions to a server."""

ANSWER = 5.0
"""Seconds after which a question is given up, to be asked again."""


@dataclasses.dataclass(frozen=True)
class Servers:
    """The replicas that read one model config file.

    Args:
        addresses: `host:port` of the gRPC API of each, without TLS.
        timeout: Seconds after which waiting is given up. Defaults to 300.
        report: Called with each change of a server's state. Defaults to nothing being reported.

    Raises:
        ServingError: If there is no address, or one is not of this form.

    Example:

    >>> Servers(["localhost:8500"], report=print).timeout
    300.0
    """

    addresses: Sequence[str]
    timeout: float = 300.0
    report: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        wrong = [address for address in self.addresses if not ADDRESS.fullmatch(address)]
        if wrong or not self.addresses:
            raise ServingError(
                f"servers are given as host:port of their gRPC API. Received: {wrong or 'none'}"
            )

    def wait_until_available(self, model: str, version: int) -> None:
        """Waits until each server has loaded a version, as its `GetModelStatus` says.

        A server that does not answer, does not know the version yet, or failed to load it is
        asked again: it may be starting, not have read its file yet, or try once more.

        Args:
            model: Name of the model.
            version: The version.

        Raises:
            ServingError: When the time is over; with the last state at the server that is late.
        """
        import grpc
        from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

        deadline = time.monotonic() + self.timeout
        for address in self.addresses:
            options = [("grpc.max_reconnect_backoff_ms", 1000)]
            with grpc.insecure_channel(address, options) as channel:
                self._wait(ModelServiceStub(channel), address, model, version, deadline)

    def _wait(self, stub: Any, address: str, model: str, version: int, deadline: float) -> None:
        what, last = f"version {version} of {model!r} at {address}", ""
        while True:
            state, cause = _state(stub, model, version)
            text = f"{state} ({cause})" if cause else state
            if state != last:
                self.report(f"{what}: {text}")
            if state == AVAILABLE:
                return
            if time.monotonic() > deadline:
                raise ServingError(f"{what} is not available after {self.timeout:g} s: {text}")
            last = state
            time.sleep(INTERVAL)


def _state(stub: Any, model: str, version: int) -> tuple[str, str]:
    """The state, or the code of what stands in the way, and the cause."""
    import grpc
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    request.model_spec.version.value = version
    try:
        answer = stub.GetModelStatus(request, timeout=ANSWER).model_version_status[0]
    except grpc.RpcError as error:
        return error.code().name, error.details()
    state = get_model_status_pb2.ModelVersionStatus.State.Name(answer.state)
    return state, answer.status.error_message
