"""REST, by the standard library alone."""

import contextlib
import http.client
import json
import reprlib
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from mptrec_client.errors import ClientError, server_error
from mptrec_client.rows import Columns, to_array
from mptrec_client.served import COLUMNS, Metadata, ServedModel
from mptrec_client.transport import Connection

CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""By HTTP status, as TensorFlow Serving maps them; 502 comes from proxies."""

PIECE = 1 << 16
"""Bytes of an answer that are read at a time; the deadline is looked at in between."""

IDLE_SECONDS = 30.0
"""Age at which an idle connection is not used again: a proxy may have dropped it without a word."""

BROKEN = (
    ConnectionError,
    http.client.RemoteDisconnected,
    http.client.IncompleteRead,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


class RestTransport:
    """Speaks REST over connections that are kept open, one for each request under way.

    Args:
        connection: How the server is reached.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._context = _context(connection) if connection.tls else None
        self._idle: list[tuple[http.client.HTTPConnection, float]] = []

    def status(self, model: ServedModel, timeout: float) -> Mapping[str, Any]:
        # A label has no status of its own: the server tells that of all versions.
        return self._send("GET", _path(ServedModel(model.name, model.version)), None, timeout)

    def metadata(self, model: ServedModel, timeout: float) -> Mapping[str, Any]:
        return self._send("GET", _path(model) + "/metadata", None, timeout)

    def predict(
        self,
        model: ServedModel,
        columns: Columns,
        tasks: Sequence[str] | None,
        known: Metadata,
        timeout: float,
    ) -> dict[str, np.ndarray]:
        # NaN is written as such, which no JSON is; TensorFlow Serving reads it.
        inputs = {name: to_array(values).tolist() for name, values in columns.items()}
        body = {"signature_name": COLUMNS, "inputs": inputs}
        answer = self._send("POST", _path(model) + ":predict", json.dumps(body), timeout)
        outputs: Any = answer.get("outputs")
        names = list(known.columns.outputs)
        if not isinstance(outputs, dict) and len(names) == 1:  # a lone output comes without a name
            outputs = {names[0]: outputs}
        try:
            return {name: np.array(outputs[name], np.float32) for name in (tasks or outputs)}
        except (KeyError, TypeError, ValueError) as error:
            raise _unusable("no predictions by task", answer) from error

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()

    def _send(self, method: str, path: str, body: str | None, timeout: float) -> dict[str, Any]:
        """Sends a request and reads the answer, which is a JSON object."""
        end = time.monotonic() + timeout
        try:
            status, content = self._exchange(method, path, body, end)
        except TimeoutError as error:
            raise server_error("DEADLINE_EXCEEDED", f"no answer in {timeout:.3g} s") from error
        except BROKEN as error:
            raise server_error("UNAVAILABLE", f"{self._connection.host}: {error}") from error
        except ssl.SSLError as error:
            raise server_error("UNAUTHENTICATED", f"{self._connection.host}: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            raise server_error("UNAVAILABLE", f"{self._connection.host}: {error!r}") from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if status != http.client.OK:
            reason = answer.get("error") if isinstance(answer, dict) else None
            message = reason or f"HTTP status {status}: {reprlib.repr(content)}"
            raise server_error(CODES.get(status, "UNKNOWN"), message)
        if not isinstance(answer, dict):
            raise _unusable("no JSON object", content)
        return answer

    def _exchange(self, method: str, path: str, body: str | None, end: float) -> tuple[int, bytes]:
        while True:
            connection = self._reusable()
            reused = connection is not None
            connection = connection or self._connect(end)
            try:
                return self._exchange_over(connection, method, path, body, end)
            except BROKEN:
                connection.close()
                if not reused:  # else the server had closed it while it was idle
                    raise
            except BaseException:
                connection.close()
                raise

    def _exchange_over(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: str | None,
        end: float,
    ) -> tuple[int, bytes]:
        socket = connection.sock
        socket.settimeout(_seconds_until(end))
        headers = {"Content-Type": "application/json", **self._connection.headers}
        connection.request(method, self._connection.path + path, body, headers)
        response = connection.getresponse()
        pieces = []
        while piece := response.read1(PIECE):
            pieces.append(piece)
            if response.isclosed():  # newer Pythons close with the last byte, the socket too
                break
            socket.settimeout(_seconds_until(end))
        response.close()  # `read1` leaves it open, and an open one forbids the next request
        if response.length:
            raise http.client.IncompleteRead(b"".join(pieces), response.length)
        if response.will_close:
            connection.close()
        else:
            self._idle.append((connection, time.monotonic()))
        return response.status, b"".join(pieces)

    def _reusable(self) -> http.client.HTTPConnection | None:
        """An idle connection, if there is one that is not older than what is between may forget."""
        with contextlib.suppress(IndexError):
            while True:
                connection, since = self._idle.pop()
                if time.monotonic() - since < IDLE_SECONDS:
                    return connection
                connection.close()
        return None

    def _connect(self, end: float) -> http.client.HTTPConnection:
        host, timeout = self._connection.host, _seconds_until(end)
        connection = (
            http.client.HTTPSConnection(host, timeout=timeout, context=self._context)
            if self._context
            else http.client.HTTPConnection(host, timeout=timeout)
        )
        connection.connect()
        return connection


def _context(connection: Connection) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=connection.ca_certificate)
        if connection.client_certificate:
            context.load_cert_chain(*connection.client_certificate)
    except ssl.SSLError as error:
        raise ClientError(f"the certificates cannot be used: {error}") from error
    return context


def _path(model: ServedModel) -> str:
    path = f"/v1/models/{quote(model.name, safe='')}"
    if model.version is not None:
        return f"{path}/versions/{model.version}"
    return f"{path}/labels/{quote(model.label, safe='')}" if model.label else path


def _seconds_until(end: float) -> float:
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _unusable(what: str, answer: Any) -> Exception:
    return server_error("INTERNAL", f"the answer has {what}: {reprlib.repr(answer)}")
