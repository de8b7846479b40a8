"""Files that a running server reads again and again: replaced whole, never seen half written."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from mptrec_tf.errors import ServingError
from mptrec_tf.files import taking_turns, written_whole
from mptrec_tf.serving.config.models import ServedModels

HEADER = "# Written by `mptrec serving config`, which keeps no comments but this one.\n"


def read_models(path: str | os.PathLike[str]) -> ServedModels:
    """Reads a model config file.

    Args:
        path: The file.

    Returns:
        The models.

    Raises:
        ServingError: If it cannot be read, or a server would refuse it; names file, line, model.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ServingError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ServingError(f"{path}: {error}") from error
    with naming(path):
        return ServedModels.parse(text)


@contextlib.contextmanager
def edit_models(path: str | os.PathLike[str], create: bool = False) -> Iterator[ServedModels]:
    """The models of a file, which is replaced at the end; after an error it is left as it was.

    Other edits of the same file wait, so that none is lost: a model that a file no longer has is
    unloaded.

    Args:
        path: The file.
        create: Whether the file may be absent and starts empty then. Defaults to `False`.

    Yields:
        The models, to be changed in place.

    Raises:
        ServingError: As `read_models`, or if the file cannot be written.
    """
    path = pathlib.Path(path)
    with _alone_in(path.resolve().parent):
        models = ServedModels() if create and not path.exists() else read_models(path)
        with naming(path):
            yield models
        write_text(path, models.text())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file under a header that names the command; a reader sees the old one or the new.

    A new file has the usual permissions, one that is replaced keeps its own.

    Args:
        path: The file. Where it is a link, the file that it leads to is replaced.
        text: The text protobuf.

    Raises:
        ServingError: If the file cannot be written.
    """
    target = pathlib.Path(path).resolve()
    try:
        with written_whole(target) as partial:
            with partial.open("w", encoding="utf-8") as file:
                file.write(HEADER + text)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                partial.chmod(target.stat().st_mode)
    except OSError as error:
        raise ServingError(f"{path}: cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the name of a file before what is wrong with its content.

    Args:
        path: The file.

    Yields:
        Nothing.
    """
    try:
        yield
    except ServingError as error:
        raise ServingError(f"{path}: {error}") from error


@contextlib.contextmanager
def _alone_in(directory: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a directory: one of the file itself would go with the replaced file."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(taking_turns(directory))
        except OSError as error:
            raise ServingError(f"{directory}: cannot be locked: {error.strerror}") from error
        yield
