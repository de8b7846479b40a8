"""Stored results as one HTML page that needs no other file, and as Markdown."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mptrec_tf.config import Config, TrainingConfig
from mptrec_tf.errors import DataError, ModelError
from mptrec_tf.evaluation.page import page_template
from mptrec_tf.experiments import tables
from mptrec_tf.experiments.config import EXTERNAL, Experiment
from mptrec_tf.experiments.lines import MEAN, Come, Lines, Quality, seconds, trained_parameters
from mptrec_tf.experiments.plan import TREES, outdated, plan
from mptrec_tf.experiments.store import Line, Results
from mptrec_tf.experiments.tables import Table

TEMPLATE = pathlib.Path(__file__).with_name("report.html")
GATES = {"mptrec": ["specific", "shared"], "ple": ["specific", "shared"]}
"""What the gates of a model weigh, where each task has one expert of its own."""

HOW_TO_READ = [
    "Figures are of the test rows, scored once, by the weights of the best epoch on validation: "
    "AUC of a binary task (higher is better), RMSE of a regression (lower), accuracy of several "
    "classes. Mean ± sample standard deviation over seeds; intervals in pictures are the mean's, "
    "95 %, by Student's t. They tell what other seeds would give, not what other test rows would.",
    "Difference: to the reference, over the seeds that both have, with the p-value of a paired "
    "t-test; two-sided, not corrected for the number of comparisons.",
    "MFLOP: multiplications and additions of all matrix products for a row, in a training step as "
    "it was run, and in predicting all tasks. Seconds: of the whole training, with compilation and "
    "validation, without a search for settings.",
    "Variants that share a model of the older tasks are shown once there.",
]


class Block(NamedTuple):
    """A table with its pictures.

    Attributes:
        title: What it is of.
        verdict: What the table says, in a sentence or two; may be empty.
        table: The table.
        figures: SVG texts.
    """

    title: str
    verdict: str
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
        experiments: The experiments; of those without results the report says so.
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
    stored = {e.name: Results(directory / f"{e.name}.jsonl").lines() for e in experiments}
    if not any(stored.values()):
        names = [f"{name}.jsonl" for name in stored]
        raise ModelError(f"{directory}: no results; expected {names}")
    sections = [_section(e, stored[e.name], figures=html is not None) for e in experiments]
    versions = _versions([line for lines in stored.values() for line in lines])
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
        "\n".join(f"- {text}" for text in HOW_TO_READ),
    ]
    for section in sections:
        parts += [f"## {section.title}", section.question]
        parts += ["\n".join(f"- {fact}" for fact in section.facts)]
        for block in section.blocks:
            parts += [f"### {block.title}", block.verdict, block.table.markdown()]
        if section.chosen is not None:
            parts += ["Settings that tuning chose:", section.chosen.markdown()]
    parts += ["## Environment", Table(["of", "version"], [*map(list, versions.items())]).markdown()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _versions(lines: Sequence[Line]) -> dict[str, str]:
    """What computed the last result of our own."""
    own = [line["versions"] for line in lines if line["model"] != EXTERNAL]
    return own[-1] if own else {}


def _section(experiment: Experiment, stored: Sequence[Line], *, figures: bool) -> Section:
    lines = Lines(experiment, stored)
    head = experiment.title, experiment.question
    if not lines.variants:
        return Section(*head, ["No results yet."], [], None)
    base = Config.from_yaml(experiment.base)
    facts = _facts(lines, base, stored)
    return Section(*head, facts, list(_blocks(lines, figures)), _chosen(lines))


def _facts(lines: Lines, base: Config, stored: Sequence[Line]) -> list[str]:
    experiment, every = lines.experiment, list(lines.all())
    rows = every[0]["rows"]
    labels = sorted({task.label for task in base.tasks})
    longest = TrainingConfig().epochs  # what is at its default is not stored
    trained = [line["training"] for line in every if line["model"] != TREES]
    epochs = sorted({training.get("epochs", longest) for training in trained})
    most = f"at most {' or '.join(map(str, epochs))} epochs, " if epochs else ""
    facts = [
        f"{len(base.features)} features; the label columns {', '.join(labels)} are none of them.",
        ", ".join(f"{number:,} {part} rows" for part, number in rows.items()) + ".",
        f"Seeds {', '.join(map(str, lines.seeds))}; {most}early stopping on validation.",
        _tuning(every, experiment.base),
        f"Made by `mptrec bench run` of the experiment `{experiment.name}`.",
    ]
    old = 0
    missing = [f"{name} {n} of {whole}" for name, (n, whole) in lines.missing().items()]
    if missing:
        facts.append(f"**Not complete.** Results that are missing: {', '.join(missing)}.")
    with contextlib.suppress(DataError):  # without the data files there is nothing to compare with
        old = len(outdated(plan(experiment), stored))
    if old:
        facts.append(
            f"{old} of {len(stored)} results were made with other settings than the "
            "experiment declares, as by `--epochs` or `--no-tuning`."
        )
    packages = {
        line["variant"]: " with ".join(f"{k} {v}" for k, v in line["versions"].items())
        for line in every
        if line["model"] == EXTERNAL
    }
    if packages:
        names = ", ".join(f"{variant} by {by}" for variant, by in packages.items())
        facts.append(f"External, trained by another program: {names}.")
    others = [
        f"{variant} on {own:,} rows of {task}, not {reference:,}"
        for variant in lines.variants
        for task, (own, reference) in lines.other_rows(variant, ()).items()
    ]
    if others:
        facts.append(
            f"Of other test rows than those of {experiment.compared_with}, and so not compared: "
            f"{'; '.join(others)}."
        )
    if experiment.check:
        facts.insert(0, "On synthetic rows, to see that all runs; no claim about quality.")
    return facts


def _tuning(lines: Sequence[Line], base: str) -> str:
    """How many trainings each variant's searches had."""
    ours = [line for line in lines if line["model"] != EXTERNAL]
    trials = {line["variant"]: 0 for line in ours}
    for line in ours:
        trials[line["variant"]] = max(trials[line["variant"]], line["trials"])
    if not any(trials.values()):
        return f"No variant was tuned: all have the settings of `{base}`."
    budgets = dict[int, list[str]]()
    for variant, number in trials.items():
        budgets.setdefault(number, []).append(variant)
    texts = [f"{', '.join(names)}: {number}" for number, names in budgets.items()]
    return (
        "Trainings in each search for settings, on validation with the first seed, the first of "
        f"them with the settings of `{base}` where the space contains them: {'; '.join(texts)}."
    )


def _blocks(lines: Lines, figures: bool) -> Iterator[Block]:
    if lines.experiment.one_after_another:
        yield from _step_blocks(lines, figures)
        return
    if lines.old_tasks:
        (*tasks, main) = lines.qualities(lines.old_tasks)
        told = [main] if main.name == MEAN else [*tasks, main]
        yield Block(
            f"{' and '.join(lines.old_tasks)}, trained together",
            " ".join(filter(None, (tables.verdict(lines, (), quality) for quality in told))),
            tables.together_table(lines),
            _together_figures(lines) if figures else [],
        )
    for come in lines.steps[1:]:
        table = tables.new_task_table(lines, come)
        if table.rows:
            quality = lines.quality(come[-1])
            drawn = _new_task_figures(lines, come, quality) if figures else []
            text = tables.verdict(lines, come, quality)
            yield Block(f"New task: {come[-1]}", text, table, drawn)


def _step_blocks(lines: Lines, figures: bool) -> Iterator[Block]:
    for task in [*lines.old_tasks, *lines.experiment.new_tasks]:
        if any(task in line["test"] for line in lines.all()):
            quality = lines.quality(task)
            yield Block(
                f"{task}, step by step",
                tables.verdict(lines, lines.steps[-1], quality),
                tables.steps_table(lines, task),
                [_steps_figure(lines, quality)] if figures else [],
            )
    table = tables.steps_costs_table(lines)
    yield Block("Parameters trained (of all) and seconds, by step", "", table, [])


def _together_figures(lines: Lines) -> list[str]:
    from mptrec_tf.experiments import plots

    (*tasks, main) = lines.qualities(lines.old_tasks)
    drawn = [_intervals(lines, (), q) for q in (*tasks, main) if q.name != MEAN]
    drawn += _costs(lines, (), main) + _gates(lines, ())
    for name, variant in lines.distinct(()).items():
        placed = [line["representations"] for line in lines.of(variant) if line["representations"]]
        if placed:
            drawn.append(plots.scatter(f"{name}: representations (t-SNE)", placed[0]))
    return drawn


def _new_task_figures(lines: Lines, come: Come, quality: Quality) -> list[str]:
    return [
        _intervals(lines, come, quality),
        *_costs(lines, come, quality),
        *_gates(lines, come),
    ]


def _steps_figure(lines: Lines, quality: Quality) -> str:
    from mptrec_tf.experiments import plots

    steps = lines.steps
    return plots.steps(
        f"{quality.metric}, step by step",
        ["at first", *(f"+ {come[-1]}" for come in steps[1:])],
        {variant: lines.along(variant, steps, quality.value) for variant in lines.variants},
        f"test {quality.metric}",
    )


def _intervals(lines: Lines, come: Come, quality: Quality) -> str:
    from mptrec_tf.experiments import plots

    known, reference = {}, ""
    for name, variant in lines.distinct(come).items():
        found = lines.estimate(variant, come, quality.value)
        if found is not None:
            known[name] = found
        if variant == lines.experiment.compared_with:
            reference = name
    title = f"{quality.name}: every seed, mean, 95 % interval"
    return plots.intervals(title, known, reference, f"test {quality.metric}")


def _costs(lines: Lines, come: Come, quality: Quality) -> list[str]:
    """Parameters and time against quality."""
    from mptrec_tf.experiments import plots

    drawn = []
    for title, cost, unit in (
        ("Parameters trained", trained_parameters, "parameters trained"),
        ("Time", seconds, "seconds of training"),
    ):
        points = {}
        for name, variant in lines.distinct(come).items():
            spent = lines.estimate(variant, come, cost)
            gained = lines.estimate(variant, come, quality.value)
            if spent is not None and gained is not None:
                points[name] = (spent.mean, gained)
        title = f"{title} against {quality.metric}"
        drawn.append(plots.against(title, points, (unit, f"test {quality.metric}")))
    return drawn


def _gates(lines: Lines, come: Come) -> list[str]:
    """What each variant's gates weigh, mean over seeds."""
    from mptrec_tf.experiments import plots

    drawn = []
    for shown, variant in lines.distinct(come).items():
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
        names = GATES.get(found[0]["model"], [])
        if widths != {len(names)}:
            names = [f"expert {k + 1}" for k in range(widths.pop())]
        drawn.append(plots.shares(f"{shown}: what the gates weigh", weights, names))
    return drawn


def _chosen(lines: Lines) -> Table | None:
    """The settings that searches chose, by variant."""
    rows = []
    for variant in lines.variants:
        for come in lines.steps:
            found = [line for line in lines.of(variant, come) if line["tuned"] is not None]
            if found:
                values = found[0]["tuned"].items()
                texts = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values]
                rows.append([f"{variant}{', ' + come[-1] if come else ''}", ", ".join(texts)])
    return Table(["variant", "settings"], rows) if rows else None
