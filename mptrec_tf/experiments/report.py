"""Stored results as one HTML page that needs no other file, and as Markdown."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mptrec_tf.config import Config, TrainingConfig
from mptrec_tf.errors import ModelError
from mptrec_tf.evaluation.page import page_template
from mptrec_tf.experiments import tables
from mptrec_tf.experiments.config import EXTERNAL, Experiment
from mptrec_tf.experiments.store import Results
from mptrec_tf.experiments.tables import Lines, Table

TEMPLATE = pathlib.Path(__file__).with_name("report.html")
GATES = {"mptrec": ["specific", "shared"]}
"""What the gates of a model weigh, where these are no numbered experts."""

HOW_TO_READ = (
    "Test metrics (AUC of a binary task) of the best epoch on validation, scored once: mean ± "
    "sample standard deviation over seeds, and the mean's 95 % interval by Student's t. p: paired "
    "t-test over the seeds against the reference, two-sided, not corrected for the number of "
    "comparisons. MFLOP a row: multiplications and additions of all matrix products in a training "
    "step, as it was run. Seconds: of the whole training, with compilation and validation, without "
    "a search for settings. Variants that share a model of the older tasks are shown once there."
)


class Block(NamedTuple):
    """A table with its pictures.

    Attributes:
        title: What it is of.
        table: The table.
        figures: SVG texts.
    """

    title: str
    table: Table
    figures: list[str]


class Section(NamedTuple):
    """An experiment in the report.

    Attributes:
        title: Its title.
        question: What it is to answer.
        facts: How it was made, a sentence each.
        blocks: Its tables and pictures.
        chosen: The settings that tuning chose, if there was any.
    """

    title: str
    question: str
    facts: list[str]
    blocks: list[Block]
    chosen: Table | None


def write_report(
    experiments: Sequence[Experiment],
    results: str | os.PathLike[str],
    *,
    html: str | os.PathLike[str] | None = None,
    markdown: str | os.PathLike[str] | None = None,
    title: str = "Experiments",
) -> None:
    """Writes what is stored of some experiments.

    Args:
        experiments: The experiments; those without results are left out.
        results: Directory of the results, `NAME.jsonl` each.
        html: Where the page with tables and pictures is written. Defaults to `None`, nowhere.
        markdown: Where the tables are written. Defaults to `None`, nowhere.
        title: The title. Defaults to `"Experiments"`.

    Raises:
        ModelError: If there are no results at all.
        ImportError: If matplotlib or jinja2 is not installed.

    Example:

    ```python
    write_report([Experiment.from_yaml("experiments/stage1.yaml")], "runs/bench", html="r.html")
    ```
    """
    directory = pathlib.Path(results)
    sections, versions = [], dict[str, str]()
    for experiment in experiments:
        stored = Results(directory / f"{experiment.name}.jsonl").lines()
        lines = Lines(experiment, stored)
        if lines.variants:
            sections.append(_section(lines, figures=html is not None))
            own = [line["versions"] for line in stored if line["model"] != EXTERNAL]
            versions = own[-1] if own else versions
    if not sections:
        names = [f"{experiment.name}.jsonl" for experiment in experiments]
        raise ModelError(f"{directory}: no results; expected {names}")
    if html is not None:
        page = page_template(TEMPLATE).render(
            title=title, sections=sections, how_to_read=HOW_TO_READ, versions=versions
        )
        pathlib.Path(html).write_text(page, encoding="utf-8")
    if markdown is not None:
        text = _markdown(title, sections, versions)
        pathlib.Path(markdown).write_text(text, encoding="utf-8")


def _markdown(title: str, sections: list[Section], versions: dict[str, str]) -> str:
    parts = [
        "<!-- Generated from stored results by `mptrec bench report`; do not edit. -->",
        f"# {title}",
        HOW_TO_READ,
    ]
    for section in sections:
        parts += [f"## {section.title}", section.question]
        parts += ["\n".join(f"- {fact}" for fact in section.facts)]
        for block in section.blocks:
            parts += [f"### {block.title}", block.table.markdown()]
        if section.chosen is not None:
            parts += ["Settings that tuning chose:", section.chosen.markdown()]
    parts += ["## Environment", Table(["of", "version"], [*map(list, versions.items())]).markdown()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(lines: Lines, *, figures: bool) -> Section:
    experiment = lines.experiment
    return Section(
        experiment.title,
        experiment.question,
        _facts(lines),
        list(_blocks(lines, figures)),
        _chosen(lines),
    )


def _facts(lines: Lines) -> list[str]:
    experiment = lines.experiment
    base = Config.from_yaml(experiment.base)
    every = [line for v in lines.variants for come in _steps(lines) for line in lines.of(v, come)]
    rows = every[0]["rows"]
    features = len(base.features)
    labels = sorted({task.label for task in base.tasks})
    longest = TrainingConfig().epochs  # what is at its default is not stored
    epochs = sorted({line["training"].get("epochs", longest) for line in every})
    facts = [
        f"{features} features; the label columns {', '.join(labels)} are none of them.",
        ", ".join(f"{number:,} {part} rows" for part, number in rows.items()) + ".",
        f"Seeds {', '.join(map(str, lines.seeds))}; at most {' or '.join(map(str, epochs))} "
        "epochs, early stopping on validation.",
        f"Made by `mptrec bench run experiments/{experiment.name}.yaml`.",
    ]
    trials = {line["variant"]: 0 for line in every}
    for line in every:
        trials[line["variant"]] = max(trials[line["variant"]], line["trials"])
    if not any(trials.values()):
        facts.insert(3, f"No variant was tuned: all have the settings of `{experiment.base}`.")
    else:
        budget = ", ".join(f"{name} {number}" for name, number in trials.items())
        facts.insert(3, f"Trials of tuning on validation, before the seeds: {budget}.")
    packages = {
        line["variant"]: " with ".join(f"{k} {v}" for k, v in line["versions"].items())
        for line in every
        if line["model"] == EXTERNAL
    }
    if packages:
        names = ", ".join(f"{variant} by {by}" for variant, by in packages.items())
        facts.append(f"External, trained by another program: {names}.")
    if experiment.check:
        facts.insert(0, "On synthetic rows, to see that all runs; no claim about quality.")
    return facts


def _steps(lines: Lines) -> list[tuple[str, ...]]:
    new = lines.experiment.new_tasks
    if lines.experiment.one_after_another:
        return [new[:count] for count in range(len(new) + 1)]
    return [(), *((task,) for task in new)]


def _blocks(lines: Lines, figures: bool) -> Any:
    together = " and ".join(lines.old_tasks)
    if lines.experiment.one_after_another:
        for variant in lines.variants:
            yield Block(variant, tables.steps_table(lines, variant), [])
        if figures:
            yield Block("Over all steps", Table([], []), _step_figures(lines))
        return
    yield Block(
        f"{together}, trained together",
        tables.together_table(lines),
        _together_figures(lines) if figures else [],
    )
    for task in lines.experiment.new_tasks:
        table = tables.new_task_table(lines, (task,))
        if table.rows:
            drawn = _new_task_figures(lines, (task,)) if figures else []
            yield Block(f"New task: {task}", table, drawn)


def _together_figures(lines: Lines) -> list[str]:
    from mptrec_tf.experiments import plots

    tasks = lines.old_tasks
    drawn = [_intervals(lines, (), tables.quality(task), task) for task in tasks]
    if len(tasks) > 1:
        drawn += _costs(lines, (), tables.mean_quality(tasks), f"mean AUC of {' and '.join(tasks)}")
    drawn += _gates(lines, ())
    for variant in lines.distinct(()):
        placed = [line["representations"] for line in lines.of(variant) if line["representations"]]
        if placed:
            drawn.append(plots.scatter(f"{variant}: representations (t-SNE)", placed[0]))
    return drawn


def _new_task_figures(lines: Lines, come: tuple[str, ...]) -> list[str]:
    value = tables.quality(come[-1])
    label = f"AUC of {come[-1]}"
    return [
        _intervals(lines, come, value, come[-1]),
        *_costs(lines, come, value, label),
        *_gates(lines, come),
    ]


def _step_figures(lines: Lines) -> list[str]:
    from mptrec_tf.experiments import plots

    steps = _steps(lines)
    names = ["old tasks", *(f"+ {come[-1]}" for come in steps[1:])]
    return [
        plots.steps(
            f"AUC of {task}",
            names,
            {
                variant: [lines.estimate(variant, come, tables.quality(task)) for come in steps]
                for variant in lines.variants
            },
            "test AUC",
        )
        for task in [*lines.old_tasks, *lines.experiment.new_tasks]
    ]


def _intervals(lines: Lines, come: tuple[str, ...], value: tables.Value, task: str) -> str:
    from mptrec_tf.experiments import plots

    found = {variant: lines.estimate(variant, come, value) for variant in lines.distinct(come)}
    known = {variant: e for variant, e in found.items() if e is not None}
    reference = lines.experiment.compared_with
    return plots.intervals(f"{task}: every seed, mean, 95 % interval", known, reference, "test AUC")


def _costs(lines: Lines, come: tuple[str, ...], value: tables.Value, label: str) -> list[str]:
    """Parameters and time against quality."""
    from mptrec_tf.experiments import plots

    drawn = []
    for title, cost, unit in (
        ("Parameters trained", tables.trained_parameters, "parameters trained"),
        ("Time", tables.seconds, "seconds of training"),
    ):
        points = {}
        for variant in lines.distinct(come):
            spent = lines.estimate(variant, come, cost)
            gained = lines.estimate(variant, come, value)
            if spent is not None and gained is not None:
                points[variant] = (spent.mean, gained)
        drawn.append(plots.against(f"{title} against {label}", points, (unit, label)))
    return drawn


def _gates(lines: Lines, come: tuple[str, ...]) -> list[str]:
    """What each variant's gates weigh, mean over seeds."""
    from mptrec_tf.experiments import plots

    drawn = []
    for variant in lines.distinct(come):
        found = [line for line in lines.of(variant, come) if line["gates"]]
        if not found:
            continue
        tasks = list(found[0]["gates"]) if not come else [come[-1]]
        weights = {
            task: np.mean([line["gates"][task] for line in found], axis=0).tolist()
            for task in tasks
            if all(task in line["gates"] for line in found)
        }
        widths = {len(values) for values in weights.values()}
        if len(widths) != 1:
            continue
        numbered = [f"expert {k + 1}" for k in range(widths.pop())]
        names = GATES.get(found[0]["model"], numbered)
        drawn.append(plots.shares(f"{variant}: what the gates weigh", weights, names))
    return drawn


def _chosen(lines: Lines) -> Table | None:
    """The settings that tuning chose, by variant."""
    rows = []
    for variant in lines.variants:
        for come in _steps(lines):
            found = [line for line in lines.of(variant, come) if line["tuned"] is not None]
            if found:
                values = found[0]["tuned"].items()
                texts = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values]
                rows.append([f"{variant}{', ' + come[-1] if come else ''}", ", ".join(texts)])
    return Table(["variant", "settings"], rows) if rows else None
