"""Columns of raw data as texts and numbers, with errors that name the column and the value."""

import difflib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mptrec_tf.errors import DataError

EXACT = 2.0**53
"""Up to here a float64 holds every whole number."""

EXACT_BY_TYPE = {pa.float32(): 2.0**24, pa.float16(): 2.0**11}
"""The same of the smaller types."""


def require_columns(available: Iterable[str], needed: Iterable[str], where: str) -> None:
    """Refuses data that lack a column.

    Raises:
        DataError: Names every missing column, what it may have been meant to be, and the source.
    """
    available = list(available)
    missing = [column for column in dict.fromkeys(needed) if column not in available]
    if not missing:
        return
    hints = []
    for column in missing:
        close = difflib.get_close_matches(column, available, n=1)
        hints.append(f"{column!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    raise DataError(f"{where}: no column {', '.join(hints)}; the columns are {available}")


def as_strings(column: pa.ChunkedArray, name: str, where: str) -> pa.Array:
    """A column as text, null where empty. Whole numbers become their decimal text.

    Raises:
        DataError: If the column holds numbers that are not whole or larger than its type holds
            exactly, or neither text nor numbers.
    """
    array = _plain(column)
    if pa.types.is_decimal(array.type) and array.type.scale == 0:
        return array.cast(pa.string())
    if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        exact = EXACT_BY_TYPE.get(array.type, EXACT)
        array = array.cast(pa.float64())
        array = pc.if_else(pc.is_nan(array), None, array)
        whole = pc.and_(pc.equal(array, pc.trunc(array)), pc.less_equal(pc.abs(array), exact))
        if pc.any(pc.invert(whole)).as_py():
            value = array.filter(pc.invert(whole))[0].as_py()
            large = value.is_integer()
            raise DataError(
                f"{where}: column {name!r} should hold categories (text or whole numbers), "
                f"but has {value!r}"
                + (f", and its type tells whole numbers apart up to {exact:.0f}" if large else "")
            )
        array = array.cast(pa.int64())
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        try:
            return array.cast(pa.string())
        except pa.ArrowInvalid as error:
            raise DataError(f"{where}: column {name!r} has text that is not UTF-8") from error
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if (
        pa.types.is_integer(array.type)
        or pa.types.is_string(array.type)
        or pa.types.is_large_string(array.type)
        or pa.types.is_null(array.type)
    ):
        return array.cast(pa.string())
    raise DataError(
        f"{where}: column {name!r} should hold categories (text or whole numbers), "
        f"but its type is {array.type}"
    )


def as_floats(column: pa.ChunkedArray, name: str, where: str) -> np.ndarray:
    """A column as float64, NaN where empty.

    Raises:
        DataError: If a cell is not a number; names the first such value.
    """
    array = _plain(column)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    try:
        if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
            array = array.cast(pa.large_string())
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            array = pc.utf8_trim_whitespace(array)
            array = pc.if_else(pc.equal(array, ""), None, array)
        numbers = array.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{where}: column {name!r} should hold numbers, but has {_first_text(array)!r}"
        ) from error
    return numbers.to_numpy(zero_copy_only=False)


def decimal_text(number: float) -> str:
    """A number as text that reads back as the same one; a whole number as the id it may be.

    Args:
        number: The number.

    Returns:
        Of a whole number that float64 holds exactly what `as_strings` makes of it, otherwise the
        shortest text that `as_floats` reads as this number.

    Example:

    >>> decimal_text(16777217.0), decimal_text(0.1)
    ('16777217', '0.1')
    """
    return str(int(number)) if number.is_integer() and abs(number) <= EXACT else repr(number)


def is_list(kind: pa.DataType) -> bool:
    """Whether the cells of a column are lists, of whatever kind.

    Args:
        kind: The type of the column.
    """
    return isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType)


def as_lists(column: pa.ChunkedArray, name: str, separator: str, where: str) -> pa.ListArray:
    """A multi-valued column as lists of text; text is split at the separator.

    Raises:
        DataError: If the values are not categories.
    """
    array = _combine(column)
    if is_list(array.type):
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, as_strings(pc.list_flatten(array), name, where))
    texts = as_strings(column, name, where)
    return pc.split_pattern(texts, separator)


def _plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array, without dictionaries and views, which Arrow can do less with."""
    array = _combine(column)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string_view(array.type):
        return array.cast(pa.string())
    return array.cast(pa.binary()) if pa.types.is_binary_view(array.type) else array


def _combine(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _first_text(array: pa.Array) -> object:
    """The first value that is not a number."""
    for scalar in array:
        try:
            scalar.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return scalar.as_py()
    return None
