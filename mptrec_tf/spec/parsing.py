"""From YAML to validated dataclasses; errors name the key, its value and what is allowed."""

import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mptrec_tf.errors import SpecError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""No unknown keys, no coercion of one type into another, no NaN."""

MERGE = "tag:yaml.org,2002:merge"
"""The YAML key `<<`, which may be given twice."""

TIMESTAMP = "tag:yaml.org,2002:timestamp"
FLOAT = "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")

LONGEST = 100
"""Characters of a value that an error shows."""

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice instead of keeping the last one.

    Dates stay texts: they are categories and label values, not points in time. `1e-3` is a number,
    as in YAML 1.2.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise SpecError(
                    f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(FLOAT, EXPONENT, list("-+0123456789"))


class _Dumper(yaml.SafeDumper):
    """Quotes a text that `_Loader` would otherwise read as a number."""


_Dumper.add_implicit_resolver(FLOAT, EXPONENT, list("-+0123456789"))


def load_yaml(path: str | os.PathLike[str]) -> Any:
    """Reads a YAML file without ever constructing anything but plain data.

    Args:
        path: The file.

    Returns:
        The content as dicts, lists, strings and numbers.

    Raises:
        SpecError: If the file is missing, is not YAML, or gives a key twice.
    """
    path = pathlib.Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=_Loader)  # noqa: S506 (a subclass of SafeLoader)
    except FileNotFoundError as error:
        raise SpecError(f"{path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from error
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def parse(cls: type[T], value: Any, where: str) -> T:
    """Validates plain data (as read from YAML or JSON) into a spec dataclass.

    Args:
        cls: The dataclass.
        value: Plain data: dicts, lists, strings, numbers.
        where: What to call the source in an error, such as a file name.

    Returns:
        An instance of `cls`.

    Raises:
        SpecError: If anything does not fit; every problem is listed with its key and value.
    """
    try:
        text = json.dumps(value)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{where}: {error}") from error
    try:
        return TypeAdapter(cls).validate_json(text)
    except ValidationError as error:
        problems = [_describe(problem, value) for problem in error.errors()]
        raise SpecError("\n".join(f"{where}: {problem}" for problem in problems)) from error


def raises_spec_errors(cls: type[T]) -> type[T]:
    """A pydantic dataclass that tells wrong arguments as a `SpecError`, as `parse` does."""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    init = cls.__init__

    @functools.wraps(init)
    def told(self: T, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            given = dict(zip(names, args, strict=False)) | kwargs
            lines = []
            for problem in error.errors():
                where = f"{cls.__name__}: " if problem["loc"] else ""
                lines.append(where + _describe(_by_name(problem, names), given))
            raise SpecError("\n".join(lines)) from error

    cls.__init__ = told  # type: ignore[method-assign, assignment]
    return cls


def _by_name(problem: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """A pydantic problem whose path begins with an argument's name where it had its position."""
    loc = problem["loc"]
    if loc and loc[0] in range(len(names)):
        loc = (names[loc[0]], *loc[1:])
    return {**problem, "loc": loc}


def dump(value: Any) -> Any:
    """The inverse of `parse`: plain data, without what is left at its default."""
    if isinstance(value, str):
        return value
    if dataclasses.is_dataclass(value):
        return {
            field.name: dump(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name == "kind" or getattr(value, field.name) != field.default
        }
    if isinstance(value, Mapping):
        return {key: dump(item) for key, item in value.items()}
    return [dump(item) for item in value] if isinstance(value, tuple) else value


def to_yaml(value: Any) -> str:
    """Plain data as YAML that `load_yaml` reads back the same."""
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=None,
        width=100,
        allow_unicode=True,
    )


def _describe(problem: Mapping[str, Any], value: Any) -> str:
    """One line for one pydantic problem: the key's path, what was expected, what was received."""
    path, current = "", value
    for part in problem["loc"]:
        if isinstance(current, Mapping) and part in current:
            path, current = f"{path}.{part}" if path else str(part), current[part]
        elif isinstance(current, list) and isinstance(part, int) and part < len(current):
            path, current = f"{path}[{part}]", current[part]
            if isinstance(current, Mapping) and "name" in current:
                path += f" ({current['name']})"
        elif problem["type"] == "missing" and part == problem["loc"][-1]:
            path = f"{path}.{part}" if path else str(part)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "unexpected_keyword_argument":
        message = "no such key"
    elif problem["type"] == "missing":
        message = "this key is required"
    elif isinstance(problem["input"], str | float | int | None):
        got = repr(problem["input"])
        message += f", got {got if len(got) <= LONGEST else got[:LONGEST] + '...'}"
    return f"{path}: {message}" if path else message
