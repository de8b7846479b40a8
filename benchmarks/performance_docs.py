"""docs/performance.md, its plots and docs/performance.json from what the benchmarks measured last.

Each part is replaced where there is a newer measurement and stays as it is where there is none.

    make bench-speed-docs
"""

import argparse
import json
import pathlib
import statistics
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.workers import BENCHMARKS
from mptrec_tf.evaluation.plots import COLORS, GREY, STYLE

PARTS = {
    "speed": "results.json",
    "joint_retraining": "joint_retraining.json",
    "many_tasks": "many_tasks.json",
}
RATIOS = {
    "stage1_vs_torch": "Stage 1: our throughput over PyTorch's on tensors in memory",
    "stage1_vs_row_loader": "Stage 1: the same over PyTorch's with a `DataLoader` over rows, each "
    "a dict of its columns",
    "stage2_vs_torch": "Stage 2 on cached representations: the same over PyTorch's, which runs the "
    "backbone at every step",
    "stage2_epoch_over_stage1_epoch": "Our stage 2 epoch over our stage 1 epoch, same rows",
    "vocabulary_step_ratio": "Our step with 10 million ids over that with 10 thousand",
}


def main() -> None:
    """Copies the results and writes page and plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("runs/bench-speed"))
    parser.add_argument("--docs", type=pathlib.Path, default=BENCHMARKS.parent / "docs")
    args = parser.parse_args()
    stored = args.docs / "performance.json"
    results = json.loads(stored.read_text()) if stored.is_file() else {}
    for part, name in PARTS.items():
        if (args.results / name).is_file():
            results[part] = json.loads((args.results / name).read_text())
    if not results:
        raise SystemExit(f"{args.results} holds none of {sorted(PARTS.values())}")
    args.docs.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(results, indent=1) + "\n")
    (args.docs / "performance.md").write_text(page(results))
    if "speed" in results:
        throughput_plot(results["speed"], args.docs / "performance_throughput.svg")
    if "many_tasks" in results:
        tasks_plot(results["many_tasks"], args.docs / "performance_tasks.svg")


def page(results: dict[str, Any]) -> str:
    """The page, with the parts that were measured."""
    lines = [
        "<!-- Made by `make bench-speed-docs` from performance.json. -->",
        "# Performance",
        "",
        "All contenders of a comparison ran in one run and took turns; a turn is a process of its "
        "own, a warm-up and three epochs, of which the fastest counts. A ratio is taken within a "
        "turn. Given are the median and, in brackets, the range over the turns. The numbers are in "
        "[performance.json](performance.json).",
    ]
    if "speed" in results:
        lines += speed_section(results["speed"])
    if "joint_retraining" in results:
        lines += joint_section(results["joint_retraining"])
    if "many_tasks" in results:
        lines += tasks_section(results["many_tasks"])
    return "\n".join(lines) + "\n"


def speed_section(speed: dict[str, Any]) -> list[str]:
    """Ratios, throughputs and limits of `speed.py`."""
    chosen, settings, limits = speed["chosen"], speed["settings"], speed["limits"]
    ours, torch = chosen["ours, stage 1"], chosen["torch, stage 1"]
    repetitions = len(speed["turns"]["ours, stage 1"])
    examples = speed["turns"]["ours, stage 1"][0]["examples"]
    lines = [
        "",
        "## Training (`make bench-speed`)",
        "",
        f"{speed['machine']['cpus']} cores ({speed['machine']['architecture']}), TensorFlow "
        f"{ours['tensorflow']}, Keras {ours['keras']}, PyTorch {torch['torch']}; {repetitions} "
        "turns.",
        "",
        "| what | ratio |",
        "| --- | --- |",
    ]
    lines += [f"| {text} | {between(speed[name])} |" for name, text in RATIOS.items()]
    lines += [
        "",
        f"The model is that of the published Census-income run: batch {settings['batch']}, "
        f"embeddings {settings['embedding_dim']} wide, experts "
        f"{'-'.join(map(str, settings['expert_units']))}, towers "
        f"{'-'.join(map(str, settings['tower_units']))}, Adam {settings['learning_rate']:g}, "
        f"adversarial form `{settings['adversarial']}`. An epoch has {examples:,} rows (those left "
        "over by whole batches are cut off), validation is left out. Ours is a plain `fit` with "
        "metrics and callbacks; PyTorch's loop (`benchmarks/peers/`) trains and does nothing else.",
        "",
        "PyTorch gets the same encoded arrays and the same weights, and is measured only after its "
        "loss and every gradient agree with ours. It begins by trying its forms and takes the "
        f"fastest: here `{torch['form']}` in stage 1 and `{chosen['torch, stage 2']['form']}` in "
        "stage 2 (compiled or not, threads, batched or looped experts, implementation of Adam). In "
        "short trials on tensors in memory these gave, in examples a second:",
        "",
        *forms_table(torch["rates"], chosen["torch, stage 2"]["rates"]),
        "",
        "![Throughput](performance_throughput.svg)",
        "",
        "### How far from the machine's limits",
        "",
        f"Measured in the same run: {limits['peaks']['flops'] / 1e9:.0f} GFLOP/s of a float32 "
        f"matrix product, {limits['peaks']['bandwidth'] / 1e9:.1f} GB/s of a copy. Counted are the "
        "matrix products of a step, and the memory traffic that cannot be avoided "
        "(`benchmarks/harness/costs.py`); whichever share is larger is what holds it in the end.",
        "",
        "| contender | examples/s | MFLOP an example | of the peak | of the bandwidth "
        "| limit, examples/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in limits["contenders"].items():
        rate, share = figures["examples_per_second"], figures["share"]
        lines.append(
            f"| {name} | {rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f}) | "
            f"{figures['cost']['flops'] / 1e6:.2f} | {share['flops']:.0%} | "
            f"{share['bandwidth']:.0%} | {share['limit']:,.0f} |"
        )
    lines += ["", held_by(limits["contenders"])]
    return [*lines, *vocabulary_table(speed["vocabulary"])]


def forms_table(*stages: dict[str, float]) -> list[str]:
    """The forms of PyTorch that were tried, and what each gave in each stage."""
    lines = ["| form | stage 1 | stage 2 |", "| --- | --- | --- |"]
    for form in dict.fromkeys(form for rates in stages for form in rates):
        cells = [f"{rates[form]:,.0f}" if form in rates else "" for rates in stages]
        lines.append(f"| `{form}` | {' | '.join(cells)} |")
    return lines


def vocabulary_table(vocabulary: dict[str, Any]) -> list[str]:
    """Step times of `large_vocabulary.py`, by variant and number of ids."""
    sizes = vocabulary["ids"]
    names = " | ".join(f"{number:,} ids" for number in sizes.values())
    lines = [
        "",
        "### Large vocabularies",
        "",
        f"Milliseconds a step, median; batch {vocabulary['batch']:,}, synthetic ids that follow "
        "Zipf's law (`benchmarks/large_vocabulary.py`).",
        "",
        f"| variant | {names} |",
        "| --- |" + " --- |" * len(sizes),
    ]
    for variant, seconds in vocabulary["seconds"].items():
        cells = [f"{1e3 * statistics.median(seconds[size]):.1f}" for size in sizes]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return lines


def held_by(contenders: dict[str, Any]) -> str:
    """What holds each of ours, from its shares."""
    sentences = []
    for name, figures in contenders.items():
        if not name.startswith("ours"):
            continue
        share = {key: figures["share"][key] for key in ("flops", "bandwidth")}
        nearest = max(share, key=share.__getitem__)
        limit = {"flops": "matrix products", "bandwidth": "memory traffic"}[nearest]
        rest = (
            f"what holds it is {limit}"
            if share[nearest] >= 0.5
            else f"that of {limit} is nearest, but most of the time goes into what is not counted: "
            "element-wise work, optimizer, metrics, input and the start of each operation"
        )
        peer = contenders[name.replace("ours", "torch")]["examples_per_second"]["median"]
        most = figures["share"]["limit"] / peer
        sentences.append(
            f"{name.capitalize()}, uses {share[nearest]:.0%} of its limit: {rest}. At the limit it "
            f"would be {most:.1f} times as fast as PyTorch is here."
        )
    return " ".join(sentences)


def joint_section(joint: dict[str, Any]) -> list[str]:
    """The table of `joint_retraining.py`."""
    lines = [
        "",
        "## A new task (`make bench-joint`)",
        "",
        "From raw rows to the kept epoch of the new task (education), with the settings of the "
        "demo. Joint retraining trains all three tasks from scratch, up to the first epoch with "
        "the validation AUC of prompt tuning, or to its best one. Its time over that of prompt "
        f"tuning: {between(joint['joint_over_prompt_tuning'])}.",
        "",
        "| seed | prompt tuning: s, epochs, AUC | joint: s, epochs, AUC | reached |",
        "| --- | --- | --- | --- |",
    ]
    for run in joint["runs"]:
        cells = [
            f"{way['seconds']:.1f}, {way['epochs']}, {way['auc']:.4f}"
            for way in (run["prompt_tuning"], run["joint"])
        ]
        reached = "yes" if run["joint"]["reached"] else "no"
        lines.append(f"| {run['seed']} | {' | '.join(cells)} | {reached} |")
    return lines


def tasks_section(many: dict[str, Any]) -> list[str]:
    """The tables of `many_tasks.py`."""
    labels = ", ".join(f"`{label}`" for label in many["labels"])
    lines = [
        "",
        "## Many tasks (`make bench-tasks`)",
        "",
        f"Each frequent value of {labels} is a binary task; these columns, and those that give "
        "them away, are no features. The ratios are to the fewest tasks.",
        "",
        f"Training, batch {many['batch']}, {many['rows']:,} rows:",
        "",
        "| tasks | µs an example | ratio |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {row['tasks']} | {row['microseconds_an_example']:.1f} | {between(row['ratio'])} |"
        for row in many["training"]
    ]
    lines += [
        "",
        "Serving, a session run of the exported graph with two tasks of stage 1 and added ones:",
        "",
        "| rows | added | ms | ratio | µs for each added task |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in many["serving"]:
        ratio = {"median": row["ratio"], "min": row["ratio_min"], "max": row["ratio_max"]}
        cost = f"{1e3 * cost_a_task(many['serving'], row):.0f}" if row["added"] else ""
        lines.append(
            f"| {row['batch']} | {row['added']} | {row['p50_ms']:.2f} | {between(ratio)} | {cost} |"
        )
    return [*lines, "", "![Cost of a task](performance_tasks.svg)"]


def cost_a_task(serving: list[dict[str, Any]], row: dict[str, Any]) -> float:
    """Milliseconds that each added task costs, over the graph with the fewest."""
    fewest = min((r for r in serving if r["batch"] == row["batch"]), key=lambda r: r["added"])
    return (row["p50_ms"] - fewest["p50_ms"]) / max(row["added"] - fewest["added"], 1)


def between(ratio: dict[str, float]) -> str:
    """Median and range."""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


@mpl.rc_context(STYLE)
def throughput_plot(speed: dict[str, Any], path: pathlib.Path) -> None:
    """Examples per second of each contender, the range over the turns, the machine's limit."""
    contenders = speed["limits"]["contenders"]
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    for axes, stage in zip(figure.subplots(1, 2), (1, 2), strict=True):
        names = [name for name in contenders if f"stage {stage}" in name]
        for place, name in enumerate(names):
            rate = contenders[name]["examples_per_second"]
            color = COLORS[0] if name.startswith("ours") else GREY
            axes.bar(place, rate["median"], color=color, width=0.6)
            ends = [[rate["median"] - rate["min"]], [rate["max"] - rate["median"]]]
            axes.errorbar(place, rate["median"], ends, color="black", capsize=3, linewidth=1)
            limit = contenders[name]["share"]["limit"]
            axes.hlines(limit, place - 0.35, place + 0.35, color=COLORS[2], linewidth=2)
        axes.set_xticks(range(len(names)), [label_of(name) for name in names])
        axes.set_title(f"Stage {stage}, examples a second")
        axes.grid(axis="x", visible=False)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_formatter("{x:,.0f}")
    handle = mpl.lines.Line2D([], [], color=COLORS[2], linewidth=2)
    figure.legend([handle], ["the machine's limit for that way"], loc="outside lower center")
    figure.savefig(path, metadata={"Date": None})


def label_of(name: str) -> str:
    """A contender's name under its bar."""
    if name.startswith("ours"):
        return "mptrec_tf"
    return "PyTorch,\na dict a row" if name.endswith("rows") else "PyTorch"


@mpl.rc_context(STYLE)
def tasks_plot(many: dict[str, Any], path: pathlib.Path) -> None:
    """Training by number of tasks, serving by number of added ones."""
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    training, serving = figure.subplots(1, 2)
    rows = many["training"]
    training.plot(
        [row["tasks"] for row in rows],
        [row["microseconds_an_example"] for row in rows],
        "o-",
        color=COLORS[0],
    )
    training.set_title("Training, µs an example")
    training.set_xlabel("tasks")
    for color, batch in zip(
        COLORS, sorted({row["batch"] for row in many["serving"]}), strict=False
    ):
        rows = [row for row in many["serving"] if row["batch"] == batch]
        serving.plot(
            [row["added"] for row in rows],
            [row["p50_ms"] for row in rows],
            "o-",
            color=color,
            label=f"{batch} rows" if batch > 1 else "1 row",
        )
    serving.set_title("Serving, ms a request")
    serving.set_xlabel("added tasks")
    serving.legend()
    for axes in (training, serving):
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
