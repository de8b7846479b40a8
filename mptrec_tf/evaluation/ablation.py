"""The stored results of an ablation, summed up."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Mean and sample standard deviation over seeds; the deviation of one seed is NaN."""

    mean: float
    deviation: float


class Form(NamedTuple):
    """One form of the ablated part.

    Attributes:
        name: Its name.
        validation: The AUC by task.
        test: The same on test.
        mean_validation: Mean over tasks and seeds on validation, by which a form is chosen.
    """

    name: str
    validation: dict[str, Spread]
    test: dict[str, Spread]
    mean_validation: float


def summarize(ablation: Mapping[str, Any]) -> list[Form]:
    """Each form of an ablation over its seeds, the best on validation first.

    Args:
        ablation: `"forms"`: by name, `"validation"` and `"test"`: by task, a number for each seed.

    Returns:
        The forms.
    """
    forms = [
        Form(
            name,
            {task: _spread(aucs) for task, aucs in parts["validation"].items()},
            {task: _spread(aucs) for task, aucs in parts["test"].items()},
            float(np.mean(list(parts["validation"].values()))),
        )
        for name, parts in ablation["forms"].items()
    ]
    return sorted(forms, key=lambda form: -form.mean_validation)


def _spread(values: list[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(np.mean(values)), deviation)
