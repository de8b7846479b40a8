"""A lineage as a picture: from the data at the top to the model at the bottom."""

import os
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from pipelines.reporting.lineage import Lineage, label

COLOURS = ("#cfe2f3", "#fce5cd", "#d9ead3", "#ead1dc", "#fff2cc", "#d0e0e3")
WIDTH, HEIGHT = 2.0, 0.62  # of a box, in inches
COLUMN, ROW, BEND = 2.3, 1.05, 0.3
MARGIN, LINE = 0.3, 0.25
SWEEPS = 12

Node = tuple[str, int]
"""`"execution"` or `"artifact"` and its id; `"bend"` and a number where an arrow passes a row."""


def plot(lineage: Lineage, path: str | os.PathLike[str]) -> None:
    """Draws a lineage.

    Args:
        lineage: The lineage; of older pipelines, only what was used of them is drawn.
        path: Where to; its ending says as what, such as `.svg` or `.png`.
    """
    rows, edges = _arrange(lineage)
    places = _place(rows, edges)
    pipelines = list(dict.fromkeys(e.pipeline for e in reversed(lineage.executions)))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(pipelines)}
    left, right = (f(x for x, _ in places.values()) for f in (min, max))
    top = HEIGHT / 2 + LINE * (len(colours) + 1)
    bottom = -(len(rows) - 1) * ROW - HEIGHT / 2
    width, height = right - left + WIDTH + 2 * MARGIN, top - bottom + 2 * MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(left - WIDTH / 2 - MARGIN, right + WIDTH / 2 + MARGIN)
    axes.set_ylim(bottom - MARGIN, top + MARGIN)
    axes.set_axis_off()
    for start, end in edges:
        _arrow(axes, places, start, end)
    owners = {e.id: e.pipeline for e in lineage.executions}
    for (kind, number), text in _texts(lineage).items():
        if (kind, number) in places:
            x, y = places[kind, number]
            made = kind == "artifact"
            _box(axes, x, y, "white" if made else colours[owners[number]], text, rounded=made)
    for number, (name, colour) in enumerate(colours.items()):
        axes.text(
            left - WIDTH / 2, top - LINE * number, name, fontsize=8, va="center",
            bbox={"facecolor": colour, "edgecolor": "#333333", "lw": 0.5, "pad": 2},
        )  # fmt: skip
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text that can be searched
        figure.savefig(path, dpi=150)


def _arrow(axes: Axes, places: Mapping[Node, tuple[float, float]], start: Node, end: Node) -> None:
    """From the lower edge of a box to the upper edge of one a row below; bends are passed upright.

    Behind the boxes, in whose rows it has a place of its own.
    """
    (x0, y0), (x1, y1) = places[start], places[end]
    last = end[0] != "bend"
    style = {"arrowstyle": "-|>" if last else "-", "color": "#666666", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (x1, y1 + HEIGHT / 2), (x0, y0 - HEIGHT / 2), arrowprops=style, zorder=1)
    if not last:
        axes.plot([x1, x1], [y1 + HEIGHT / 2, y1 - HEIGHT / 2], color="#666666", lw=1, zorder=1)


def _box(axes: Axes, x: float, y: float, colour: str, text: str, *, rounded: bool) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, facecolor=colour, edgecolor="#333333",
            boxstyle="round,pad=0,rounding_size=0.15" if rounded else "square,pad=0", zorder=2,
        )
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", fontsize=7.5, linespacing=1.25, zorder=3)


def _texts(lineage: Lineage) -> dict[Node, str]:
    result = {}
    for execution in lineage.executions:
        seconds = "" if execution.seconds is None else f", {execution.seconds:.1f} s"
        result["execution", execution.id] = (
            f"{execution.component} {execution.id}\n{execution.started:%Y-%m-%d %H:%M}{seconds}"
        )
    for artifact in lineage.artifacts.values():
        facts = {key: artifact.properties.get(key) for key in ("span", "blessed")}
        known = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
        splits = artifact.properties.get("split_names")
        lines = [label(lineage, artifact), known, ", ".join(splits) if splits else ""]
        shortened = [textwrap.shorten(line, 34, placeholder="...") for line in lines if line]
        result["artifact", artifact.id] = "\n".join(shortened)
    return result


def _arrange(lineage: Lineage) -> tuple[list[list[Node]], list[tuple[Node, Node]]]:
    """Rows of nodes, so that every arrow goes from one row to the next."""
    edges: list[tuple[Node, Node]] = []
    used = {a.id for e in lineage.executions for several in e.inputs.values() for a in several}
    used.add(lineage.root.id)
    level: dict[Node, int] = {}
    for execution in lineage.executions:  # whatever one reads was made by an older one
        node: Node = ("execution", execution.id)
        read: list[Node] = [("artifact", a.id) for k in execution.inputs.values() for a in k]
        for source in read:
            level.setdefault(source, 0)
            edges.append((source, node))
        level[node] = max((level[source] + 1 for source in read), default=0)
        for several in execution.outputs.values():
            for artifact in several:
                if artifact.id in used or execution.pipeline == lineage.pipeline:
                    level["artifact", artifact.id] = level[node] + 1
                    edges.append((node, ("artifact", artifact.id)))
    level.setdefault(("artifact", lineage.root.id), 0)
    # What nothing is made from that is higher up moves down to its first reader.
    for node in sorted(level, key=lambda node: -level[node]):
        below = [level[end] for start, end in edges if start == node]
        if below:
            level[node] = min(below) - 1
    level = {node: height - min(level.values()) for node, height in level.items()}
    return _with_bends(level, edges)


def _with_bends(
    level: Mapping[Node, int], edges: Iterable[tuple[Node, Node]]
) -> tuple[list[list[Node]], list[tuple[Node, Node]]]:
    rows: list[list[Node]] = [[] for _ in range(max(level.values()) + 1)]
    for node, height in level.items():
        rows[height].append(node)
    short: list[tuple[Node, Node]] = []
    for start, end in edges:
        before = start
        for height in range(level[start] + 1, level[end]):
            bend: Node = ("bend", len(short))
            rows[height].append(bend)
            short.append((before, bend))
            before = bend
        short.append((before, end))
    return rows, short


def _place(
    rows: list[list[Node]], edges: Iterable[tuple[Node, Node]]
) -> dict[Node, tuple[float, float]]:
    """Orders each row by the middle of the neighbours; every row has its middle at zero."""
    neighbours: dict[Node, list[Node]] = defaultdict(list)
    for start, end in edges:
        neighbours[start].append(end)
        neighbours[end].append(start)
    x = {node: place for row in rows for node, place in zip(row, _spread(row), strict=True)}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            middle = {
                node: sum(x[n] for n in neighbours[node]) / max(len(neighbours[node]), 1)
                for node in row
            }
            row.sort(key=middle.__getitem__)
            x.update(zip(row, _spread(row), strict=True))
    return {node: (x[node], -number * ROW) for number, row in enumerate(rows) for node in row}


def _spread(row: list[Node]) -> list[float]:
    """Places side by side around zero; a passing arrow needs less room than a box."""
    places, at = [], 0.0
    for node in row:
        width = BEND if node[0] == "bend" else COLUMN
        places.append(at + width / 2)
        at += width
    return [place - at / 2 for place in places]
