"""The versions of one model: which there are, which are wanted, and the state of each."""

import contextlib
import dataclasses
import pathlib
from typing import Any

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus as State
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from mptrec_tf.serving.arguments import LARGEST
from mptrec_tf.serving.local.servable import Servable


@dataclasses.dataclass
class Version:
    """What is known of a version.

    Args:
        state: As in GetModelStatus.
        servable: The loaded version, while it is available. Defaults to `None`.
        error: Code and message of a failure. Defaults to none.
        fingerprint: Files of a version that failed: it is tried again when they change.
    """

    state: int = State.START
    servable: Servable | None = None
    error: tuple[int, str] = (0, "")
    fingerprint: Any = None

    def status(self, number: int) -> State:
        """The answer to GetModelStatus."""
        code, message = self.error
        status = State(version=number, state=self.state)
        status.status.error_code = code
        status.status.error_message = message
        return status


def wanted_versions(model: ModelConfig) -> dict[int, pathlib.Path]:
    """The versions that a model's policy chooses of those on disk.

    Args:
        model: Base path and policy.

    Returns:
        Directories by version, the latest first.

    Raises:
        OSError: If the base path cannot be read.
    """
    found = sorted(_found_versions(pathlib.Path(model.base_path)).items(), reverse=True)
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            chosen = found
        case "specific":
            chosen = [
                (number, path) for number, path in found if number in policy.specific.versions
            ]
        case _:
            chosen = found[: max(policy.latest.num_versions, 1)]
    return dict(chosen)


def fingerprint(path: pathlib.Path) -> frozenset[tuple[str, int, int]]:
    """Name, size and time of change of all files of a version."""
    files = set()
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            files.add((str(file), stat.st_size, stat.st_mtime_ns))
    return frozenset(files)


def _found_versions(base_path: pathlib.Path) -> dict[int, pathlib.Path]:
    """Directories whose name is an integer; of `7` and `007` the first in the alphabet."""
    return {
        int(path.name): path
        for path in sorted(base_path.iterdir(), reverse=True)
        if path.name.isascii()
        and path.name.isdigit()
        and int(path.name) <= LARGEST
        and path.is_dir()
    }
