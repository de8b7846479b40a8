"""What a client needs of gRPC or REST."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from mptrec_client.errors import ClientError
from mptrec_client.rows import Columns
from mptrec_client.served import Metadata, ServedModel

TLS_BY_SCHEME = {"grpc": False, "grpcs": True, "http": False, "https": True}


@dataclass(frozen=True)
class Connection:
    """How a server is reached.

    Args:
        host: Host and port.
        tls: Whether the connection is encrypted.
        path: What comes before `/v1` in the addresses of REST.
        headers: Sent with each request: HTTP headers or gRPC metadata.
        ca_certificate: PEM file of the authorities that the server's certificate may come from;
            `None` means those that the system trusts.
        client_certificate: PEM files of the client's certificate and its key, if it has one.
        max_message_bytes: Size of the largest message of gRPC.
    """

    host: str
    tls: bool
    path: str
    headers: Mapping[str, str]
    ca_certificate: str | None
    client_certificate: tuple[str, str] | None
    max_message_bytes: int


class Transport(Protocol):
    """Sends one request at a time; safe to use from several threads.

    Each method raises `ServerError`, and takes the seconds after which it gives up.
    """

    def status(self, model: ServedModel, timeout: float) -> Mapping[str, Any]:
        """The JSON form of a `GetModelStatusResponse`."""

    def metadata(self, model: ServedModel, timeout: float) -> Mapping[str, Any]:
        """The JSON form of a `GetModelMetadataResponse`."""

    def predict(
        self,
        model: ServedModel,
        columns: Columns,
        tasks: Sequence[str] | None,
        known: Metadata,
        timeout: float,
    ) -> dict[str, np.ndarray]:
        """The predictions by task, of some tasks or (`None`) of all that the answer has."""

    def close(self) -> None:
        """Closes the connections."""


def connect(address: str, **options: Any) -> Transport:
    """The transport for an address; nothing is sent yet.

    Args:
        address: `grpc://`, `grpcs://`, `http://` or `https://` and a host.
        **options: The arguments of `Connection` that the address does not tell.

    Raises:
        ClientError: If the address is wrong or gRPC is not installed.
    """
    url = urlsplit(address)
    if url.scheme not in TLS_BY_SCHEME or not url.hostname:
        raise ClientError(
            f"the address should be like grpc://host:8500 or http://host:8501, with TLS grpcs:// "
            f"or https://. Received: {address!r}"
        )
    tls = TLS_BY_SCHEME[url.scheme]
    if not tls and (options["ca_certificate"] or options["client_certificate"]):
        raise ClientError(f"certificates need {url.scheme}s://. Received: {address!r}")
    for path in (options["ca_certificate"], *(options["client_certificate"] or ())):
        if path and not os.access(path, os.R_OK):
            raise ClientError(f"{path}: no such file, or not readable")
    connection = Connection(url.netloc, tls, url.path.rstrip("/"), **options)
    if url.scheme.startswith("http"):
        from mptrec_client.rest_transport import RestTransport

        return RestTransport(connection)
    if url.port is None or connection.path:
        raise ClientError(f"a gRPC address is a host and a port. Received: {address!r}")
    try:
        from mptrec_client.grpc_transport import GrpcTransport
    except ImportError as error:
        raise ClientError(
            f"gRPC needs the extra `serving` (pip install 'mptrec-tf[serving]'): {error}"
        ) from error
    return GrpcTransport(connection)
