"""The pictures of experiments, each as SVG text to put into a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from mptrec_tf.evaluation.plots import COLORS, GREY, INK, STYLE, new_axes, to_svg
from mptrec_tf.experiments.statistics import Estimate

WIDE = 6.4


@mpl.rc_context(STYLE)
def intervals(title: str, estimates: Mapping[str, Estimate], reference: str, label: str) -> str:
    """A point for each seed, a bar from end to end of each mean's interval.

    Args:
        title: The title.
        estimates: By variant.
        reference: The variant at whose mean a line is drawn.
        label: What the numbers are.
    """
    names = list(estimates)[::-1]
    axes = new_axes(title, height=0.9 + 0.3 * len(names), width=WIDE)
    if reference in estimates:
        axes.axvline(estimates[reference].mean, color=GREY, linestyle="--", linewidth=1)
    for level, name in enumerate(names):
        found = estimates[name]
        color = COLORS[0] if name == reference else COLORS[1]
        if not np.isnan(found.low):
            axes.plot([found.low, found.high], [level] * 2, color=color, linewidth=6, alpha=0.3)
        values = list(found.values.values())
        axes.plot(values, [level] * len(values), "o", color=color, markersize=3, alpha=0.7)
        axes.plot(found.mean, level, "|", color=INK, markersize=12, markeredgewidth=2)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(label)
    return to_svg(axes.figure)


@mpl.rc_context(STYLE)
def against(
    title: str, points: Mapping[str, tuple[float, Estimate]], labels: tuple[str, str]
) -> str:
    """A cost (logarithmic) against quality, a numbered point for each variant.

    Args:
        title: The title.
        points: By variant: the cost, the quality.
        labels: What the two are.
    """
    axes = new_axes(title, height=3.4, width=WIDE)
    for (name, (cost, found)), color in zip(points.items(), _many(len(points)), strict=True):
        error = None if np.isnan(found.low) else [[found.mean - found.low]] * 2
        axes.errorbar(
            cost, found.mean, yerr=error, fmt="o", color=color, markersize=6, elinewidth=1,
            label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return to_svg(axes.figure)


@mpl.rc_context(STYLE)
def shares(title: str, weights: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """Parts of a whole, a bar for each task.

    Args:
        title: The title.
        weights: By task: what it takes from each expert.
        names: Names of the experts.
    """
    tasks = list(weights)[::-1]
    axes = new_axes(title, height=1.0 + 0.35 * len(tasks))
    left = np.zeros(len(tasks))
    for k, (name, color) in enumerate(zip(names, _many(len(names)), strict=True)):
        widths = np.array([weights[task][k] for task in tasks])
        bars = axes.barh(tasks, widths, left=left, color=color, alpha=0.75, label=name)
        texts = [f"{width:.2f}" if width > 0.08 else "" for width in widths]
        axes.bar_label(bars, texts, label_type="center", fontsize=8)
        left += widths
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, fontsize=8)
    return to_svg(axes.figure)


@mpl.rc_context(STYLE)
def scatter(title: str, points: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Points of several kinds in a plane whose axes mean nothing.

    Args:
        title: The title.
        points: By kind.
    """
    axes = new_axes(title, height=3.4)
    for name, color in zip(points, _many(len(points)), strict=True):
        x, y = np.array(points[name], float).T
        axes.plot(x, y, ".", color=color, markersize=4, alpha=0.6, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, markerscale=2)
    return to_svg(axes.figure)


@mpl.rc_context(STYLE)
def steps(
    title: str, names: Sequence[str], estimates: Mapping[str, Sequence[Estimate | None]], label: str
) -> str:
    """A figure after each of several steps, a line for each variant.

    Args:
        title: The title.
        names: The steps.
        estimates: By variant, an estimate for each step, `None` where there is none.
        label: What the numbers are.
    """
    axes = new_axes(title)
    for name, color in zip(estimates, _many(len(estimates)), strict=True):
        known = [(k, e) for k, e in enumerate(estimates[name]) if e is not None]
        x = [k for k, _ in known]
        axes.plot(x, [e.mean for _, e in known], "o-", color=color, markersize=4, label=name)
        low, high = ([getattr(e, end) for _, e in known] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_ylabel(label)
    axes.legend(fontsize=8)
    return to_svg(axes.figure)


def _many(count: int) -> list[Any]:
    """Colors that differ, also where there are more than the house has."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    return [mpl.colormaps["tab20"](k % 20) for k in range(count)]
