"""Version directories: written whole or not at all, one number a writer."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.arguments import check_whole
from mptrec_tf.serving.layout import found_versions, is_version

STAGING = ".staging-"
ABANDONED_AFTER = 24 * 3600.0
"""Age in seconds at which what a crashed writer left is removed."""


def versions(base_path: str | os.PathLike[str]) -> list[int]:
    """The versions that a server would find: child directories whose names are numbers of 64 bits.

    Args:
        base_path: Directory of a model's versions.

    Returns:
        The versions in ascending order; none if the directory is not there.
    """
    base_path = pathlib.Path(base_path)
    return sorted(found_versions(base_path)) if base_path.is_dir() else []


def check_target(base_path: str | os.PathLike[str], version: int | None) -> pathlib.Path:
    """Refuses a base path or a version that could not be published, before any work is done.

    Args:
        base_path: Directory of a model's versions.
        version: The version, or `None` for the next one.

    Returns:
        The base path.

    Raises:
        ServingError: Names what is wrong.
    """
    if "://" in str(base_path):
        raise ServingError(
            f"{base_path}: versions are published by renaming a directory, which remote storage "
            "cannot do at once; export to a local directory and copy the version from there"
        )
    base_path = pathlib.Path(base_path)
    if base_path.exists() and not base_path.is_dir():
        raise ServingError(f"{base_path}: expected a directory of versions, but this is a file")
    if version is not None:
        check_whole("version", version)
        if version in versions(base_path):
            raise ServingError(f"{base_path} already has the version {version}")
    return base_path


def copy_tree(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copies a directory; each of the two may be remote.

    Args:
        source: The directory.
        target: Where to; made if it is not there.
    """
    top = os.fspath(source).rstrip("/")
    for folder, _, files in tf.io.gfile.walk(top):
        there = (os.fspath(target) + folder[len(top) :]).rstrip("/")
        tf.io.gfile.makedirs(there)
        for name in files:
            tf.io.gfile.copy(f"{folder.rstrip('/')}/{name}", f"{there}/{name}", overwrite=True)


@contextlib.contextmanager
def staging(base_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory beside the versions that no server looks into; removed at the end.

    What writers that crashed left a day ago is removed too.

    Args:
        base_path: Directory of a model's versions; made if it is not there.

    Yields:
        The directory.
    """
    base_path.mkdir(parents=True, exist_ok=True)
    for left in base_path.glob(f"{STAGING}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(left, ignore_errors=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix=STAGING, dir=base_path))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish(
    directory: pathlib.Path,
    base_path: pathlib.Path,
    version: int | None,
    finish: Callable[[int], None],
) -> int:
    """Gives a finished directory its version number, by one rename.

    Args:
        directory: A directory within `base_path`, not empty.
        base_path: Directory of the model's versions.
        version: The version, or `None` for the next one; if another writer takes that, the one
            after it.
        finish: Called with the number before the rename, to write what depends on it.

    Returns:
        The version.

    Raises:
        ServingError: If the version is there already, or no server would find the next one.
    """
    while True:
        names = [child.name for child in base_path.iterdir()]
        taken = max((int(name) for name in names if is_version(name)), default=0)
        number = taken + 1 if version is None else version
        check_whole("version", number)
        finish(number)
        _sync(directory)
        try:
            directory.chmod(0o755)
            directory.rename(base_path / str(number))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            if version is not None:
                raise ServingError(f"{base_path} already has the version {version}") from error
            continue
        _sync_directory(base_path)
        return number


def _sync(directory: pathlib.Path) -> None:
    """After a crash of the machine, a version that has its name also has its content."""
    for root, _, files in os.walk(directory):
        for name in files:
            descriptor = os.open(pathlib.Path(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_directory(pathlib.Path(root))


def _sync_directory(directory: pathlib.Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
