"""The client."""

import functools
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from mptrec_client.connect import connect
from mptrec_client.errors import ClientError, ServerError, server_error
from mptrec_client.retry import Deadline, with_retries
from mptrec_client.rows import did_you_mean, encode_rows, take
from mptrec_client.served import (
    Metadata,
    ServedModel,
    VersionStatus,
    parse_metadata,
    parse_status,
)
from mptrec_client.transport import Transport

STALE = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "INTERNAL")
"""Codes of requests that no longer fit, when a version with other inputs or tasks came up."""

NOT_YET = (*STALE, "NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED")
"""Codes that a model gives which is not there yet, or a label that is not set yet."""

POLL_SECONDS = 0.5


class Client:
    """Asks a TensorFlow Serving server for predictions on raw rows.

    It learns from the server what columns the model takes and which tasks it has; when a new
    version comes up that takes others, it learns anew. It can be used from several threads at a
    time. A process that forks makes its client afterwards.

    Args:
        address: `grpc://host:port`, or with TLS `grpcs://host:port`; `http://host:port`, or with
            TLS `https://host:port`, for REST. REST needs NumPy alone; gRPC is faster, needs the
            extra `serving`, and imports TensorFlow.
        model: Name of the model.
        version: Version that is asked. Defaults to `None`: the one with `label`, or else the
            latest.
        label: Label of the version that is asked, such as `"canary"`. Defaults to `None`.
        timeout: Seconds that a call may last, all its requests and retries together. Defaults to
            10.
        retries: How often a request is sent again while the server is unavailable (no connection,
            or gRPC `UNAVAILABLE`, or HTTP 502 and 503); nothing else is. Defaults to 4.
        batch_size: Rows that are sent in one request; more rows make more requests, one after the
            other. Defaults to 1024.
        separators: By multi-valued column, or one for all, what separates the values of a cell of
            text: the feature's `separator`, which the server does not tell. Defaults to `None`:
            these cells are lists.
        headers: Sent with each request as gRPC metadata or HTTP headers, such as
            `{"authorization": "Bearer ..."}`. Defaults to none.
        ca_certificate: With TLS, the PEM file of the authorities that the server's certificate may
            come from. Defaults to `None`: those that the system trusts.
        client_certificate: With mutual TLS, the PEM files of the client's certificate and of its
            key. Defaults to `None`.
        max_message_bytes: With gRPC, the size of the largest request and answer. Defaults to
            64 MiB.

    Raises:
        ClientError: If the address or another argument is wrong, or gRPC is not installed.

    Example:

    ```python
    with Client("http://localhost:8501", "census", label="stable") as client:
        client.wait_until_available()
        client.predict([{"age": 31, "education": "Masters"}])["income"]  # array([0.27...])
    ```
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 10.0,
        retries: int = 4,
        batch_size: int = 1024,
        separators: Mapping[str, str] | str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_certificate: str | None = None,
        client_certificate: tuple[str, str] | None = None,
        max_message_bytes: int = 64 << 20,
    ) -> None:
        if version is not None and label is not None:
            raise ClientError(f"give version or label, not both. Received: {version}, {label!r}")
        if batch_size < 1:
            raise ClientError(f"batch_size should be at least 1. Received: {batch_size}")
        if "" in (separators.values() if isinstance(separators, Mapping) else [separators]):
            raise ClientError(f"a separator should not be empty. Received: {separators!r}")
        self._address = address
        self._model = ServedModel(model, version, label)
        self._timeout = timeout
        self._retries = retries
        self._batch_size = batch_size
        self._separators = separators
        self._transport: Transport | None = connect(
            address,
            headers=dict(headers or {}),
            ca_certificate=ca_certificate,
            client_certificate=client_certificate,
            max_message_bytes=max_message_bytes,
        )
        self._known: Metadata | None = None

    def predict(
        self, rows: Any, tasks: Sequence[str] | None = None, *, timeout: float | None = None
    ) -> dict[str, np.ndarray]:
        """Predicts rows.

        Each row has every input column of the model; `None`, NaN, pandas' NA and `""` mean a
        missing cell. Cells are read as in training: a category may be a whole number, a number may
        be text, a multi-valued cell is a list, or text with one of the client's `separators`. Other
        columns, such as labels and ids, are not sent.

        With gRPC, asking for some of the tasks spares the server the others' towers
        (MultiInference). The rows then travel as `tf.Example`s, which take longer to build than
        columns: that pays for large models and few rows. With REST the server computes all tasks.

        Args:
            rows: A list with a dict for each row, or a pandas frame.
            tasks: Names of the tasks. Defaults to `None`: all.
            timeout: Seconds that this call may last. Defaults to `None`: the client's.

        Returns:
            For each task, in the order of the rows: float32 (B,), the probability of a binary task
            or the number of a regression task; float32 (B, C), the probabilities of the classes of
            a multiclass task, in the order of the task's classes. When a new version comes up
            during the call, later batches come from that one; pin `version` to prevent it.

        Raises:
            RowError: If rows do not fit the model; names the row, the column and the value.
            ClientError: If the model has no such task.
            DeadlineExceededError: If the call took longer than its timeout.
            ServerError: If the server refused a request or could not be reached.
        """
        deadline = self._deadline(timeout)
        known = self._known or self._learn(deadline)
        try:
            return self._predict(rows, tasks, known, deadline)
        except ClientError as error:
            if isinstance(error, ServerError) and error.code not in STALE:
                raise
            try:
                fresh = self._learn(deadline)
            except ServerError:
                raise error from None
            if fresh == known:
                raise
        return self._predict(rows, tasks, fresh, deadline)

    def metadata(self, *, timeout: float | None = None) -> Metadata:
        """The version that answers now, and its signatures with their inputs and outputs.

        Args:
            timeout: Seconds that this call may last. Defaults to `None`: the client's.

        Raises:
            ServerError: If the version is not available or the server could not be reached.
        """
        return self._learn(self._deadline(timeout))

    def status(self, *, timeout: float | None = None) -> list[VersionStatus]:
        """The states of the version that this client asks, or of all; the newest comes first.

        Args:
            timeout: Seconds that this call may last. Defaults to `None`: the client's.

        Raises:
            NotFoundError: If the server does not know the model or the version.
            ServerError: If the server could not be reached.
        """
        send = functools.partial(self._open.status, self._model)
        return parse_status(with_retries(send, self._deadline(timeout), self._retries))

    def wait_until_available(self, timeout: float = 60.0) -> None:
        """Waits until the version, the label, or else any version answers requests.

        Args:
            timeout: Seconds to wait at most. Defaults to 60.

        Raises:
            DeadlineExceededError: If it is not available by then; tells the last state seen.
            ServerError: If waiting cannot help, as without permission.
        """
        deadline = Deadline(timeout)
        seen = nothing = "nothing"
        while deadline.seconds_left > 0:
            request = Deadline(min(self._timeout, deadline.seconds_left))
            try:
                versions = parse_status(self._open.status(self._model, request.remaining()))
                seen = ", ".join(map(str, versions)) or "no version"
                if any(version.is_available for version in versions):
                    # Tells whether the label is set, and learns what the first call needs.
                    self._learn(request)
                    return
            except ServerError as error:
                if error.code not in NOT_YET:
                    raise
                if seen == nothing or error.code != "DEADLINE_EXCEEDED":
                    seen = str(error)
            time.sleep(max(0.0, min(POLL_SECONDS, deadline.seconds_left)))
        raise server_error(
            "DEADLINE_EXCEEDED",
            f"{self._address}: {self._model} is not available after {timeout:g} seconds; last "
            f"seen: {seen}",
        )

    def close(self) -> None:
        """Closes the connections; the client cannot be used afterwards."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _open(self) -> Transport:
        if self._transport is None:
            raise ClientError("the client is closed")
        return self._transport

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    def _learn(self, deadline: Deadline) -> Metadata:
        send = functools.partial(self._open.metadata, self._model)
        self._known = known = parse_metadata(with_retries(send, deadline, self._retries))
        return known

    def _predict(
        self, rows: Any, tasks: Sequence[str] | None, known: Metadata, deadline: Deadline
    ) -> dict[str, np.ndarray]:
        outputs = known.columns.outputs
        wanted = list(outputs) if tasks is None else list(dict.fromkeys(tasks))
        if not wanted:
            raise ClientError("tasks should name at least one task")
        for task in wanted:
            if task not in outputs:
                raise ClientError(
                    f"{self._model} has no task {task!r}{did_you_mean(task, outputs)}; its tasks "
                    f"are {sorted(outputs)}"
                )
        columns = encode_rows(rows, known.columns.inputs, self._separators)
        if len(rows) == 0:
            return {task: outputs[task].empty() for task in wanted}
        some = wanted if set(wanted) < set(outputs) else None
        parts = []
        for start in range(0, len(rows), self._batch_size):
            batch = take(columns, start, start + self._batch_size)
            send = functools.partial(self._open.predict, self._model, batch, some, known)
            part = with_retries(send, deadline, self._retries)
            _check_answer(part, wanted, min(self._batch_size, len(rows) - start))
            parts.append(part)
        return {task: np.concatenate([part[task] for part in parts]) for task in wanted}


def _check_answer(part: Mapping[str, np.ndarray], tasks: Sequence[str], rows: int) -> None:
    shapes = {task: array.shape for task, array in part.items()}
    if set(shapes) != set(tasks) or any(shape[:1] != (rows,) for shape in shapes.values()):
        raise server_error(
            "INTERNAL",
            f"the answer should have {rows} rows of the tasks {sorted(tasks)}, but its shapes are "
            f"{shapes}",
        )
