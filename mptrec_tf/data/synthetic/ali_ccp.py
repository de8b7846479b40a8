"""Synthetic rows in the raw format of Ali-CCP."""

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mptrec_tf.data.ali_ccp.fields import (
    CROSSED_FIELDS,
    FILES,
    HISTORY_FIELDS,
    INTENTION_FIELD,
    ITEM_FIELDS,
    SCENARIO_FIELD,
    USER_FIELDS,
)
from mptrec_tf.data.preparation.parts import SYNTHETIC
from mptrec_tf.data.synthetic.truth import CALIBRATION_ROWS, Truth, Zipf, mixed, rates_of
from mptrec_tf.data.synthetic.writing import (
    check_counts,
    hexadecimal,
    joined,
    write_lines,
    write_truth,
)

RATES = {"click": 0.04, "conversion": 0.05, "scenario": 0.4}
USER_VALUES = (98, 14, 3, 8, 4, 4, 3, 5)
"""How many values the fields of a user have, from 121 to 129."""

STRENGTHS = pa.array(["0.6931", "1.0986", "1.3863", "2.3979"])
INTENTIONS = 3


class _World(NamedTuple):
    """What there is: how many users and items, and values of each field."""

    seed: int
    users: int
    items: int
    history: float

    def size(self, field: str) -> int:
        """How many values a field has."""
        listed = (*self._kinds, self._kinds[0])
        sizes = {
            "101": self.users,
            **dict(zip(USER_FIELDS[1:], USER_VALUES, strict=True)),
            **dict(zip(ITEM_FIELDS, (self.items, *self._kinds), strict=True)),
            **dict(zip(HISTORY_FIELDS, listed, strict=True)),
            INTENTION_FIELD: listed[0],
            **dict(zip(CROSSED_FIELDS, (20 * size for size in listed), strict=True)),
        }
        return sizes[field]

    @property
    def _kinds(self) -> tuple[int, int, int]:
        """Categories, shops, brands."""
        return max(self.items // 100, 10), max(self.items // 10, 10), max(self.items // 20, 10)

    def attribute(self, field: str, number: int, *of: np.ndarray) -> np.ndarray:
        """The value of a field that follows from other ids."""
        found = mixed(self.seed, 11, *field.encode(), number, *of)
        return (found % np.uint64(self.size(field))).astype(np.int64)

    def user(self, users: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of users."""
        fields = {field: self.attribute(field, 0, users) for field in USER_FIELDS[1:]}
        return {"101": users, **fields}

    def item(self, items: np.ndarray) -> dict[str, np.ndarray]:
        """The fields of items."""
        return {"205": items} | {f: self.attribute(f, 0, items) for f in ITEM_FIELDS[1:]}

    def crossed(
        self, user: Mapping[str, np.ndarray], item: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The fields that combine a user's group with a category, shop or brand."""
        of = ("206", "207", "216", "206")
        return {
            field: self.attribute(field, 0, user["122"], item[other])
            for field, other in zip(CROSSED_FIELDS, of, strict=True)
        }

    def features(self, users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        """All fields with one id that a label depends on: not the user as such."""
        user, item = self.user(users), self.item(items)
        found = {**user, **item, **self.crossed(user, item)}
        del found["101"]
        return found

    def common_index(self, users: np.ndarray) -> pa.Array:
        """The common index of users."""
        return hexadecimal(mixed(self.seed, 12, users), mixed(self.seed, 13, users))

    def ids(self, field: str, values: np.ndarray) -> np.ndarray:
        """Values of a field as ids that no other field has."""
        order = (*USER_FIELDS, *HISTORY_FIELDS, *ITEM_FIELDS, INTENTION_FIELD, *CROSSED_FIELDS)
        return 1 + sum(self.size(before) for before in order[: order.index(field)]) + values


def generate_ali_ccp(
    output: str | os.PathLike[str],
    rows: int,
    *,
    test_rows: int | None = None,
    seed: int = 0,
    users: int | None = None,
    items: int | None = None,
    history: float = 5.0,
    zipf: float = 1.1,
    correlation: float = 0.5,
    signal: float = 1.0,
    rates: Mapping[str, float] | None = None,
    progress: bool = True,
) -> list[pathlib.Path]:
    """Writes synthetic files in the raw format of Ali-CCP, and the truth behind them.

    Args:
        output: Directory that gets the four files, `synthetic_` before their published names, and
            `synthetic_truth.json`.
        rows: How many rows for training.
        test_rows: How many in the test file. Defaults to `None`: a tenth of `rows`.
        seed: Decides everything. Defaults to 0.
        users: Different users, each with one line of common features. Defaults to `None`: one for
            60 rows, as published, at least 100.
        items: Different items. Defaults to `None`: one for 10 rows, at least 100.
        history: Mean length of each of a user's four lists of what was done before. Defaults to
            5.0; the published ones are many times longer.
        zipf: Exponent of the frequencies of users and items. Defaults to 1.1.
        correlation: Of the logits of any two tasks: 1 makes all signal shared, 0 all of it
            specific. Defaults to 0.5.
        signal: Standard deviation of a logit over the rows. Defaults to 1.0.
        rates: Share of clicks among the rows, of conversions among the clicks, and of rows whose
            `scenario` (field 301) is not 2. Defaults to 0.04, 0.05 and 0.4.
        progress: Whether to show progress bars. Defaults to `True`.

    Returns:
        The four files.

    Raises:
        DataError: If an argument cannot be.

    Example:

    ```python
    generate_ali_ccp("synthetic-ali-ccp", rows=100_000)
    ```
    """
    users = max(100, rows // 60) if users is None else users
    items = max(100, rows // 10) if items is None else items
    test_rows = max(1, rows // 10) if test_rows is None else test_rows
    check_counts(rows=rows, test_rows=test_rows, users=users, items=items)
    shares = rates_of(RATES, rates)
    world = _World(seed, users, items, history)
    of_users, of_items = Zipf(users, zipf), Zipf(items, zipf)
    rng = np.random.default_rng([seed, 0])
    drawn = of_users.draw(rng, CALIBRATION_ROWS), of_items.draw(rng, CALIBRATION_ROWS)
    sample = world.features(*drawn)
    truth = Truth.of(
        sample,
        seed=seed,
        rates=shares,
        after={"conversion": "click"},
        correlation=correlation,
        signal=signal,
    )

    def samples(part: int, start: int, end: int) -> pa.Array:
        rng = np.random.default_rng([seed, 2, part, start])
        count = end - start
        drawn = of_users.draw(rng, count), of_items.draw(rng, count)
        return _sample_lines(world, truth, part * rows + start + 1, drawn, rng)

    directory = pathlib.Path(output)
    paths = []
    for part, (name, count) in enumerate((("train", rows), ("test", test_rows))):
        path = directory / (SYNTHETIC + FILES[f"{name}_common"])
        write_lines(path, users, functools.partial(_common_lines, world), progress)
        paths.append(path)
        path = directory / (SYNTHETIC + FILES[f"{name}_samples"])
        write_lines(path, count, functools.partial(samples, part), progress)
        paths.append(path)
    sizes = {"rows": rows, "test_rows": test_rows, "users": users, "items": items}
    arguments = {**sizes, "zipf": zipf, "history": history, "seed": seed}
    write_truth(directory, {**arguments, "rates": shares, **truth.describe(sample)})
    return paths


def _sample_lines(
    world: _World,
    truth: Truth,
    first: int,
    drawn: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> pa.Array:
    """Lines of the sample skeleton."""
    users, items = drawn
    count = len(users)
    columns = world.features(users, items)
    labels = truth.labels(columns, rng)
    scenario = np.where(labels["scenario"] == 1, 1 + 2 * rng.integers(0, 2, count), 2)
    many = 1 + (mixed(world.seed, 14, items) % np.uint64(INTENTIONS)).astype(np.int64)
    pieces = [np.arange(first, first + count), ",", labels["click"], ",", labels["conversion"], ","]
    features = len(ITEM_FIELDS) + len(CROSSED_FIELDS) + 1 + many
    pieces += [world.common_index(users), ",", features, ","]
    for field in ITEM_FIELDS:
        pieces += [f"{field}\x02", world.ids(field, columns[field]), "\x031.0\x01"]
    pieces += [_intentions(world, items, many), "\x01"]
    for field in CROSSED_FIELDS:
        strength = STRENGTHS.take(pa.array(columns[field] % len(STRENGTHS)))
        pieces += [f"{field}\x02", world.ids(field, columns[field]), "\x03", strength, "\x01"]
    return joined(*pieces, f"{SCENARIO_FIELD}\x02", scenario, "\x031.0\n")


def _intentions(world: _World, items: np.ndarray, many: np.ndarray) -> pa.Array:
    """The list of an item's intentions."""
    owner = np.repeat(items, many)
    place = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    values = world.attribute(INTENTION_FIELD, 1, owner, place)
    return _listed(INTENTION_FIELD, world.ids(INTENTION_FIELD, values), many)


def _common_lines(world: _World, start: int, end: int) -> pa.Array:
    """Lines of the common features."""
    users = np.arange(start, end)
    columns = world.user(users)
    rng = np.random.default_rng([world.seed, 3, start])
    counts = [1 + rng.poisson(max(world.history - 1, 0), len(users)) for _ in HISTORY_FIELDS]
    pieces = [world.common_index(users), ",", len(USER_FIELDS) + np.sum(counts, axis=0), ","]
    for field in USER_FIELDS:
        pieces += [f"{field}\x02", world.ids(field, columns[field]), "\x031.0\x01"]
    for field, many in zip(HISTORY_FIELDS, counts, strict=True):
        values = rng.integers(0, world.size(field), many.sum())
        pieces += [_listed(field, world.ids(field, values), many), "\x01"]
    return joined(*pieces[:-1], "\n")


def _listed(field: str, ids: np.ndarray, many: np.ndarray) -> pa.Array:
    """Lists of several features of one field as text."""
    strength = STRENGTHS.take(pa.array(ids % len(STRENGTHS)))
    tokens = joined(f"{field}\x02", ids, "\x03", strength)
    offsets = np.concatenate([[0], np.cumsum(many)]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), tokens), "\x01")
