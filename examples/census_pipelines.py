"""The TFX pipelines on the full Census-income data: stage 1, a new task, one more, nothing changed.

Each run is a process of its own, `mptrec pipeline run`, and is timed whole, start-up included.
Writes `results.json`, a report for each run and the served versions under `--output`. A demo that
was cut off goes on where it was; then its times are those of the last try.

    python examples/census_pipelines.py
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

import pyarrow.parquet

from mptrec_cli.output import print_table, write_json
from mptrec_tf.config import Config
from mptrec_tf.files import write_text
from mptrec_tf.pipeline_config import PipelineConfig
from mptrec_tf.spec import Task
from mptrec_tf.spec.parsing import dump, to_yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECOND = Task(
    "advanced_degree",
    label="education",
    positive=(
        "Masters degree(MA MS MEng MEd MSW MBA)",
        "Prof school degree (MD DDS DVM LLB JD)",
        "Doctorate degree(PhD EdD)",
    ),
)


def main() -> None:
    """Runs the pipelines one after another and writes what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "configs/census_income.yaml")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/pipeline-demo"))
    parser.add_argument(
        "--docs", type=pathlib.Path, help="directory that figures for the documents are written to"
    )
    args = parser.parse_args()
    config = Config.from_yaml(args.config)
    config = dataclasses.replace(config, tasks=(*config.tasks, SECOND))
    rows = sum(pyarrow.parquet.read_metadata(path).num_rows for path in config.data.sources())
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "config.yaml"
    write_text(file, to_yaml(dump(config)))

    results: dict[str, Any] = {
        "rows": rows,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "stages": {},
        "unchanged": {},
    }
    for task in (None, "education", SECOND.name):
        name = task or "pretrain"
        seconds, peak = run(file, task, args.output)
        results["stages"][name] = {
            **pushed(config.pipeline, args.output, name),
            "seconds": seconds,
            "peak_mib": peak,
        }
        write_json(args.output / "results.json", results)
        if task == "education":  # before there is a newer version
            for again in (None, task):
                seconds, _ = run(file, again, args.output)
                results["unchanged"][again or "pretrain"] = seconds
    stages = results["stages"]
    results["cold_seconds"] = stages["pretrain"]["seconds"] + stages["education"]["seconds"]
    write_json(args.output / "results.json", results)
    print_table(
        ["stage", "version", "seconds", *config_tasks(results)],
        [
            [name, s["version"], s["seconds"], *(s["auc"].get(t) for t in config_tasks(results))]
            for name, s in stages.items()
        ],
    )
    print(f"\nresults: {args.output / 'results.json'}")
    if args.docs is not None:
        write_docs(results, args.output, args.docs)


def run(config: pathlib.Path, task: str | None, output: pathlib.Path) -> tuple[int, int]:
    """One run of a pipeline.

    Args:
        config: The configuration.
        task: The new task, or `None` for stage 1.
        output: The directory of the runs.

    Returns:
        Seconds, and the peak of its memory in MiB.
    """
    stage = ["--stage", "pretrain"] if task is None else ["--stage", "prompt_tune", "--task", task]
    command = [sys.executable, "-m", "mptrec_cli", "pipeline", "run", *stage]
    begun = time.monotonic()
    process = subprocess.Popen(  # noqa: S603
        [*command, "--config", str(config), "--output", str(output)]
    )
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"the run of {task or 'pretrain'} failed")
    return round(time.monotonic() - begun), round(usage.ru_maxrss / 1024)


def pushed(config: PipelineConfig, output: pathlib.Path, name: str) -> dict[str, Any]:
    """What ML Metadata knows of the last version.

    Args:
        config: The section `pipeline`.
        output: The directory of the runs.
        name: `"pretrain"` or the task.
    """
    from pipelines.metadata import Store, connection, push_directory
    from pipelines.reporting.metrics import metrics_of
    from pipelines.reporting.verdict import gate_verdict

    store = Store(connection(config, output))
    last = store.last_pushed(push_directory(config, output))
    latest = [r for r in store.runs() if r.pipeline == f"{config.name}-{name}"][-1]
    made = {e.component: e.outputs for e in latest.executions}
    rows = metrics_of(made["Evaluator"]["evaluation"][0].uri)
    gate = made.get("FrozenTaskGate")
    return {
        "version": last.version,
        "directory": last.directory,
        "auc": {r.task: r.value for r in rows if (r.slice, r.metric) == ("all rows", "auc")},
        "gate": None if gate is None else gate_verdict(gate["blessing"][0].uri)["verdict"],
        "components": {e.component: round(e.seconds or 0, 1) for e in latest.executions},
    }


def config_tasks(results: dict[str, Any]) -> list[str]:
    """Every task of the last version."""
    return list(list(results["stages"].values())[-1]["auc"])


def write_docs(results: dict[str, Any], output: pathlib.Path, docs: pathlib.Path) -> None:
    """Figures and a picture for the documents.

    Args:
        results: The results.
        output: The directory of the runs.
        docs: Where to.
    """
    tasks = config_tasks(results)
    plain = json.loads(json.dumps(results))
    for stage in plain["stages"].values():
        stage["directory"] = os.path.relpath(stage["directory"], output)
    write_json(docs / "pipelines_results.json", plain)
    lines = [
        "# The pipelines on Census-income: figures",
        "",
        "Written by `make pipeline-demo-docs` from `docs/pipelines_results.json`. "
        f"{results['rows']:,} rows, {results['machine']['cpus']} cores; the test rows were used "
        "for the evaluation alone.",
        "",
        "| run | pushed as | seconds | peak memory, MiB | "
        f"{' | '.join(f'AUC {task}' for task in tasks)} |",
        "| --- " * (4 + len(tasks)) + "|",
    ]
    for name, stage in results["stages"].items():
        aucs = [f"{stage['auc'][t]:.4f}" if t in stage["auc"] else "" for t in tasks]
        lines.append(
            f"| {name} | version {stage['version']} | {stage['seconds']} | {stage['peak_mib']:,} | "
            f"{' | '.join(aucs)} |"
        )
    unchanged = ", ".join(f"{name} {s} s" for name, s in results["unchanged"].items())
    lines += [
        "",
        f"Both stages cold: {results['cold_seconds']} s. Again with nothing changed: {unchanged}.",
        "",
        "| seconds of a component | " + " | ".join(results["stages"]) + " |",
        "| --- " * (1 + len(results["stages"])) + "|",
    ]
    components = dict.fromkeys(c for s in results["stages"].values() for c in s["components"])
    for component in components:
        cells = [str(s["components"].get(component, "")) for s in results["stages"].values()]
        lines.append(f"| {component} | {' | '.join(cells)} |")
    lines += ["", *(f"- {n}: {s['gate']}" for n, s in results["stages"].items() if s["gate"])]
    memory = docs / "pipeline_memory.json"
    if memory.is_file():
        measured = json.loads(memory.read_text())
        small, large = measured["runs"]
        lines += [
            "",
            f"Peak memory of stage 1 with {large['rows']:,} rows (the same rows repeated): "
            f"{large['peak_mib']:,} MiB, with {small['rows']:,} rows {small['peak_mib']:,} MiB: "
            f"{measured['ratio']} times (`python benchmarks/pipeline_memory.py`).",
        ]
    write_text(docs / "pipelines_figures.md", "\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mptrec_cli", "pipeline", "lineage", "--output", str(output)]
    picture = ["--picture", str(docs / "pipelines_lineage.svg")]
    subprocess.run([*command, *picture], check=True, stdout=subprocess.DEVNULL)  # noqa: S603


if __name__ == "__main__":
    main()
