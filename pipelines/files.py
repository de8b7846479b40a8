"""Files in remote file systems, for code that reads and writes files of this machine alone."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def local_copy(file: str) -> Iterator[str]:
    """A file on this machine: itself, or a copy of a remote one for as long as it is read.

    Args:
        file: A path, or a URI such as `gs://bucket/rows.csv`.
    """
    if "://" not in file:
        yield file
        return
    with tempfile.TemporaryDirectory() as directory:
        copy = os.path.join(directory, os.path.basename(file))
        tf.io.gfile.copy(file, copy)
        yield copy


@contextlib.contextmanager
def written_locally(file: str) -> Iterator[str]:
    """Where to write a file on this machine: itself, or what is copied to a remote one at the end.

    An error leaves nothing of a remote file behind.

    Args:
        file: A path, or a URI such as `gs://bucket/model.keras`.
    """
    if "://" not in file:
        yield file
        return
    with tempfile.TemporaryDirectory() as directory:
        copy = os.path.join(directory, os.path.basename(file))
        yield copy
        tf.io.gfile.makedirs(os.path.dirname(file))
        tf.io.gfile.copy(copy, file, overwrite=True)
