"""The error that a client gets; what stops a server from starting is a `ServingError`."""

import grpc


class RequestError(Exception):
    """A request is answered with an error.

    Args:
        code: Status of gRPC; REST answers with the HTTP status that TensorFlow Serving has for it.
        message: What is wrong with the request.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> RequestError:
    """The error of a request that can never succeed as it is."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)
