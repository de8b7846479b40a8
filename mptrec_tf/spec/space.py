"""What tuning may try for one setting: a range or a choice."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from mptrec_tf.spec.parsing import STRICT


@dataclass(frozen=True, config=STRICT)
class FloatRange:
    """Any number between two.

    Args:
        min: The smallest one.
        max: The largest one.
        log: Whether each factor is tried as often as any other, as suits a learning rate. Defaults
            to `False`: each difference is.

    Raises:
        ValueError: If the range is empty, or logarithmic and not above 0.

    Example:

    >>> FloatRange(1e-4, 1e-2, log=True).extremes
    (0.0001, 0.01)
    """

    min: float
    max: float
    log: bool = False
    kind: Literal["float"] = "float"

    @model_validator(mode="after")
    def _check_range(self) -> "FloatRange":
        _check(self.min, self.max, self.log)
        return self

    @property
    def extremes(self) -> tuple[float, ...]:
        """Values that a setting must allow if it allows all of them."""
        return (self.min, self.max)


@dataclass(frozen=True, config=STRICT)
class IntRange:
    """Any whole number between two, both included.

    Args:
        min: The smallest one.
        max: The largest one.
        log: As for `FloatRange`. Defaults to `False`.

    Raises:
        ValueError: If the range is empty, or logarithmic and not above 0.
    """

    min: int
    max: int
    log: bool = False
    kind: Literal["int"] = "int"

    @model_validator(mode="after")
    def _check_range(self) -> "IntRange":
        _check(self.min, self.max, self.log)
        return self

    @property
    def extremes(self) -> tuple[int, ...]:
        """Values that a setting must allow if it allows all of them."""
        return (self.min, self.max)


@dataclass(frozen=True, config=STRICT)
class Choice:
    """One of several values, which may be lists.

    Args:
        values: Two or more, all different.

    Raises:
        ValueError: If a value is given twice.

    Example:

    >>> Choice([[256, 128], [128, 64]]).extremes
    ([256, 128], [128, 64])
    """

    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=2)]
    kind: Literal["choice"] = "choice"

    @model_validator(mode="after")
    def _check_values(self) -> "Choice":
        if len(set(map(json.dumps, self.values))) < len(self.values):
            raise ValueError(f"values must differ, got {list(self.values)}")
        return self

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that a setting must allow if it allows all of them."""
        return self.values


Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="kind")]
"""What may be tried for one setting; in YAML, `kind` tells which."""


def _check(low: float, high: float, log: bool) -> None:
    if low >= high:
        raise ValueError(f"min must be less than max, got {low} and {high}")
    if log and low <= 0:
        raise ValueError(f"min must be greater than 0 where log is true, got {low}")
