"""The plots of a run's report, beside those of `mptrec_tf.evaluation.plots`, as SVG text."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.ticker import MaxNLocator

from mptrec_tf.evaluation.plots import COLORS, GREY, INK, PALE, STYLE, new_axes, to_svg
from pipelines.reporting.metrics import MetricRow
from pipelines.reporting.report_features import shorten

BAD = "#b91c1c"
ROW, WIDE = 0.24, 7.5


class Bar(NamedTuple):
    """A bar.

    Attributes:
        name: What it stands for.
        value: Its length.
        note: A text beside it.
        color: Its color.
    """

    name: str
    value: float
    note: str
    color: str


@mpl.rc_context(STYLE)
def bars(values: Sequence[Bar], label: str, limit: float | None = None) -> str:
    """Horizontal bars, the first at the top.

    Args:
        values: The bars.
        label: What their lengths are.
        limit: Where a dashed line is drawn. Defaults to `None`.
    """
    axes = new_axes("", height=0.7 + ROW * len(values), width=WIDE)
    axes.set_axisbelow(True)
    levels = range(len(values) - 1, -1, -1)
    longest = max([*(bar.value for bar in values), limit or 0.0]) or 1.0
    axes.barh(
        levels, [bar.value for bar in values], color=[bar.color for bar in values], height=0.7
    )
    for level, bar in zip(levels, values, strict=True):
        axes.text(bar.value + longest * 0.015, level, bar.note, va="center", fontsize=8)
    if limit is not None:
        axes.axvline(limit, color=BAD, linestyle="--", linewidth=1)
    axes.set_yticks(levels, [bar.name for bar in values])
    axes.set_ylim(-0.6, len(values) - 0.4)
    axes.set_xlim(0, longest * 1.2)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    return to_svg(axes.figure)


@mpl.rc_context(STYLE)
def dots(title: str, rows: Sequence[MetricRow], color: str) -> str:
    """A metric by slice: a dot with its interval, hollow for the model before.

    Args:
        title: The title.
        rows: The slices, the first at the top; that of all rows goes on as a pale line.
        color: Color of the dots.
    """
    axes = new_axes(title, height=0.95 + 1.3 * ROW * len(rows))
    axes.axvline(rows[0].value, color=PALE, linewidth=3, zorder=0)
    for level, row in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
        ends = row.interval
        if ends is not None:
            axes.plot(ends, [level, level], color=color, linewidth=2, solid_capstyle="butt")
        axes.plot(row.value, level, "o", color=color, label="this model")
        if row.baseline is not None:
            axes.plot(
                row.baseline, level, "D", color=INK, markerfacecolor="none", markersize=7,
                label="model before",
            )  # fmt: skip
    axes.set_yticks(range(len(rows) - 1, -1, -1), [shorten(row.slice) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    labels = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if len(labels) > 1:
        axes.figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=2)
    return to_svg(axes.figure)


STATE_COLORS = {"complete": COLORS[0], "cached": GREY}
"""Of a component's bar; any other state is `BAD`."""
