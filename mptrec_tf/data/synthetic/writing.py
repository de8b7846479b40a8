"""Files of synthetic rows, written chunk by chunk: memory does not grow with their number."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from mptrec_tf.data.preparation.parts import SYNTHETIC
from mptrec_tf.errors import DataError
from mptrec_tf.files import written_whole

CHUNK_ROWS = 65_536
TRUTH_FILE = f"{SYNTHETIC}truth.json"


def write_lines(
    path: pathlib.Path, rows: int, lines: Callable[[int, int], pa.Array], progress: bool
) -> None:
    """Writes a file that appears under its name when it is complete.

    Args:
        path: The file.
        rows: How many lines it gets.
        lines: Gives the lines from one number up to another, with their line breaks.
        progress: Whether to show a progress bar.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        written_whole(path) as partial,
        partial.open("wb") as file,
        tqdm(
            desc=path.name, total=rows, unit=" rows", unit_scale=True, disable=not progress
        ) as bar,
    ):
        for start in range(0, rows, CHUNK_ROWS):
            end = min(start + CHUNK_ROWS, rows)
            texts = lines(start, end)
            _, offsets, data = texts.buffers()
            used = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
            file.write(memoryview(data)[used[0] : used[1]])
            bar.update(end - start)


def write_truth(directory: pathlib.Path, truth: dict[str, Any]) -> None:
    """Writes what the rows were made of beside them."""
    text = json.dumps({"synthetic": True, **truth}, indent=1)
    (directory / TRUTH_FILE).write_text(text + "\n", encoding="utf-8")


def joined(*pieces: Any) -> pa.Array:
    """Texts put together, row by row; integers become their decimal text."""
    texts = [
        piece if isinstance(piece, str | pa.Array) else pa.array(piece).cast(pa.string())
        for piece in pieces
    ]
    return pc.binary_join_element_wise(*texts, "")


def hexadecimal(*numbers: np.ndarray) -> pa.Array:
    """Uint64 numbers side by side as hexadecimal text."""
    data = np.stack(numbers, axis=1).astype(">u8").view(np.uint8)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.stack([digits[data >> 4], digits[data & 15]], axis=2).reshape(len(data), -1)
    offsets = np.arange(len(data) + 1, dtype=np.int32) * text.shape[1]
    return pa.StringArray.from_buffers(
        len(data), pa.py_buffer(offsets), pa.py_buffer(text.tobytes())
    )


def check_counts(**sizes: int) -> None:
    """Refuses numbers of rows, users or items below 1.

    Raises:
        DataError: Names the size.
    """
    for name, size in sizes.items():
        if size < 1:
            raise DataError(f"{name} is {size}, expected 1 or more")
