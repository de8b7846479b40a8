"""Stored results as tables: means over seeds, intervals, paired tests."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mptrec_tf.experiments.config import Experiment
from mptrec_tf.experiments.store import Line

CONFIDENCE = 0.95
NONE = "-"
COMPARED = ("95 % interval", "p")
"""Columns beside each figure that variants are compared by."""

Value = Callable[[Line], float | None]
"""A figure of a line, `None` where it has none."""


class Estimate(NamedTuple):
    """A figure over seeds.

    Attributes:
        values: By seed.
        mean: Their mean.
        deviation: Their sample standard deviation; NaN of one seed.
        low: Where the mean's 95 % interval by Student's t begins; NaN of one seed.
        high: Where it ends.
    """

    values: dict[int, float]
    mean: float
    deviation: float
    low: float
    high: float


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
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.header, aligned, *self.rows))


def estimate(values: Mapping[int, float]) -> Estimate:
    """Mean, standard deviation and interval of a figure over seeds.

    Args:
        values: By seed.

    Example:

    >>> estimate({0: 1.0, 1: 2.0, 2: 3.0})[1:3]
    (2.0, 1.0)
    """
    numbers = np.array(list(values.values()), float)
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return Estimate(dict(values), mean, *[float("nan")] * 3)
    deviation = float(numbers.std(ddof=1))
    error = deviation / np.sqrt(len(numbers))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1) * error)
    return Estimate(dict(values), mean, deviation, mean - half, mean + half)


def paired_p(values: Mapping[int, float], reference: Mapping[int, float]) -> float | None:
    """The p-value of Student's paired t-test over the seeds that both have.

    Args:
        values: By seed.
        reference: The same of what it is compared with.

    Returns:
        The two-sided p-value; 1 where nothing differs, `None` with less than two seeds.
    """
    seeds = sorted(values.keys() & reference.keys())
    if len(seeds) < 2:
        return None
    first, second = ([part[seed] for seed in seeds] for part in (values, reference))
    if first == second:
        return 1.0
    return float(stats.ttest_rel(first, second).pvalue)


def quality(task: str, part: str = "test") -> Value:
    """The metric that stands for a task, the first one: AUC of a binary task.

    Args:
        task: The task.
        part: `"test"` (default) or `"validation"`.
    """
    return lambda line: next(iter(line[part][task].values())) if task in line[part] else None


def mean_quality(tasks: Sequence[str], part: str = "test") -> Value:
    """The mean of `quality` over tasks, where a line has all of them."""

    def value(line: Line) -> float | None:
        values = [quality(task, part)(line) for task in tasks]
        return None if None in values else float(np.mean([v for v in values if v is not None]))

    return value


class Lines:
    """The results of an experiment, to be asked for figures.

    Args:
        experiment: The experiment.
        lines: Its lines; those of variants that it does not have are left out.

    Attributes:
        variants: Those of its variants that have results, in its order.
        old_tasks: The tasks that are trained together.
    """

    def __init__(self, experiment: Experiment, lines: Sequence[Line]) -> None:
        given = {line["variant"] for line in lines}
        self.experiment = experiment
        self.variants = [v.name for v in experiment.variants if v.name in given]
        self._lines = {
            (line["variant"], tuple(line["new_tasks"]), line["seed"]): line for line in lines
        }
        first = next(
            (line for line in lines if not line["new_tasks"] and line["variant"] in self.variants),
            None,
        )
        self.old_tasks: list[str] = [] if first is None else list(first["tasks"])

    @property
    def seeds(self) -> list[int]:
        """The seeds of which there are results."""
        return sorted({seed for _, _, seed in self._lines})

    def of(self, variant: str, come: tuple[str, ...] = ()) -> list[Line]:
        """The lines of a variant after some new tasks, a line for each seed."""
        return [
            self._lines[variant, come, seed]
            for seed in self.seeds
            if (variant, come, seed) in self._lines
        ]

    def distinct(self, come: tuple[str, ...]) -> list[str]:
        """The variants, of those that have the same runs only the first one."""
        runs: dict[tuple[str, ...], str] = {}
        for variant in self.variants:
            runs.setdefault(tuple(line["digest"] for line in self.of(variant, come)), variant)
        return list(runs.values())

    def values(self, variant: str, come: tuple[str, ...], value: Value) -> dict[int, float]:
        """A figure by seed, of the seeds that have it."""
        found = {line["seed"]: value(line) for line in self.of(variant, come)}
        return {seed: number for seed, number in found.items() if number is not None}

    def estimate(self, variant: str, come: tuple[str, ...], value: Value) -> Estimate | None:
        """A figure over seeds, `None` where no seed has it."""
        values = self.values(variant, come, value)
        return estimate(values) if values else None

    def change(self, variant: str, come: tuple[str, ...], task: str) -> Estimate | None:
        """How an old task's metric differs from what it was before any new task came."""
        before = self.values(variant, (), quality(task))
        after = self.values(variant, come, quality(task))
        both = {seed: after[seed] - before[seed] for seed in after if seed in before}
        return estimate(both) if both else None

    def p(self, variant: str, come: tuple[str, ...], value: Value) -> float | None:
        """How a figure of a variant compares with the reference's; `None` for the reference."""
        reference = self.experiment.compared_with
        if variant == reference:
            return None
        return paired_p(self.values(variant, come, value), self.values(reference, come, value))


def together_table(lines: Lines) -> Table:
    """Every variant on the tasks that are trained together."""
    tasks = lines.old_tasks
    figures = {task: quality(task) for task in tasks}
    if len(tasks) > 1:
        figures["mean"] = mean_quality(tasks)
    rows = []
    for variant in lines.distinct(()):
        row = [_named(lines, variant)]
        for value in figures.values():
            row += _compared(lines, variant, (), value)
        rows.append(row + _costs(lines, variant, ()))
    header = ["variant", *(text for name in figures for text in (name, *COMPARED))]
    return Table([*header, "parameters", "MFLOP a row", "seconds"], rows)


def new_task_table(lines: Lines, come: tuple[str, ...]) -> Table:
    """Every variant on a new task: its metric, what became of the old ones, what it cost."""
    new = come[-1]
    rows = []
    for variant in lines.variants:
        if not lines.values(variant, come, quality(new)):
            continue
        changes = [change(lines.change(variant, come, task)) for task in lines.old_tasks]
        if all(line["old_tasks_identical"] for line in lines.of(variant, come)):
            changes = ["0, every bit" for _ in lines.old_tasks]
        rows.append([_named(lines, variant), *_compared(lines, variant, come, quality(new))])
        rows[-1] += [*changes, *_costs(lines, variant, come)]
    changed = [f"change of {task}" for task in lines.old_tasks]
    header = ["variant", new, *COMPARED, *changed]
    return Table([*header, "parameters trained", "MFLOP a row", "seconds"], rows)


def steps_table(lines: Lines, variant: str) -> Table:
    """One variant, step by step: every task that has come, after each step."""
    new = list(lines.experiment.new_tasks)
    steps = [tuple(new[:count]) for count in range(len(new) + 1)]
    rows = []
    for come in steps:
        if not lines.of(variant, come):
            continue
        cells = [
            spread(lines.estimate(variant, come, quality(task)))
            for task in [*lines.old_tasks, *new]
        ]
        rows.append([f"+ {come[-1]}" if come else "old tasks", *cells])
        rows[-1] += _costs(lines, variant, come)
    header = ["after", *lines.old_tasks, *new]
    return Table([*header, "parameters trained", "MFLOP a row", "seconds"], rows)


def spread(found: Estimate | None, digits: int = 4) -> str:
    """Mean and standard deviation as text."""
    if found is None:
        return NONE
    deviation = "" if np.isnan(found.deviation) else f" ± {found.deviation:.{digits}f}"
    return f"{found.mean:.{digits}f}{deviation}"


def interval(found: Estimate | None) -> str:
    """The mean's interval as text."""
    if found is None or np.isnan(found.low):
        return NONE
    return f"{found.low:.4f} to {found.high:.4f}"


def change(found: Estimate | None) -> str:
    """The same of a difference, with its sign."""
    if found is None:
        return NONE
    return spread(found) if found.mean < 0 else f"+{spread(found)}"


def p_text(p: float | None) -> str:
    """A p-value as text."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def seconds(line: Line) -> float | None:
    """How long the epochs of a line's training took."""
    return line["seconds"]


def trained_parameters(line: Line) -> float | None:
    """How many parameters were trained."""
    return line["trained_parameters"]


def flops(line: Line) -> float | None:
    """Floating point operations of a training step, for a row."""
    return line["flops"] and line["flops"]["train"]


def _compared(lines: Lines, variant: str, come: tuple[str, ...], value: Value) -> list[str]:
    """A figure, its interval, and how it compares with the reference's."""
    found = lines.estimate(variant, come, value)
    return [spread(found), interval(found), p_text(lines.p(variant, come, value))]


def _costs(lines: Lines, variant: str, come: tuple[str, ...]) -> list[str]:
    """Parameters, operations and time, as text."""
    parameters = lines.estimate(variant, come, trained_parameters)
    operations = lines.estimate(variant, come, flops)
    time = lines.estimate(variant, come, seconds)
    count = NONE if parameters is None else f"{parameters.mean:,.0f}"
    if parameters is not None and come:
        whole = np.mean([line["parameters"] for line in lines.of(variant, come)])
        count += f" ({parameters.mean / whole:.1%})"
    return [
        count,
        NONE if operations is None else f"{operations.mean / 1e6:.3g}",
        spread(time, 1),
    ]


def _named(lines: Lines, variant: str) -> str:
    return f"{variant} (reference)" if variant == lines.experiment.compared_with else variant
