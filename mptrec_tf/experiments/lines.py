"""The stored results of an experiment, to be asked for figures."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mptrec_tf.errors import ModelError
from mptrec_tf.experiments.config import Experiment
from mptrec_tf.experiments.statistics import Difference, Estimate, difference, estimate
from mptrec_tf.experiments.store import Line

Come = tuple[str, ...]
"""The new tasks that have come so far, in their order."""

Value = Callable[[Line], float | None]
"""A figure of a line, `None` where it has none."""

NAMES = {"auc": "AUC", "rmse": "RMSE", "accuracy": "accuracy"}
LOWER_IS_BETTER = ("rmse",)
MEAN = "mean AUC"
"""The name of the figure over several binary tasks."""


class Quality(NamedTuple):
    """What variants are compared by.

    Attributes:
        name: What tables call it.
        metric: What pictures call it.
        value: The figure.
        sign: 1 if higher is better, else -1.
    """

    name: str
    metric: str
    value: Value
    sign: int


class Lines:
    """The results of an experiment.

    Args:
        experiment: The experiment.
        lines: Its lines; those of variants and seeds that it does not have are left out.

    Attributes:
        variants: Those of its variants that have results, in its order.
        old_tasks: The tasks that are trained together.

    Raises:
        ModelError: If a result is there twice.
    """

    def __init__(self, experiment: Experiment, lines: Sequence[Line]) -> None:
        names = [variant.name for variant in experiment.variants]
        kept = [x for x in lines if x["variant"] in names and x["seed"] in experiment.seeds]
        given = {line["variant"] for line in kept}
        self.experiment = experiment
        self.variants = [name for name in names if name in given]
        self._lines: dict[tuple[str, Come, int], Line] = {}
        for line in kept:
            variant, come, seed = key = line["variant"], tuple(line["new_tasks"]), line["seed"]
            if key in self._lines:
                after = f" after {' and '.join(come)}" if come else ""
                raise ModelError(
                    f"{experiment.name}.jsonl: {variant!r}{after} with seed {seed} is there twice, "
                    "by different settings; delete the line that does not count"
                )
            self._lines[key] = line
        first = next((line for line in kept if not line["new_tasks"]), None)
        self.old_tasks: list[str] = [] if first is None else list(first["tasks"])

    @property
    def seeds(self) -> list[int]:
        """The seeds of which there are results."""
        return sorted({seed for _, _, seed in self._lines})

    @property
    def steps(self) -> list[Come]:
        """What has come, at each step; at first nothing."""
        new = self.experiment.new_tasks
        if self.experiment.one_after_another:
            return [new[:count] for count in range(len(new) + 1)]
        return [(), *((task,) for task in new)]

    def missing(self) -> dict[str, tuple[int, int]]:
        """By variant, how many of its results are missing, and how many it is to have."""
        found = {}
        for variant in self.experiment.variants:
            steps = [()] if variant.is_external else self.steps
            whole = len(steps) * len(self.experiment.seeds)
            there = sum(len(self.of(variant.name, come)) for come in steps)
            if there < whole:
                found[variant.name] = (whole - there, whole)
        return found

    def all(self) -> Iterator[Line]:
        """All lines, by variant, step and seed."""
        for variant in self.variants:
            for come in self.steps:
                yield from self.of(variant, come)

    def of(self, variant: str, come: Come = ()) -> list[Line]:
        """The lines of a variant after some new tasks, a line for each seed."""
        return [
            self._lines[variant, come, seed]
            for seed in self.seeds
            if (variant, come, seed) in self._lines
        ]

    def distinct(self, come: Come) -> dict[str, str]:
        """The variants that have results, by what to call them, one of those that share runs.

        The reference stands for those that share its runs, else the first of them.

        Args:
            come: The new tasks that have come.
        """
        groups: list[tuple[list[str], set[str]]] = []
        for variant in self.variants:
            digests = {line["digest"] for line in self.of(variant, come)}
            if not digests:
                continue
            for names, known in groups:
                if known & digests:
                    names.append(variant)
                    break
            else:
                groups.append(([variant], digests))
        found = {}
        for names, _ in groups:
            reference = self.experiment.compared_with
            name = reference if reference in names else names[0]
            found[name if len(names) == 1 else f"{name} and {len(names) - 1} more"] = name
        return found

    def quality(self, task: str) -> Quality:
        """The metric that stands for a task, the first one of the test rows."""
        metric = next(
            name for line in self.all() if task in line["test"] for name in line["test"][task]
        )

        def value(line: Line) -> float | None:
            return line["test"][task][metric] if task in line["test"] else None

        sign = -1 if metric in LOWER_IS_BETTER else 1
        return Quality(task, f"{NAMES.get(metric, metric)} of {task}", value, sign)

    def qualities(self, tasks: Sequence[str]) -> list[Quality]:
        """That of each task, and the mean of the AUCs where there are several."""
        each = [self.quality(task) for task in tasks]
        areas = [quality for quality in each if quality.metric.startswith("AUC ")]
        if len(areas) < 2:
            return each

        def mean(line: Line) -> float | None:
            values = [quality.value(line) for quality in areas]
            return None if None in values else float(np.mean([v for v in values if v is not None]))

        return [*each, Quality(MEAN, MEAN, mean, 1)]

    def values(self, variant: str, come: Come, value: Value) -> dict[int, float]:
        """A figure by seed, of the seeds that have it; one that is undefined is none."""
        found = {line["seed"]: value(line) for line in self.of(variant, come)}
        known = {seed: number for seed, number in found.items() if number is not None}
        return {seed: number for seed, number in known.items() if not np.isnan(number)}

    def estimate(self, variant: str, come: Come, value: Value) -> Estimate | None:
        """A figure over seeds, `None` where no seed has it."""
        values = self.values(variant, come, value)
        return estimate(values) if values else None

    def furthest(self, variant: str, steps: Sequence[Come]) -> set[int]:
        """The seeds with which a variant came furthest in some steps."""
        there = ({line["seed"] for line in self.of(variant, come)} for come in reversed(steps))
        return next(filter(None, there), set())

    def along(self, variant: str, steps: Sequence[Come], value: Value) -> list[Estimate | None]:
        """A figure after each of some steps, over the seeds that came furthest."""
        seeds = self.furthest(variant, steps)
        found = (self.values(variant, come, value) for come in steps)
        kept = ({seed: v for seed, v in values.items() if seed in seeds} for values in found)
        return [estimate(values) if values else None for values in kept]

    def change(self, variant: str, before: Come, after: Come, value: Value) -> Estimate | None:
        """How a figure differs between two steps, over the seeds that have both."""
        found = difference(self.values(variant, after, value), self.values(variant, before, value))
        return None if found is None else found.found

    def identical(self, variant: str, come: Come) -> bool:
        """Whether the last of the new tasks changed no bit of what others had predicted."""
        lines = self.of(variant, come)
        return bool(lines) and all(line["old_tasks_identical"] for line in lines)

    def other_rows(self, variant: str, come: Come) -> dict[str, tuple[int, int]]:
        """By task, of how many test rows a variant's figures are and the reference's, if not alike.

        Models of funnels predict that all steps are taken, others what comes after the one before.
        """
        own, reference = (
            {
                task: found["rows"]
                for one in self.of(name, come)
                for task, found in one["test"].items()
            }
            for name in (variant, self.experiment.compared_with)
        )
        tasks = own.keys() & reference.keys()
        return {t: (own[t], reference[t]) for t in sorted(tasks) if own[t] != reference[t]}

    def difference(self, variant: str, come: Come, value: Value) -> Difference | None:
        """How a figure of a variant differs from the reference's.

        `None` for the reference, and for a variant whose figures are of other test rows.
        """
        reference = self.experiment.compared_with
        if variant == reference or self.other_rows(variant, come):
            return None
        return difference(self.values(variant, come, value), self.values(reference, come, value))


def seconds(line: Line) -> float | None:
    """How long a line's training took."""
    return line["seconds"]


def trained_parameters(line: Line) -> float | None:
    """How many parameters were trained."""
    return line["trained_parameters"]


def training_flops(line: Line) -> float | None:
    """Floating point operations of a training step, for a row."""
    return line["flops"] and line["flops"]["train"]


def prediction_flops(line: Line) -> float | None:
    """Floating point operations of predicting all tasks, for a row."""
    return line["flops"] and line["flops"]["predict"]
