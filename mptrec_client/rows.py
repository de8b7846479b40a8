"""Raw rows as the columns that a model takes, cell by cell as in training."""

import decimal
import difflib
import functools
import math
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from mptrec_client.errors import ClientError, RowError
from mptrec_client.served import TensorInfo

Columns: TypeAlias = dict[str, np.ndarray | list[str] | list[list[str]]]
"""By name: float32 (B,) numbers, NaN where missing; B texts, "" where missing; B lists of texts."""

T = TypeVar("T")

EXACT = 2.0**53
"""Up to here a float holds every whole number."""

PANDAS_MISSING = ("NAType", "NaTType")
"""Known by name, so that pandas need not be imported."""


def encode_rows(
    rows: Any, inputs: Mapping[str, TensorInfo], separators: Mapping[str, str] | str | None = None
) -> Columns:
    """Makes columns of rows, with the rules by which training reads raw data.

    Every row has every input column. `None`, NaN, pandas' NA and the empty text are missing cells.
    What is not an input, such as a label or an id, is left out.

    - A number may be text; it must be finite. A Boolean is 1 or 0.
    - A category is text or a whole number, which becomes its decimal text (a float as well: pandas
      makes floats of integers when cells are missing; or a `Decimal`); `True` becomes `"1"`.
    - A multi-valued cell is a list of categories, or text if its column has a separator.

    Args:
        rows: A list of dicts by column, or a pandas frame.
        inputs: What the model takes.
        separators: By multi-valued column, or one for all, what separates the values of text.
            Defaults to `None`: text is refused.

    Raises:
        RowError: Names the row, the column and the value that do not fit.
        ClientError: If the model has an input that is none of these three.

    Example:

    >>> encode_rows([{"age": 31, "city": None}], {"city": TensorInfo("DT_STRING", (-1,))})
    {'city': ['']}
    """
    cells = _cells(rows, list(inputs))
    by_column = separators if isinstance(separators, Mapping) else dict.fromkeys(inputs, separators)
    return {
        name: _encoder(name, info, by_column.get(name))(name, cells[name])
        for name, info in inputs.items()
    }


def take(columns: Columns, start: int, stop: int) -> Columns:
    """Some of the rows."""
    return {name: values[start:stop] for name, values in columns.items()}


def to_array(values: np.ndarray | list[str] | list[list[str]]) -> np.ndarray:
    """A column as the array that is sent: lists become as long as the longest, at least 1, by `""`.

    Args:
        values: A column of `encode_rows`.

    Returns:
        float32 (B,), or objects of type `str`, (B,) or (B, n).
    """
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values[0], list):
        return np.array(values, object)
    width = max(1, *map(len, values))
    return np.array([texts + [""] * (width - len(texts)) for texts in values], object)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at a name that is much alike, or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _cells(rows: Any, names: list[str]) -> Mapping[str, Any]:
    """The cells of each input column."""
    pandas = sys.modules.get("pandas")
    if pandas and isinstance(rows, pandas.DataFrame):
        return _cells_of_frame(rows, names)
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Sequence):
        raise RowError(
            "rows should be a list with a dict for each row, or a pandas frame, but are a "
            f"{type(rows).__name__}"
        )
    needed = set(names)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RowError(f"row {number} should be a dict, but is {reprlib.repr(row)}")
        if not row.keys() >= needed:
            _refuse_missing(f"row {number}", names, row)
    return {name: [row[name] for row in rows] for name in names}


def _cells_of_frame(frame: Any, names: list[str]) -> dict[str, Any]:
    available = list(map(str, frame.columns))
    _refuse_missing("the frame", names, available)
    cells: dict[str, Any] = {}
    for name in names:
        if available.count(name) > 1:
            raise RowError(f"the frame has the column {name!r} twice")
        column = frame.iloc[:, available.index(name)]
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
            cells[name] = column.to_numpy()
        else:
            cells[name] = column.astype(object).tolist()
    return cells


def _refuse_missing(where: str, names: list[str], available: Iterable[Any]) -> None:
    available = list(map(str, available))
    missing = [f"{n!r}{did_you_mean(n, available)}" for n in names if n not in available]
    if missing:
        raise RowError(f"{where} has no column {', '.join(missing)}; it has {available}")


def _encoder(name: str, info: TensorInfo, separator: str | None) -> Callable[[str, Any], Any]:
    match info.dtype, info.shape:
        case "DT_FLOAT", (_,):
            return _numbers
        case "DT_STRING", (_,):
            return _texts
        case "DT_STRING", (_, _):
            return functools.partial(_lists, separator)
    raise ClientError(
        f"the model's input {name!r} is {info.dtype} with the shape {info.shape}; a column of "
        "numbers, texts or lists of texts was expected"
    )


def _numbers(name: str, cells: Any) -> np.ndarray:
    if not isinstance(cells, np.ndarray):
        cells = _convert(name, cells, _number, "numbers")
    with np.errstate(over="ignore"):
        numbers = np.asarray(cells, np.float64).astype(np.float32)
    infinite = np.flatnonzero(np.isinf(numbers))
    if infinite.size:
        row = infinite[0]
        raise RowError(
            f"row {row}: column {name!r} should hold finite numbers within the range of float32, "
            f"but has {float(cells[row])!r}"
        )
    return numbers


def _texts(name: str, cells: Any) -> list[str]:
    return _convert(name, cells, _text, "categories (text or whole numbers)")


def _lists(separator: str | None, name: str, cells: Any) -> list[list[str]]:
    expected = "lists of categories, or text"
    if separator is None:
        expected += f" if the client is given separators={{{name!r}: ...}}"
    return _convert(name, cells, functools.partial(_list, separator), expected)


def _convert(name: str, cells: Any, convert: Callable[[Any], T], expected: str) -> list[T]:
    values = []
    for row, cell in enumerate(cells.tolist() if isinstance(cells, np.ndarray) else cells):
        try:
            values.append(convert(cell))
        except (TypeError, ValueError, OverflowError):
            raise RowError(
                f"row {row}: column {name!r} should hold {expected}, but has {reprlib.repr(cell)}"
            ) from None
    return values


def _number(cell: Any) -> float:
    if _is_missing(cell):
        return np.nan
    if isinstance(cell, bytes):
        cell = cell.decode()
    if isinstance(cell, str):
        cell = cell.strip()
        # `float` would also take "1_000" and digits of other scripts, which training refuses.
        if "_" in cell or not cell.isascii():
            raise ValueError
        return float(cell) if cell else np.nan
    if isinstance(cell, int | float | np.number | np.bool_ | decimal.Decimal):
        return float(cell)
    raise TypeError


def _text(cell: Any) -> str:
    if isinstance(cell, str):
        cell.encode()  # refuses halves of surrogate pairs, which cannot be sent
        return str(cell)
    if _is_missing(cell):
        return ""
    if isinstance(cell, bytes):
        return cell.decode()
    if isinstance(cell, int | np.integer | np.bool_):
        return str(int(cell))
    if isinstance(cell, float | np.floating) and abs(float(cell)) <= EXACT and cell == int(cell):
        return str(int(cell))
    if isinstance(cell, decimal.Decimal) and cell == int(cell):
        return str(int(cell))
    raise TypeError


def _list(separator: str | None, cell: Any) -> list[str]:
    if isinstance(cell, list | tuple | np.ndarray):
        return [_text(value) for value in cell]
    if _is_missing(cell) or cell == "":
        return []
    if separator is None:
        raise TypeError
    return _text(cell).split(separator)


def _is_missing(cell: Any) -> bool:
    if cell is None or type(cell).__name__ in PANDAS_MISSING:
        return True
    return isinstance(cell, float | np.floating | decimal.Decimal) and math.isnan(cell)
