"""Where representations have room."""

import os
import pathlib
import shutil
from collections.abc import Iterable

from mptrec_tf.cache.records import record_dtype
from mptrec_tf.cache.representing import RepresentedRows, Representing
from mptrec_tf.data.encoded import EncodedRows

SHARE_OF_MEMORY = 0.25
SHARE_OF_DISK = 0.5
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells the limit of a container, with control groups of version 2 and 1."""


def where_to_cache(
    model: Representing,
    parts: Iterable[EncodedRows],
    directory: str | os.PathLike[str],
    dtype: str | None = None,
) -> str | None:
    """Where the representations of all these rows have room.

    Args:
        model: The model that makes them.
        parts: The rows.
        directory: Where files would be.
        dtype: As in `cache_rows`. Defaults to `None`.

    Returns:
        `"memory"` if they take at most a quarter of it, else `"disk"` if they take at most half of
        what is free there or taken by files of representations already, else `None`.

    Example:

    ```python
    where_to_cache(model, [train, validation], "runs/cache")  # "memory"
    ```
    """
    represented = [RepresentedRows(model, rows, dtype) for rows in parts]
    needed = sum(rows.number * record_dtype(rows.structure).itemsize for rows in represented)
    if needed <= SHARE_OF_MEMORY * _memory():
        return "memory"
    place = pathlib.Path(directory).absolute()
    existing = next(path for path in (place, *place.parents) if path.exists())
    taken = sum(file.stat().st_size for file in place.rglob("*.npy"))
    free = shutil.disk_usage(existing).free
    return "disk" if needed <= SHARE_OF_DISK * (free + taken) else None


def _memory() -> int:
    """Bytes of memory that the machine has, or the container."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(pathlib.Path, MEMORY_LIMITS):
        text = file.read_text().strip() if file.is_file() else ""
        sizes += [int(text)] if text.isdecimal() else []
    return min(sizes)
