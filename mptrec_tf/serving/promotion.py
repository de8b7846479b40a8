"""Moving a label from version to version, without a moment at which it stands for none."""

import os
import re
import time
from collections.abc import Callable, Sequence

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.arguments import check_name
from mptrec_tf.serving.config_files import edit_models, read_models

STABLE = "stable"
"""The label that clients ask for unless they take part in a trial."""

AVAILABLE = "AVAILABLE"
INTERVAL = 1.0
"""Seconds between two questions to a server."""
ANSWER = 5.0
"""Seconds after which a question is given up and asked again."""


def wait_until_available(
    servers: Sequence[str],
    model: str,
    version: int,
    *,
    timeout: float = 300.0,
    report: Callable[[str], None] | None = None,
) -> None:
    """Waits until every server has loaded a version, as `GetModelStatus` says.

    A server that does not answer, knows the version not yet, or failed to load it is asked again:
    it may be starting, not have read its file yet, or try once more.

    Args:
        servers: Addresses `host:port` of the gRPC API, without TLS: all replicas.
        model: Name of the model.
        version: The version.
        timeout: Seconds until it is given up. Defaults to 300.
        report: Called with each change of a server's state. Defaults to `None`.

    Raises:
        ServingError: If an address is none, or at the deadline; with the server's last state.
    """
    check_servers(servers)
    import grpc
    from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub

    deadline = time.monotonic() + timeout
    for server in servers:
        last = None
        with grpc.insecure_channel(server) as channel:
            stub = ModelServiceStub(channel)
            while (state := _state(stub, model, version)) != AVAILABLE:
                if report is not None and state != last:
                    report(f"{model} version {version} at {server}: {state}")
                last = state
                if time.monotonic() > deadline:
                    raise ServingError(
                        f"version {version} of {model!r} is not available at {server} after "
                        f"{timeout:g} s; its state is {state}"
                    )
                time.sleep(INTERVAL)
        if report is not None:
            report(f"{model} version {version} at {server}: {AVAILABLE}")


def promote(
    path: str | os.PathLike[str],
    model: str,
    version: int,
    servers: Sequence[str],
    *,
    label: str = STABLE,
    timeout: float = 300.0,
    report: Callable[[str], None] | None = None,
) -> None:
    """Serves a version beside the others, waits until it is available, moves a label to it.

    The servers must read the file again and again (`--model_config_file_poll_wait_seconds`). The
    versions before are served as long as they are not retired, for a rollback.

    Args:
        path: The model config file.
        model: Name of the model.
        version: The version; one that is served already is not added again.
        servers: As for `wait_until_available`.
        label: The label; made if it is not there. Defaults to `"stable"`.
        timeout: As for `wait_until_available`.
        report: As for `wait_until_available`.

    Raises:
        ServingError: If the file does not allow it; or if the version does not become available,
            the file then serves it and the label has not moved.
    """
    check_name("label", label)
    check_servers(servers)
    with edit_models(path) as models:
        if version not in models.versions(model):
            models.add_version(model, version)
    move_label(path, model, label, version, servers, timeout=timeout, report=report)


def rollback(
    path: str | os.PathLike[str],
    model: str,
    version: int | None = None,
    servers: Sequence[str] = (),
    *,
    label: str = STABLE,
    timeout: float = 300.0,
    report: Callable[[str], None] | None = None,
) -> None:
    """Moves a label back to a version that is still served.

    Args:
        path: The model config file.
        model: Name of the model.
        version: The version. Defaults to `None`: the highest one served below that for which the
            label stands.
        servers: As for `wait_until_available`. Defaults to none: it is not asked whether the
            version is available.
        label: The label. Defaults to `"stable"`.
        timeout: As for `wait_until_available`.
        report: As for `wait_until_available`.

    Raises:
        ServingError: If the file does not allow it, or the version does not become available.
    """
    if version is None:
        try:
            version = read_models(path).version_before(model, label)
        except ServingError as error:
            raise ServingError(f"{path}: {error}") from error
    move_label(path, model, label, version, servers, timeout=timeout, report=report)


def move_label(
    path: str | os.PathLike[str],
    model: str,
    label: str,
    version: int,
    servers: Sequence[str] = (),
    *,
    timeout: float = 300.0,
    report: Callable[[str], None] | None = None,
) -> None:
    """Lets a label stand for a version that is served and, where servers are given, available.

    Args:
        path: The model config file.
        model: Name of the model.
        label: The label; made if it is not there.
        version: The version.
        servers: As for `wait_until_available`. Defaults to none: it is not asked whether the
            version is available.
        timeout: As for `wait_until_available`.
        report: As for `wait_until_available`.

    Raises:
        ServingError: If the file does not allow it, or the version does not become available.
    """
    read_models(path).set_label(model, label, version)
    try:
        wait_until_available(servers, model, version, timeout=timeout, report=report)
    except ServingError as error:
        raise ServingError(f"{error}; the label {label!r} has not been moved") from error
    with edit_models(path) as models:
        models.set_label(model, label, version)


def check_servers(servers: Sequence[str]) -> None:
    """Refuses what is no address `host:port`.

    Args:
        servers: The addresses.

    Raises:
        ServingError: Names the first that is none.
    """
    for server in servers:
        if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s/:\[\]]+):\d{1,5}", server):
            raise ServingError(
                f"a server is given as host:port of its gRPC API. Received: {server!r}"
            )


def _state(stub: object, model: str, version: int) -> str:
    import grpc
    from tensorflow_serving.apis.get_model_status_pb2 import (
        GetModelStatusRequest,
        ModelVersionStatus,
    )

    request = GetModelStatusRequest()
    request.model_spec.name = model
    request.model_spec.version.value = version
    try:
        response = stub.GetModelStatus(request, timeout=ANSWER)
    except grpc.RpcError as error:
        return f"{error.code().name} ({error.details()})"
    status = response.model_version_status[0]
    state = ModelVersionStatus.State.Name(status.state)
    return f"{state} ({status.status.error_message})" if status.status.error_code else state
