"""One run at a time in an output directory."""

import contextlib
import fcntl
import json
import os
import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from mptrec_tf.errors import PipelineError

FILE = "metadata.lock"
ATTEMPTS = 10  # in half a second: whoever only looks holds the lock for a moment


@dataclass(frozen=True)
class Holder:
    """The run that is at work.

    Args:
        pid: Its process.
        stage: Name of its pipeline.
        since: When it began.
    """

    pid: int
    stage: str
    since: datetime


@contextlib.contextmanager
def one_run(directory: str | os.PathLike[str], stage: str) -> Iterator[None]:
    """Refuses a second run in the same output directory while the first one is at work.

    The lock is one of the operating system (`flock`): it vanishes with its process, however that
    ends, and it holds among the processes of one machine.

    Args:
        directory: The output directory; made if it is not there.
        stage: Name of the pipeline, shown to whoever is refused.

    Raises:
        PipelineError: If another run is at work.
    """
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, FILE), "a+") as file:
        for _ in range(ATTEMPTS):
            if _locked(file.fileno(), fcntl.LOCK_EX):
                break
            time.sleep(0.05)
        else:
            other = _read(directory)
            raise PipelineError(
                f"{os.fspath(directory)}: another run is at work: {other.stage}, process "
                f"{other.pid}, since {other.since:%Y-%m-%d %H:%M:%S}; one run at a time"
            )
        file.truncate(0)
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        json.dump({"pid": os.getpid(), "stage": stage, "since": now}, file)
        file.flush()
        yield


def holder(directory: str | os.PathLike[str]) -> Holder | None:
    """The run that is at work in an output directory on this machine, if there is one."""
    path = pathlib.Path(directory, FILE)
    if not path.exists():
        return None
    with path.open() as file:
        return None if _locked(file.fileno(), fcntl.LOCK_SH) else _read(directory)


def _locked(descriptor: int, kind: int) -> bool:
    """Tries to lock a file; closing it unlocks it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(directory: str | os.PathLike[str]) -> Holder:
    for _ in range(ATTEMPTS):
        text = pathlib.Path(directory, FILE).read_text()
        if text.endswith("}"):
            break
        time.sleep(0.05)  # locked, not yet written
    values = json.loads(text)
    return Holder(values["pid"], values["stage"], datetime.fromisoformat(values["since"]))
