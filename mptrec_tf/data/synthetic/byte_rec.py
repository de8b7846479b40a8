"""Synthetic rows in the raw format of Byte-Rec."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from mptrec_tf.data.byte_rec import COLUMNS, FEATURES, FILE
from mptrec_tf.data.preparation.parts import SYNTHETIC
from mptrec_tf.data.synthetic.truth import CALIBRATION_ROWS, Truth, Zipf, mixed, rates_of
from mptrec_tf.data.synthetic.writing import check_counts, joined, write_lines, write_truth

RATES = {"finish": 0.4, "like": 0.05, "long": 0.5}
CITIES, CHANNELS = 400, 5
FIRST_SECOND = 53_000_000_000


def generate_byte_rec(
    output: str | os.PathLike[str],
    rows: int,
    *,
    seed: int = 0,
    users: int | None = None,
    items: int | None = None,
    zipf: float = 1.1,
    correlation: float = 0.5,
    signal: float = 1.0,
    rates: Mapping[str, float] | None = None,
    progress: bool = True,
) -> list[pathlib.Path]:
    """Writes synthetic rows in the raw format of Byte-Rec, and the truth behind them.

    Args:
        output: Directory that gets `synthetic_final_track2_train.txt` and `synthetic_truth.json`.
        rows: How many rows.
        seed: Decides everything. Defaults to 0.
        users: Different users. Defaults to `None`: one for 250 rows, at least 100.
        items: Different items. Defaults to `None`: one for 5 rows, at least 100.
        zipf: Exponent of the frequencies of users and items. Defaults to 1.1.
        correlation: Of the logits of any two tasks: 1 makes all signal shared, 0 all of it
            specific. Defaults to 0.5.
        signal: Standard deviation of a logit over the rows. Defaults to 1.0.
        rates: Share of rows that finish, like, and are `long` (over 10 s). Defaults to 0.4, 0.05
            and 0.5.
        progress: Whether to show a progress bar. Defaults to `True`.

    Returns:
        The file with the rows, alone in a list.

    Raises:
        DataError: If an argument cannot be.

    Example:

    ```python
    generate_byte_rec("synthetic-byte-rec", rows=100_000)
    ```
    """
    users = max(100, rows // 250) if users is None else users
    items = max(100, rows // 5) if items is None else items
    check_counts(rows=rows, users=users, items=items)
    shares = rates_of(RATES, rates)
    of_users, of_items = Zipf(users, zipf), Zipf(items, zipf)

    def ids(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        return _ids(of_users.draw(rng, count), of_items.draw(rng, count), users, items, seed, rng)

    sample = ids(np.random.default_rng([seed, 0]), CALIBRATION_ROWS)
    truth = Truth.of(
        sample, seed=seed, rates=shares, after={}, correlation=correlation, signal=signal
    )

    def lines(start: int, end: int) -> pa.Array:
        rng = np.random.default_rng([seed, 2, start])
        columns = ids(rng, end - start)
        labels = truth.labels(columns, rng)
        columns |= {"finish": labels["finish"], "like": labels["like"]}
        columns["time"] = FIRST_SECOND + np.arange(start, end)
        columns["duration_time"] = np.where(
            labels["long"] == 1, rng.integers(11, 60, end - start), rng.integers(1, 11, end - start)
        )
        pieces = [piece for name in COLUMNS for piece in (columns[name], "\t")]
        return joined(*pieces[:-1], "\n")

    directory = pathlib.Path(output)
    path = directory / (SYNTHETIC + FILE)
    write_lines(path, rows, lines, progress)
    arguments = {"rows": rows, "users": users, "items": items, "zipf": zipf, "seed": seed}
    write_truth(directory, {**arguments, "rates": shares, **truth.describe(sample)})
    return [path]


def _ids(
    users: np.ndarray,
    items: np.ndarray,
    user_count: int,
    item_count: int,
    seed: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """What a row holds of its user and item; a tenth of the cities and music are unknown, -1."""

    def attribute(number: int, of: np.ndarray, size: int) -> np.ndarray:
        return (mixed(seed, 7, number, of) % np.uint64(max(size, 1))).astype(np.int64)

    authors = attribute(0, items, item_count // 5)
    columns = {
        "uid": users,
        "user_city": attribute(1, users, CITIES),
        "item_id": items,
        "author_id": authors,
        "item_city": attribute(2, authors, CITIES),
        "channel": rng.integers(0, CHANNELS, len(users)),
        "music_id": attribute(3, items, item_count // 40),
        "device": attribute(4, users, user_count),
    }
    for number, name in enumerate(("item_city", "music_id")):
        columns[name] = np.where(attribute(5 + number, items, 10) == 0, -1, columns[name])
    return {name: columns[name] for name in FEATURES}
