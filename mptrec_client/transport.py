"""What a client needs of gRPC or REST."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mptrec_client.rows import Columns
from mptrec_client.served import Metadata, ServedModel


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
