"""Where downloaded data live: outside the repository."""

import os
import pathlib


def data_directory(name: str) -> pathlib.Path:
    """The directory of one data set: under `MPTREC_DATA`, else under the user's cache.

    Args:
        name: Name of the data set.

    Returns:
        The directory, which may not exist yet.
    """
    root = os.environ.get("MPTREC_DATA")
    if root:
        return pathlib.Path(root).expanduser() / name
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "mptrec_tf" / name
