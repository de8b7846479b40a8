"""The trials of a search as a picture."""

import os
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mptrec_tf.evaluation.plots import COLORS, GREY, STYLE, WIDTH
from mptrec_tf.spec.space import Choice
from mptrec_tf.tuning.tuner import StageTuner

COLUMNS = 3
HEIGHT = 2.7


@mpl.rc_context(STYLE)
def plot_trials(tuner: StageTuner, path: str | os.PathLike[str]) -> None:
    """Draws the objective by trial and by each setting, the best trial marked.

    Args:
        tuner: A tuner with at least one trial that succeeded.
        path: The image file; its suffix tells the format, such as `.png`.

    Raises:
        ModelError: If no trial has succeeded yet.

    Example:

    ```python
    tuner = StageTuner(hypermodel, "runs/tune-stage1")
    tuner.search()
    plot_trials(tuner, "runs/tune-stage1/trials.png")
    ```
    """
    best = tuner.best()
    results = [result for result in tuner.results() if result.error is None]
    scores = [result.objective for result in results]
    hypermodel = tuner.hypermodel
    rows = -(-(1 + len(hypermodel.space)) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * WIDTH, rows * HEIGHT), layout="constrained")

    def panel(title: str, x: list[Any], best_x: Any) -> Any:
        axes = figure.add_subplot(rows, COLUMNS, len(figure.axes) + 1)
        axes.set_title(title)
        axes.plot(x, scores, "o", color=COLORS[0], alpha=0.6)
        axes.plot(best_x, best.objective, "o", color=COLORS[2], markersize=9, label="best trial")
        axes.ticklabel_format(axis="y", useOffset=False)
        return axes

    numbers = [result.number for result in results]
    axes = panel(f"{hypermodel.objective.metric} by trial", numbers, best.number)
    so_far = np.maximum if hypermodel.objective.mode == "max" else np.minimum
    axes.step(numbers, so_far.accumulate(scores), color=GREY, where="post", label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    for name, parameter in hypermodel.space.items():
        values = [result.values[name] for result in results]
        if isinstance(parameter, Choice):
            choices = list(parameter.values)
            axes = panel(name, [choices.index(v) for v in values], choices.index(best.values[name]))
            axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
            axes.margins(x=0.2)
        else:
            axes = panel(name, values, best.values[name])
            axes.set_xscale("log" if parameter.log else "linear")
    figure.savefig(path, dpi=120)
