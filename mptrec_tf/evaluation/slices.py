"""Metrics of parts of the rows, by the values of columns."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mptrec_tf.errors import DataError
from mptrec_tf.evaluation.metrics import Scored


def metrics_by_slice(
    scored: Scored,
    columns: Mapping[str, np.ndarray],
    groups: np.ndarray | None = None,
    most: int = 50,
) -> dict[str, dict[str, float]]:
    """The metrics of the rows of each combination of values, the largest first.

    Args:
        scored: A task's labels and predictions.
        columns: By column, its values, (rows,), as `read_columns` gives them.
        groups: As `Scored.metrics` takes them. Defaults to `None`.
        most: Most slices. Defaults to 50.

    Returns:
        By slice, such as `"sex = Male, race = White"`, as `Scored.metrics` gives them; that of an
        empty cell is `"sex = "`. Slices without a label, or whose rows all weigh nothing, are left
        out.

    Raises:
        DataError: If a column has more or fewer values than there are rows.

    Example:

    ```python
    columns = read_columns("test.parquet", ["sex"])
    metrics_by_slice(score(model, "test.parquet")["income"], columns)["sex = Male"]["auc"]
    ```
    """
    rows = np.flatnonzero(~np.isnan(scored.labels))
    for name, values in columns.items():
        if len(values) != len(scored.labels):
            raise DataError(
                f"the column {name!r} must have a value for each of {len(scored.labels)} rows. "
                f"Received: {len(values)} values"
            )
    frame = pd.DataFrame({name: pd.Series(values).array[rows] for name, values in columns.items()})
    frame = frame.astype(object).where(frame.notna(), "")
    parts = frame.groupby(list(columns), sort=True).indices
    largest = sorted(parts, key=lambda key: len(parts[key]), reverse=True)[:most]
    found = {}
    for key in largest:
        cells = key if isinstance(key, tuple) else (key,)
        name = ", ".join(f"{c} = {cell}" for c, cell in zip(columns, cells, strict=True))
        chosen = rows[parts[key]]
        part = scored._replace(
            labels=scored.labels[chosen],
            predictions=scored.predictions[chosen],
            weights=None if scored.weights is None else scored.weights[chosen],
        )
        if part.weights is None or part.weights.any():
            found[name] = part.metrics(None if groups is None else groups[chosen])
    return found
