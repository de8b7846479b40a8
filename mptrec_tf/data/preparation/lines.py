"""Large text files as byte ranges, read in blocks of whole lines, and what to do with bad lines."""

import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mptrec_tf.errors import DataError

RANGE_BYTES = 64 << 20
"""Bytes of a file that one task reads."""

BLOCK_BYTES = 8 << 20
"""Bytes that are in memory at a time."""

SHOWN = 5
"""Bad lines of a task that are told one by one."""

NEWLINE, RETURN = ord("\n"), ord("\r")


class Range(NamedTuple):
    """The lines of a file that begin at `start` or later and before `end`, in bytes."""

    path: str
    start: int
    end: int


class Block(NamedTuple):
    """Some whole lines of a file.

    Attributes:
        text: Their bytes, uint8.
        position: Where in the file they begin.
        starts: Where in `text` each line begins.
        ends: Where it ends, its line break left out.
    """

    text: np.ndarray
    position: int
    starts: np.ndarray
    ends: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        """Where in the file each line begins."""
        return self.starts + self.position


def split_file(path: pathlib.Path) -> list[Range]:
    """The ranges of a file, each for one task.

    Raises:
        DataError: If the file is empty.
    """
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: the file is empty")
    starts = range(0, size, RANGE_BYTES)
    return [Range(str(path), start, min(start + RANGE_BYTES, size)) for start in starts]


def read_blocks(part: Range) -> Iterator[Block]:
    """Reads the lines of a range, in blocks of about `BLOCK_BYTES`.

    A line belongs to the range in which it begins, so that each line of a file belongs to one.
    """
    with pathlib.Path(part.path).open("rb") as file:
        position = part.start
        if position > 0:
            file.seek(position - 1)
            position += len(file.readline()) - 1
        while position < part.end:
            data = file.read(min(BLOCK_BYTES, part.end - position))
            if not data:
                raise DataError(f"{part.path}: the file has become shorter while it was read")
            if data[-1] != NEWLINE:
                data += file.readline()
            yield _block(data, position)
            position += len(data)


def _block(data: bytes, position: int) -> Block:
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == NEWLINE)
    if data[-1] != NEWLINE:  # the last line of the file
        ends = np.append(ends, len(text))
    starts = np.concatenate([[0], ends[:-1] + 1])
    with_return = (ends > starts) & (text[ends - 1] == RETURN)
    return Block(text, position, starts, ends - with_return)


def texts_between(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> pa.StringArray:
    """Pieces of a text.

    Args:
        text: Bytes, uint8.
        starts: Where each piece begins.
        ends: Where it ends.
    """
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    picked = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(text[picked])]
    return pa.StringArray.from_buffers(len(lengths), *buffers[1:])


class BadLines:
    """The bad lines that one task met; more than are allowed are an error.

    Args:
        path: The file.
        allowed: How many may be skipped.

    Attributes:
        count: How many there were.
        told: What is wrong with the first ones, with file and line.
    """

    def __init__(self, path: str, allowed: int) -> None:
        self._path, self._allowed = path, allowed
        self.count, self.told = 0, list[str]()

    def add(self, offsets: np.ndarray, wrong: np.ndarray, reason: Callable[[int], str]) -> None:
        """Notes the lines where `wrong` is true.

        Args:
            offsets: Where in the file each line begins.
            wrong: Which of them are bad.
            reason: What was found in the line of a number, counted as `offsets`, and what was
                expected.

        Raises:
            DataError: If there are now more than allowed.
        """
        for row in np.flatnonzero(wrong):
            self.count += 1
            if len(self.told) < SHOWN or self.count > self._allowed:
                line = line_number(self._path, int(offsets[row]))
                self.told.append(f"{self._path}, line {line}: {reason(int(row))}")
            refuse_bad(self.count, self._allowed, self.told)


def refuse_bad(count: int, allowed: int, told: list[str]) -> None:
    """Refuses more bad lines than are allowed.

    Raises:
        DataError: Tells the bad lines that are known.
    """
    if count > allowed:
        before = f"{count} bad lines, allowed are {allowed}:\n" if allowed else ""
        raise DataError(before + "\n".join(told))


def line_number(path: str, offset: int) -> int:
    """The number, counted from 1, of the line that begins at an offset."""
    number = 1
    with pathlib.Path(path).open("rb") as file:
        while offset > 0:
            data = file.read(min(BLOCK_BYTES, offset))
            number += data.count(b"\n")
            offset -= len(data)
    return number


def good_lines(block: Block, bad: BadLines) -> Block:
    """Leaves out lines that are empty or not UTF-8.

    Raises:
        DataError: If more lines are bad than allowed.
    """
    empty = block.ends == block.starts
    bad.add(block.offsets, empty, lambda _: "the line is empty")
    wrong = empty.copy()
    if block.text.max(initial=0) > 127:
        for row in np.flatnonzero(~empty):
            try:
                block.text[block.starts[row] : block.ends[row]].tobytes().decode()
            except UnicodeDecodeError:
                wrong[row] = True
        bad.add(block.offsets, wrong & ~empty, lambda _: "the line is not UTF-8 text")
    if not wrong.any():
        return block
    return block._replace(starts=block.starts[~wrong], ends=block.ends[~wrong])
