"""A client of TensorFlow Serving for models that `mptrec_tf` exported.

A package of its own, because importing `mptrec_tf` imports TensorFlow: a service that asks over
REST needs NumPy alone.
"""

from mptrec_client.client import Client
from mptrec_client.errors import (
    ClientError,
    DeadlineExceededError,
    NotFoundError,
    RowError,
    ServerError,
    UnavailableError,
)
from mptrec_client.served import Metadata, Signature, TensorInfo, VersionStatus

__all__ = [
    "Client",
    "ClientError",
    "DeadlineExceededError",
    "Metadata",
    "NotFoundError",
    "RowError",
    "ServerError",
    "Signature",
    "TensorInfo",
    "UnavailableError",
    "VersionStatus",
]
