r"""The lines of Ali-CCP: columns, then a list of features.

A feature is a field, `\x02`, an id, `\x03` and a value; between features is `\x01`.

A line of the published files holds hundreds of features of which few are wanted. So the lines are
taken apart by the positions of their separators, all lines of a block at a time, and only what is
wanted is copied.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mptrec_tf.data.preparation.lines import BadLines, Block, good_lines, texts_between

COMMA, NEXT, ID, VALUE = ord(","), 1, 2, 3
FOLLOWING = np.array([0, ID, VALUE, NEXT], np.uint8)
"""The mark that comes after another."""

WHOLE = r"^[0-9]{1,18}$"
WIDEST_FIELD = 8
"""Bytes of a field's name, which are compared as one number."""


class Parsed(NamedTuple):
    """What the good lines of a block hold.

    Attributes:
        columns: The columns before the features, as text.
        fields: By field the ids: text, null where a line has none, or lists of text.
        offsets: Where in the file each line begins.
        repeated: How many lines have several ids of a field that is read as one; the last counts.
    """

    columns: dict[str, pa.Array]
    fields: dict[str, pa.Array]
    offsets: np.ndarray
    repeated: dict[str, int]


class _Features(NamedTuple):
    """Where each feature of some lines is: its line, and where its field, id and value begin."""

    row: np.ndarray
    start: np.ndarray
    id_mark: np.ndarray
    value_mark: np.ndarray


def parse_block(
    block: Block,
    columns: Sequence[str],
    single: Sequence[str],
    multivalued: Sequence[str],
    bad: BadLines,
) -> Parsed:
    """Parses and checks some lines.

    Args:
        block: The lines.
        columns: Names of the columns before the features; the last one is the number of features.
        single: Fields of which a line has one id.
        multivalued: Fields of which a line has several.
        bad: Takes the lines that are malformed.

    Returns:
        The rows of the good lines.

    Raises:
        DataError: If more lines are bad than allowed.
    """
    block = good_lines(block, bad)
    block, commas = _columns_of(block, len(columns), bad)
    begins = np.column_stack([block.starts, commas + 1])
    ends = np.column_stack([commas, block.ends])
    texts = {
        name: texts_between(block.text, begins[:, number], ends[:, number])
        for number, name in enumerate(columns)
    }
    features, wrong = _features_of(block, begins[:, -1], texts[columns[-1]], columns[-1], bad)
    kept = pa.array(~wrong)
    names = _names_as_numbers(block.text, features.start, features.id_mark)
    row = (np.cumsum(~wrong) - 1)[features.row]
    rows, repeated, fields = len(wrong) - int(wrong.sum()), {}, {}
    for field in (*single, *multivalued):
        found = np.flatnonzero(names == _as_number(field))
        owners = row[found]
        if field in single:
            last = np.append(owners[1:] != owners[:-1], True)[: len(owners)]
            repeated[field] = len(np.unique(owners[~last]))
            found, owners = found[last], owners[last]
        begin, end = features.id_mark[found] + 1, features.value_mark[found]
        ids = texts_between(block.text, begin, end)
        if field in single:
            index = np.zeros(rows, np.int64)
            absent = np.ones(rows, bool)
            index[owners], absent[owners] = np.arange(len(owners)), False
            fields[field] = ids.take(pa.array(index, mask=absent))
        else:
            bounds = np.searchsorted(owners, np.arange(rows + 1)).astype(np.int32)
            fields[field] = pa.ListArray.from_arrays(pa.array(bounds), ids)
    return Parsed(
        {name: column.filter(kept) for name, column in texts.items()},
        fields,
        block.offsets[~wrong],
        {field: count for field, count in repeated.items() if count},
    )


def _columns_of(block: Block, columns: int, bad: BadLines) -> tuple[Block, np.ndarray]:
    """Lines with as many columns as there should be, and where their commas are."""
    commas = np.flatnonzero(block.text == COMMA)
    first, last = np.searchsorted(commas, block.starts), np.searchsorted(commas, block.ends)
    found = last - first + 1
    wrong = found != columns + 1
    bad.add(
        block.offsets,
        wrong,
        lambda row: f"{found[row]} columns, expected {columns + 1} with commas between them",
    )
    if wrong.any():
        block = block._replace(starts=block.starts[~wrong], ends=block.ends[~wrong])
        first = first[~wrong]
    return block, commas[first[:, None] + np.arange(columns)]


def _features_of(
    block: Block, begins: np.ndarray, counts: pa.Array, name: str, bad: BadLines
) -> tuple[_Features, np.ndarray]:
    """Where the features of the good lines are, and which lines are bad."""
    text = block.text
    marks = np.flatnonzero((text >= NEXT) & (text <= VALUE))
    first, last = np.searchsorted(marks, begins), np.searchsorted(marks, block.ends)
    number, some = last - first, block.ends > begins
    broken = first > np.searchsorted(marks, block.starts)
    broken |= np.where(some, number % 3 != 2, number > 0)
    if number.sum() < len(marks):  # there are some outside of the features
        before = np.cumsum(number) - number
        marks = marks[np.arange(number.sum()) + np.repeat(first - before, number)]
    kind = text[marks]
    expected = FOLLOWING[np.concatenate([kind[:1], kind[:-1]])]
    expected[(np.cumsum(number) - number)[number > 0]] = ID
    misplaced = np.flatnonzero(kind != expected)
    broken[np.searchsorted(np.cumsum(number), misplaced, side="right")] = True
    if broken.any():  # from here on only lines whose marks come in the right order
        sound = ~np.repeat(broken, number)
        marks, kind = marks[sound], kind[sound]
    id_mark, value_mark, next_mark = (marks[kind == mark] for mark in (ID, VALUE, NEXT))
    features = np.where(some & ~broken, number // 3 + 1, 0)
    lines = np.flatnonzero(features)
    owner = np.repeat(np.arange(len(number)), features)
    is_first, is_last = np.zeros(len(owner), bool), np.zeros(len(owner), bool)
    is_first[(np.cumsum(features) - features)[lines]] = True
    is_last[(np.cumsum(features) - 1)[lines]] = True
    start, end = np.empty_like(id_mark), np.empty_like(id_mark)
    start[is_first], start[~is_first] = begins[lines], next_mark + 1
    end[is_last], end[~is_last] = block.ends[lines], next_mark
    hollow = (start == id_mark) | (id_mark + 1 == value_mark) | (value_mark + 1 == end)
    broken[owner[hollow]] = True
    bad.add(
        block.offsets,
        broken,
        lambda line: (
            "the features are not a list of field \\x02 id \\x03 value with \\x01 between "
            f"them: {_shown(text[begins[line] : block.ends[line]])}"
        ),
    )
    wrong = broken | _miscounted(block, counts, name, features, broken, bad)
    found = _Features(owner, start, id_mark, value_mark)
    if wrong.any():
        good = ~wrong[owner]
        found = _Features(*(array[good] for array in found))
    return found, wrong


def _miscounted(
    block: Block, counts: pa.Array, name: str, found: np.ndarray, broken: np.ndarray, bad: BadLines
) -> np.ndarray:
    """Lines that say another number of features than they have: most likely cut off."""
    whole = pc.match_substring_regex(counts, WHOLE)
    told = pc.if_else(whole, counts, "-1").cast(pa.int64()).to_numpy()
    wrong = ~broken & (told != found)
    bad.add(
        block.offsets,
        wrong,
        lambda row: f"{name} is {counts[row].as_py()!r}, but there are {found[row]} features",
    )
    return wrong


def _names_as_numbers(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Texts of at most 8 bytes as one number each; longer ones as 0."""
    lengths = ends - starts
    numbers = np.zeros(len(starts), np.uint64)
    for place in range(min(int(lengths.max(initial=0)), WIDEST_FIELD)):
        within = lengths > place
        letter = text[np.minimum(starts + place, len(text) - 1)].astype(np.uint64)
        numbers = np.where(within, numbers << np.uint64(8) | letter, numbers)
    return np.where(lengths > WIDEST_FIELD, np.uint64(0), numbers)


def _as_number(name: str) -> np.uint64:
    return np.uint64(int.from_bytes(name.encode(), "big"))


def _shown(data: np.ndarray) -> str:
    text = data[:80].tobytes().decode(errors="replace")
    return repr(text) + ("..." if len(data) > 80 else "")
