"""What a client raises."""


class ClientError(Exception):
    """Base of every error of this package."""


class RowError(ClientError, ValueError):
    """Rows that the model cannot take; raised before any of them is sent.

    The message names the row (counted from 0), the column and the value.
    """


class ServerError(ClientError):
    """The server refused a request, could not be reached, or gave an unusable answer.

    Args:
        message: What the server said.
        code: Name of a gRPC status code, such as `"INVALID_ARGUMENT"`. An HTTP status is told by
            the code that TensorFlow Serving maps to it.
    """

    retryable = False
    """Whether the same request may succeed when it is sent again."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class UnavailableError(ServerError):
    """No connection, or a server that is starting, overloaded or going away."""

    retryable = True


class DeadlineExceededError(ServerError):
    """A call took longer than its timeout."""


class NotFoundError(ServerError):
    """The server has no such model or version."""


_BY_CODE = {
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "NOT_FOUND": NotFoundError,
    "UNAVAILABLE": UnavailableError,
}


def server_error(code: str, message: str) -> ServerError:
    """The error of the class that belongs to a status code."""
    return _BY_CODE.get(code, ServerError)(f"{code}: {message}", code)
