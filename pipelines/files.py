"""Files in remote file systems, for code that reads and writes files of this machine alone."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import tensorflow as tf

from mptrec_tf.data.readers import is_hidden


def matching(pattern: str) -> list[str]:
    """The files of a pattern, in sorted order; hidden ones only if it names them.

    Args:
        pattern: Path or glob pattern on this machine or in a remote file system.
    """
    return sorted(file for file in tf.io.gfile.glob(pattern) if not is_hidden(file, pattern))


@contextlib.contextmanager
def local_copy(file: str) -> Iterator[str]:
    """A file on this machine: itself, or a copy of a remote one for as long as it is read.

    Args:
        file: A path, or a URI such as `gs://bucket/rows.csv`.
    """
    with _local_name(file) as local:
        if local != file:
            tf.io.gfile.copy(file, local)
        yield local


@contextlib.contextmanager
def written_locally(file: str) -> Iterator[str]:
    """Where to write a file on this machine: itself, or what is copied to a remote one at the end.

    An error leaves nothing of a remote file behind.

    Args:
        file: A path, or a URI such as `gs://bucket/model.keras`.
    """
    with _local_name(file) as local:
        yield local
        if local != file:
            tf.io.gfile.makedirs(os.path.dirname(file))
            tf.io.gfile.copy(local, file, overwrite=True)


@contextlib.contextmanager
def _local_name(file: str) -> Iterator[str]:
    """A file's own path, or one for a remote file in a directory that is removed at the end."""
    if "://" not in file:
        yield file
        return
    with tempfile.TemporaryDirectory() as directory:
        yield os.path.join(directory, os.path.basename(file))
