"""How TensorFlow is started: late, and without its chatter."""

import contextlib
import logging
import os
import pathlib
from collections.abc import Iterator

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def start_tensorflow() -> None:
    """Imports TensorFlow, silent unless the user has chosen its log level."""
    # It warns of what no user could change, such as the graphs of many models in one process.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if LOG_LEVEL in os.environ:
        return
    os.environ[LOG_LEVEL] = "3"
    with _no_native_stderr():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _no_native_stderr() -> Iterator[None]:
    """TensorFlow logs a few lines before it reads its log level (tensorflow issue 100442)."""
    stderr = os.dup(2)
    try:
        with pathlib.Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
