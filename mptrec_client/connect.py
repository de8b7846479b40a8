"""From an address to what speaks to it."""

import os
from typing import Any
from urllib.parse import urlsplit

from mptrec_client.errors import ClientError
from mptrec_client.transport import Connection, Transport

TLS_BY_SCHEME = {"grpc": False, "grpcs": True, "http": False, "https": True}


def connect(address: str, **options: Any) -> Transport:
    """The transport for an address; nothing is sent yet.

    Args:
        address: `grpc://`, `grpcs://`, `http://` or `https://` and a host.
        **options: The arguments of `Connection` that the address does not tell.

    Raises:
        ClientError: If the address is wrong or gRPC is not installed.
    """
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError as error:
        raise ClientError(f"the address is wrong: {error}. Received: {address!r}") from error
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
    if port is None or connection.path:
        raise ClientError(f"a gRPC address is a host and a port. Received: {address!r}")
    try:
        from mptrec_client.grpc_transport import GrpcTransport
    except ImportError as error:
        raise ClientError(
            f"gRPC needs the extra `serving` (pip install 'mptrec-tf[serving]'): {error}"
        ) from error
    return GrpcTransport(connection)
