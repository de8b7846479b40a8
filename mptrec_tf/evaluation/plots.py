"""The report's plots, each as SVG text to put into a page."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mptrec_tf.evaluation.calibration import Reliability

INK, GREY, PALE = "#1f2937", "#9ca3af", "#e5e7eb"
COLORS = ("#2563eb", "#0d9488", "#d97706", "#9333ea", "#dc2626", "#4d7c0f")
STYLE: Any = {
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": PALE,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "mptrec_tf",
    "text.color": INK,
    "text.parse_math": False,  # a name may have two dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
}
WIDTH = 4.2


@mpl.rc_context(STYLE)
def curves(
    title: str,
    epochs: Sequence[Mapping[str, float]],
    best_epoch: int,
    metrics: Sequence[str],
    color: str,
) -> str:
    """Training (dashed) and validation (solid) by epoch, the best epoch marked.

    An epoch whose value is no finite number is left out.

    Args:
        title: The title.
        epochs: Metrics of each epoch; `val_` before the name means validation.
        best_epoch: The epoch that was kept, from 0.
        metrics: Names of the metrics whose sum is shown.
        color: Color of the lines.
    """

    def values(prefix: str) -> list[float]:
        return [sum(epoch[prefix + metric] for metric in metrics) for epoch in epochs]

    axes = new_axes(title)
    numbers = range(1, len(epochs) + 1)
    validation = values("val_")
    training = values("")
    axes.plot(numbers, training, color=color, linestyle="--", linewidth=1.2, label="training")
    axes.plot(numbers, validation, color=color, linewidth=2, label="validation")
    axes.axvline(best_epoch + 1, color=GREY, linewidth=1, zorder=0)
    axes.plot(best_epoch + 1, validation[best_epoch], "o", color=color, label="best epoch, kept")
    # The first epoch's training mean is far off and would flatten all that follows.
    shown = [value for value in validation + (training[1:] or training) if math.isfinite(value)]
    if shown:
        margin = 0.08 * (max(shown) - min(shown)) or 0.01
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return to_svg(axes.figure)


@mpl.rc_context(STYLE)
def distributions(
    title: str,
    histogram: Mapping[str, Any],
    colors: Mapping[str, str],
    label: str,
    equal: float | None = None,
) -> str:
    """One distribution above another, each with its mean.

    Args:
        title: The title.
        histogram: As `mptrec_tf.evaluation.insight.histogram` gives it.
        colors: Color by name.
        label: What the numbers are.
        equal: Where equal weights would be, for a dashed line. Defaults to `None`.
    """
    names = list(histogram["counts"])[::-1]
    axes = new_axes(title, height=0.9 + 0.62 * len(names))
    edges = np.array(histogram["edges"])
    if equal is not None and edges[0] <= equal <= edges[-1]:
        axes.axvline(equal, color=GREY, linestyle="--", linewidth=1)
    for level, name in enumerate(names):
        counts = np.array(histogram["counts"][name], float)
        heights = 0.8 * counts / counts.max()
        axes.stairs(
            level + heights, edges, baseline=level, fill=True, color=colors[name], alpha=0.35
        )
        axes.stairs(level + heights, edges, baseline=level, color=colors[name])
        mean = histogram["means"][name]
        axes.plot([mean, mean], [level, level + 0.8], color=colors[name], linewidth=2)
        axes.annotate(f"{mean:.3f}", (mean, level + 0.82), ha="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, len(names) + 0.15)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    return to_svg(axes.figure)


@mpl.rc_context(STYLE)
def share(title: str, part: int, whole: int, labels: tuple[str, str]) -> str:
    """A part of a whole as one bar.

    Args:
        title: The title.
        part: Size of the part.
        whole: Size of the whole.
        labels: What the part is, what the rest is.
    """
    axes = new_axes(title, height=1.25)
    for start, width, color, label in (
        (0, part, COLORS[2], labels[0]),
        (part, whole - part, PALE, labels[1]),
    ):
        axes.barh(0, width, left=start, color=color, label=f"{label}: {width:,}")
    axes.set_axis_off()
    axes.set_xlim(0, whole)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, handlelength=1)
    return to_svg(axes.figure)


@mpl.rc_context(STYLE)
def reliability(title: str, bins: Reliability, color: str = COLORS[0]) -> str:
    """What came true against what was predicted, a dot for each bin; the diagonal is right.

    Args:
        title: The title.
        bins: The bins.
        color: Color of the dots. Defaults to the first of `COLORS`.
    """
    axes = new_axes(f"{title}: calibration error {bins.error:.4f}", height=3.6)
    highest = 1.05 * max(*bins.predicted, *bins.observed, 1e-6)
    axes.plot([0, highest], [0, highest], color=GREY, linestyle="--", linewidth=1)
    axes.plot(bins.predicted, bins.observed, "o-", color=color, linewidth=1, markersize=4)
    axes.set_xlim(0, highest)
    axes.set_ylim(0, highest)
    axes.set_xlabel("mean prediction of a bin")
    axes.set_ylabel("fraction of positive labels")
    return to_svg(axes.figure)


def new_axes(title: str, height: float = 2.7, width: float = WIDTH) -> Any:
    """The axes of a new figure.

    Args:
        title: The title.
        height: Height in inches. Defaults to 2.7.
        width: Width in inches. Defaults to that of a third of a page.
    """
    axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
    axes.set_title(title)
    axes.ticklabel_format(useOffset=False)
    return axes


def to_svg(figure: Figure) -> str:
    """The figure as an element of an HTML page, without the prolog of an SVG file."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return inline(buffer.getvalue())


def inline(svg: str) -> str:
    """The text of an SVG file as an element of an HTML page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
