"""How fast training is: ours and PyTorch in turns, in one run, ratios pair by pair.

The published run on Census-income (two tasks, then a third by prompt tuning), plain `fit`, against
the same model in PyTorch (`peers/`), which proves before it is measured that it gives the same loss
and gradients. A turn of a contender is a process of its own: a warm-up, then three epochs, of
which the fastest counts. Also the cost of a large vocabulary (`large_vocabulary.py`) and the
machine's limits.

    make bench-speed

Writes `results.json` under `--output`; `make bench-speed-docs` makes docs/performance.md from it.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Callable

from harness.costs import Shapes, share_of_limits, stage1_cost, stage2_cost
from harness.workers import (
    BENCHMARKS,
    Process,
    WorkerError,
    progress_printer,
    run_once,
    spread,
    take_turns,
    throughput_ratio,
)

ROOT = BENCHMARKS.parent
OURS = [sys.executable, str(BENCHMARKS / "harness/mptrec_worker.py")]
PEAKS = [sys.executable, str(BENCHMARKS / "harness/peaks.py")]
VOCABULARY = """
import json, sys, large_vocabulary
print(json.dumps(large_vocabulary.measure(int(sys.argv[1]), sys.argv[2])))
"""

Say = Callable[[str], None]


def main() -> None:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", type=pathlib.Path, default=ROOT / ".venv-torch/bin/python")
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--rows", type=int, help="at most so many rows, to try the harness")
    parser.add_argument("--form", help="PyTorch's form, instead of trying all")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "runs/bench-speed")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not args.torch.is_file():
        raise SystemExit(f"{args.torch} does not exist: run make bench-speed, which makes it")
    say = progress_printer()
    try:
        results = measure(args, say)
    except WorkerError as error:
        raise SystemExit(str(error)) from error
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    for name, value in results.items():
        if isinstance(value, dict) and "median" in value:
            print(f"{name}: {value['median']:.3g} ({value['min']:.3g} to {value['max']:.3g})")
    print(f"written to {path}")


def measure(args: argparse.Namespace, say: Say) -> dict:
    """All figures."""
    with tempfile.TemporaryDirectory() as name:
        data = pathlib.Path(name)
        say("encoding Census-income, and what one step must give")
        limit = ["--rows", str(args.rows)] if args.rows else []
        run_once("preparing", [*OURS, "--prepare", name, *limit])
        settings = json.loads((data / "settings.json").read_text())
        contenders, tried = commands(args, data, limit, say)
        say("taking turns")
        turns, chosen = take_turns(contenders, args.repetitions, say)
        chosen = {name: said | tried.get(name, {}) for name, said in chosen.items()}
    say("ids: 10 thousand against 10 million")
    command = [sys.executable, "-c", VOCABULARY, str(args.repetitions), str(args.torch)]
    vocabulary = json.loads(run_once("large_vocabulary.py", command).splitlines()[-1])
    say("the machine's limits")
    peaks = json.loads(run_once("peaks.py", PEAKS))["ready"]
    peaks["flops"] = max(peaks["flops"], chosen["torch, stage 1"]["flops"])
    ours1, ours2 = turns["ours, stage 1"], turns["ours, stage 2"]
    pairs = zip(ours1, ours2, strict=True)
    return {
        "stage1_vs_torch": throughput_ratio(ours1, turns["torch, stage 1"]),
        "stage1_vs_row_loader": throughput_ratio(ours1, turns["torch, stage 1, rows"]),
        "stage2_vs_torch": throughput_ratio(ours2, turns["torch, stage 2"]),
        "stage2_epoch_over_stage1_epoch": spread([b["seconds"] / a["seconds"] for a, b in pairs]),
        "vocabulary_step_ratio": {key: vocabulary[key] for key in ("median", "min", "max")},
        "vocabulary": vocabulary,
        "turns": turns,
        "chosen": chosen,
        "limits": limits(settings, peaks, turns),
        "settings": settings,
        "machine": {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        },
    }


def commands(
    args: argparse.Namespace, data: pathlib.Path, limit: list[str], say: Say
) -> tuple[dict[str, list[str]], dict[str, dict]]:
    """The contenders, PyTorch in its fastest form of each stage; what was tried for that."""
    peer = [str(args.torch), str(BENCHMARKS / "peers/torch_worker.py"), "--data", str(data)]
    tried: dict[str, dict] = {}
    for stage in (1, 2):
        say(f"PyTorch's forms, stage {stage}")
        process = Process(
            f"torch, stage {stage}",
            [*peer, "--stage", str(stage), *(["--form", args.form] if args.form else [])],
        )
        try:
            process.wait_until_ready()
        finally:
            process.close()
        tried[process.name] = process.chosen
        say(f"  {process.chosen}")
    forms = [tried[f"torch, stage {stage}"]["form"] for stage in (1, 2)]
    return {
        "ours, stage 1": [*OURS, "--stage", "1", *limit],
        "torch, stage 1": [*peer, "--stage", "1", "--form", forms[0]],
        "torch, stage 1, rows": [*peer, "--stage", "1", "--input", "rows", "--form", forms[0]],
        "ours, stage 2": [*OURS, "--stage", "2", *limit],
        "torch, stage 2": [*peer, "--stage", "2", "--form", forms[1]],
    }, tried


def limits(settings: dict, peaks: dict, turns: dict[str, list[dict]]) -> dict:
    """How much of the machine each contender uses, at its median throughput."""
    columns, numbers = len(settings["offsets"]), len(settings["means"])
    embedded = columns * settings["embedding_dim"]
    shapes = Shapes(
        inputs=numbers + embedded,
        embedded=embedded,
        tasks=len(settings["tasks"]),
        expert_units=tuple(settings["expert_units"]),
        tower_units=tuple(settings["tower_units"]),
        query_units=settings["expert_units"][-1] // 2,
    )
    batch = settings["batch"]
    stage1 = stage1_cost(shapes, batch)
    costs = {
        "ours, stage 1": stage1,
        "torch, stage 1": stage1,
        "torch, stage 1, rows": stage1,
        "ours, stage 2": stage2_cost(shapes, batch, cached=True),
        "torch, stage 2": stage2_cost(shapes, batch, cached=False),
    }
    contenders = {}
    for name, cost in costs.items():
        rate = spread([turn["examples"] / turn["seconds"] for turn in turns[name]])
        contenders[name] = {
            "examples_per_second": rate,
            "cost": dataclasses.asdict(cost),
            "share": share_of_limits(cost, peaks, rate["median"]),
        }
    return {"peaks": peaks, "contenders": contenders}


if __name__ == "__main__":
    main()
