"""Stored results as tables of texts."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mptrec_tf.experiments.lines import (
    Come,
    Lines,
    Quality,
    prediction_flops,
    seconds,
    trained_parameters,
    training_flops,
)
from mptrec_tf.experiments.statistics import Difference, Estimate

NONE = "-"
ESCAPED = r"\|"
DIGITS = 5
COSTS = ("MFLOP to train", "MFLOP to predict", "seconds")
IDENTICAL = "0, every bit"
SIGNIFICANT = 0.05


class Table(NamedTuple):
    """A table of texts.

    Attributes:
        header: The columns.
        rows: The rows; the first cell says what a row is of.
    """

    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in Markdown; columns whose cells begin as numbers do are set to the right."""
        columns = zip(*self.rows, strict=True)
        aligned = ["---:" if all(c[:1] in "+-<0123456789" for c in cs) else "---" for cs in columns]
        lines = (self.header, aligned, *self.rows)
        return "\n".join(f"| {' | '.join(c.replace('|', ESCAPED) for c in row)} |" for row in lines)


def together_table(lines: Lines) -> Table:
    """Every variant on the tasks that are trained together."""
    qualities = lines.qualities(lines.old_tasks)
    header = ["variant", "seeds"]
    for quality in qualities:
        header += [quality.name, f"{quality.name}: difference"]
    rows = []
    for name, variant in lines.distinct(()).items():
        row = _begin(lines, name, variant, ())
        for quality in qualities:
            row += _compared(lines, variant, (), quality)
        rows.append(row + _costs(lines, variant, ()))
    return Table([*header, "parameters", *COSTS], rows)


def new_task_table(lines: Lines, come: Come) -> Table:
    """Every variant on a new task: its metric, what became of the old ones, what it cost."""
    new = come[-1]
    header = ["variant", "seeds", new, f"{new}: difference"]
    header += [f"change of {task}" for task in lines.old_tasks]
    rows = []
    for variant in lines.variants:
        if not lines.of(variant, come):
            continue
        row = _begin(lines, variant, variant, come)
        row += _compared(lines, variant, come, lines.quality(new))
        for task in lines.old_tasks:
            found = lines.change(variant, (), come, lines.quality(task).value)
            row.append(_changed(lines.identical(variant, come), found))
        rows.append(row + _costs(lines, variant, come))
    return Table([*header, "parameters trained", *COSTS], rows)


def steps_table(lines: Lines, task: str) -> Table:
    """A task after each step since it is there, in every variant."""
    steps = [come for come in lines.steps if task in (*lines.old_tasks, *come)]
    quality, last = lines.quality(task), steps[-1]
    names = [f"+ {come[-1]}" if come else "at first" for come in steps]
    rows = []
    for variant in lines.variants:
        row = [_named(lines, variant, variant), str(len(lines.furthest(variant, steps)))]
        row += map(spread, lines.along(variant, steps, quality.value))
        if len(steps) > 1:
            same = all(lines.identical(variant, come) for come in steps[1:])
            found = lines.change(variant, steps[0], last, quality.value)
            row.append(_changed(same, found))
        rows.append([*row, compared(lines.difference(variant, last, quality.value))])
    changes = ["change"] if len(steps) > 1 else []
    return Table(["variant", "seeds", *names, *changes, "difference at the end"], rows)


def steps_costs_table(lines: Lines) -> Table:
    """What all steps after the first cost together, in every variant."""
    header = ["variant", *(f"+ {task}" for task in lines.experiment.new_tasks)]
    rows = []
    for variant in lines.variants:
        row = [_named(lines, variant, variant)]
        for come in lines.steps[1:]:
            time = lines.estimate(variant, come, seconds)
            cell = f"{_parameters(lines, variant, come)}, {spread(time, 1)} s"
            row.append(NONE if time is None else cell)
        rows.append(row)
    return Table(header, rows)


def verdict(lines: Lines, come: Come, quality: Quality) -> str:
    """What a table says about a figure, in a sentence or two.

    Args:
        lines: The results.
        come: The new tasks that have come.
        quality: The figure.
    """
    reference = lines.experiment.compared_with
    values, tested = {}, 0
    sides: dict[str, list[str]] = {"better": [], "worse": []}
    for name, variant in lines.distinct(come).items():
        found = lines.values(variant, come, quality.value)
        if not found or lines.other_rows(variant, come):
            continue
        values[name] = found
        against = lines.difference(variant, come, quality.value)
        if against is None or against.p is None:
            continue
        tested += 1
        if against.p < SIGNIFICANT:
            sides["better" if quality.sign * against.found.mean > 0 else "worse"].append(name)
    if len(values) < 2:
        return ""
    text = _best(values, quality)
    listed = [f"{side}: {', '.join(names)}" for side, names in sides.items() if names]
    if listed:
        return f"{text} Against {reference}, with p below {SIGNIFICANT}, {'; '.join(listed)}."
    if tested:
        return f"{text} No difference to {reference} has a p-value below {SIGNIFICANT}."
    return text


def _best(values: Mapping[str, Mapping[int, float]], quality: Quality) -> str:
    """The best of the variants, over the seeds that all of them have."""
    common = set.intersection(*map(set, values.values()))
    if not common:
        return f"No best {quality.metric}: no seed is there of all variants."
    means = {name: np.mean([found[seed] for seed in common]) for name, found in values.items()}
    best = max(means, key=lambda name: quality.sign * means[name])
    over = ""
    if any(len(found) > len(common) for found in values.values()):
        over = f", over the {len(common)} seed{'s' * (len(common) > 1)} that all have"
    return f"Best {quality.metric}{over}: {best}, {means[best]:.{DIGITS}f}."


def spread(found: Estimate | None, digits: int = DIGITS) -> str:
    """Mean and standard deviation as text."""
    if found is None:
        return NONE
    deviation = "" if np.isnan(found.deviation) else f" ± {found.deviation:.{digits}f}"
    return f"{found.mean:.{digits}f}{deviation}"


def signed(found: Estimate | None) -> str:
    """The same of a difference, with its sign."""
    if found is None:
        return NONE
    return spread(found) if found.mean < 0 else f"+{spread(found)}"


def compared(found: Difference | None) -> str:
    """A difference with its p-value, as text."""
    if found is None:
        return NONE
    mean = f"{found.found.mean:+.{DIGITS}f}"
    if found.p is None:
        return mean
    return f"{mean} (p {'< 0.001' if found.p < 0.001 else f'{found.p:.3f}'})"


def _begin(lines: Lines, name: str, variant: str, come: Come) -> list[str]:
    """The first cells of a row: of what, how many seeds."""
    return [_named(lines, name, variant), str(len(lines.of(variant, come)))]


def _changed(identical: bool, found: Estimate | None) -> str:
    """How a figure of the older tasks changed.

    A line of the older model that was trained elsewhere may differ from the model that the new task
    was added to here; then the numbers tell.
    """
    return IDENTICAL if identical and (found is None or not found.mean) else signed(found)


def _compared(lines: Lines, variant: str, come: Come, quality: Quality) -> list[str]:
    """A figure, and how it differs from the reference's."""
    return [
        spread(lines.estimate(variant, come, quality.value)),
        compared(lines.difference(variant, come, quality.value)),
    ]


def _costs(lines: Lines, variant: str, come: Come) -> list[str]:
    """Parameters, operations and time, as text."""
    operations = [
        lines.estimate(variant, come, value) for value in (training_flops, prediction_flops)
    ]
    return [
        _parameters(lines, variant, come),
        *(NONE if found is None else f"{found.mean / 1e6:.3g}" for found in operations),
        spread(lines.estimate(variant, come, seconds), 1),
    ]


def _parameters(lines: Lines, variant: str, come: Come) -> str:
    """Those that were trained, and which share of the model's that is where a task came."""
    found = lines.estimate(variant, come, trained_parameters)
    if found is None:
        return NONE
    if not come:
        return f"{found.mean:,.0f}"
    whole = np.mean([line["parameters"] for line in lines.of(variant, come)])
    return f"{found.mean:,.0f} ({found.mean / whole:.1%})"


def _named(lines: Lines, name: str, variant: str) -> str:
    return f"{name} (reference)" if variant == lines.experiment.compared_with else name
