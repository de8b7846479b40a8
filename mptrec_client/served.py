"""What a server tells of a model: its versions and its signatures."""

import contextlib
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mptrec_client.errors import ClientError, server_error

AVAILABLE = "AVAILABLE"
COLUMNS = "columns"
"""The signature that takes raw columns by name."""


@dataclass(frozen=True)
class ServedModel:
    """Which model of a server is asked.

    Args:
        name: Name of the model.
        version: Its version. Defaults to `None`: the one with `label`, or else the latest.
        label: Label of a version, such as `"canary"`. Defaults to `None`.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"model {self.name!r}, version {self.version}"
        return f"model {self.name!r}" + (f", label {self.label!r}" if self.label else "")


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version of a model.

    Args:
        version: The version.
        state: `"START"`, `"LOADING"`, `"AVAILABLE"`, `"UNLOADING"` or `"END"`.
        error: Why it could not be loaded; empty if nothing went wrong.

    Example:

    >>> print(VersionStatus(2, "LOADING"))
    version 2 LOADING
    """

    version: int
    state: str
    error: str = ""

    @property
    def is_available(self) -> bool:
        """Whether the version answers requests."""
        return self.state == AVAILABLE

    def __str__(self) -> str:
        return f"version {self.version} {self.state}" + (f" ({self.error})" if self.error else "")


@dataclass(frozen=True)
class TensorInfo:
    """Type and shape of an input or output.

    Args:
        dtype: Name of the type, such as `"DT_FLOAT"`.
        shape: Sizes, -1 where any size will do; `None` if not even the rank is known.

    Example:

    >>> TensorInfo("DT_FLOAT", (-1, 3)).empty().shape
    (0, 3)
    """

    dtype: str
    shape: tuple[int, ...] | None

    def empty(self) -> np.ndarray:
        """The output for no rows: float32, shape (0, ...)."""
        return np.zeros((0, *(max(0, size) for size in (self.shape or ())[1:])), np.float32)


@dataclass(frozen=True)
class Signature:
    """One way of asking a model.

    Args:
        method: `"tensorflow/serving/predict"`, `".../regress"` or `".../classify"`.
        inputs: The inputs by name.
        outputs: The outputs by name.

    Example:

    ```python
    client.metadata().signatures["income"].method  # "tensorflow/serving/regress"
    ```
    """

    method: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Metadata:
    """What a version of a model takes and gives.

    Args:
        version: The version that answered.
        signatures: Its signatures by name.

    Example:

    ```python
    sorted(client.metadata().columns.inputs)  # the columns that the model takes
    ```
    """

    version: int
    signatures: Mapping[str, Signature]

    @property
    def columns(self) -> Signature:
        """The signature that takes raw columns by name.

        Raises:
            ClientError: If the model has none.
        """
        if COLUMNS not in self.signatures:
            raise ClientError(
                f"version {self.version} has no signature {COLUMNS!r}, as `mptrec serving export` "
                f"writes it; its signatures are {sorted(self.signatures)}"
            )
        return self.signatures[COLUMNS]


def parse_status(answer: Any) -> list[VersionStatus]:
    """Reads the JSON form of a `GetModelStatusResponse`; the newest version comes first.

    Protobuf leaves out fields with the default value when it writes JSON.

    Raises:
        ServerError: If it is something else.
    """
    with _expecting("states of versions", answer):
        versions = [
            VersionStatus(
                int(entry.get("version", 0)),
                entry.get("state", "UNKNOWN"),
                entry.get("status", {}).get("error_message", ""),
            )
            for entry in answer["model_version_status"]
        ]
    return sorted(versions, key=lambda version: -version.version)


def parse_metadata(answer: Any) -> Metadata:
    """Reads the JSON form of a `GetModelMetadataResponse`.

    Raises:
        ServerError: If it is something else.
    """
    with _expecting("signatures", answer):
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        return Metadata(
            int(answer["model_spec"]["version"]),
            {
                name: Signature(
                    signature.get("method_name", ""),
                    _tensors(signature.get("inputs", {})),
                    _tensors(signature.get("outputs", {})),
                )
                for name, signature in sorted(signatures.items())
            },
        )


@contextlib.contextmanager
def _expecting(what: str, answer: Any) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise server_error("INTERNAL", f"no {what} in {reprlib.repr(answer)}") from error


def _tensors(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(info.get("dtype", "DT_INVALID"), _shape(info))
        for name, info in sorted(tensors.items())
    }


def _shape(info: Mapping[str, Any]) -> tuple[int, ...] | None:
    shape = info.get("tensor_shape", {})
    if shape.get("unknown_rank"):
        return None
    return tuple(int(dim.get("size", 0)) for dim in shape.get("dim", []))
