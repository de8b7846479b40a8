"""What a task costs: training with 2, 8 and 32 tasks, serving with 0 to 32 added ones.

The tasks are real: four columns of Census-income leave the features, and each of their most
frequent values is a binary task, "the column has this value". The columns that would give those
away (detailed industry and occupation) leave the features as well. Of interest is the cost, not the
quality.

    make bench-tasks
"""

import argparse
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pandas as pd

from harness.workers import progress_printer, spread
from mptrec_tf import FeatureEncoder, MPTRec, Task, make_dataset
from mptrec_tf.data import census_income
from mptrec_tf.serving import export
from mptrec_tf.serving.exporting.samples import raw_rows, to_examples
from mptrec_tf.spec import Feature
from serving_latency import compare, session_call

LABELS = ("education", "marital_stat", "major_occupation_code", "major_industry_code")
TOO_CLOSE = ("detailed_industry_recode", "detailed_occupation_recode")
TRAINED = (2, 8, 32)
ADDED = (0, 1, 2, 4, 8, 16, 32)
BATCHES = (1, 64)
BATCH = 512

Say = Callable[[str], None]


def main() -> None:
    """Measures training and serving, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="rows of a training epoch")
    parser.add_argument("--repetitions", type=int, default=5, help="epochs of each size")
    parser.add_argument("--rounds", type=int, default=10, help="ratios are taken within a round")
    parser.add_argument("--calls", type=int, default=100, help="calls a round, of each size")
    parser.add_argument("--trained", type=int, nargs="+", default=TRAINED)
    parser.add_argument("--added", type=int, nargs="+", default=ADDED)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/bench-speed"))
    args = parser.parse_args()
    say = progress_printer()
    frame = census_income.load().train[: args.rows]
    features, tasks = task_per_value(frame)
    encoder = FeatureEncoder(features).adapt(frame)
    results = {
        "labels": LABELS,
        "rows": len(frame),
        "batch": BATCH,
        "training": measure_training(frame, encoder, tasks, args, say),
        "serving": measure_serving(frame, encoder, tasks, args, say),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "many_tasks.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {path}")


def task_per_value(frame: pd.DataFrame) -> tuple[list[Feature], list[Task]]:
    """The features that are left, and a task for each value, the most frequent ones first.

    Args:
        frame: Rows of Census-income.
    """
    counts = [
        (int(count), column, str(value))
        for column in LABELS
        for value, count in frame[column].value_counts().items()
    ]
    counts.sort(key=lambda entry: -entry[0])
    tasks = [
        Task(f"{column}_{number}", label=column, positive=value)
        for number, (_, column, value) in enumerate(counts)
    ]
    left_out = {*LABELS, *TOO_CLOSE}
    return [f for f in census_income.spec().features if f.name not in left_out], tasks


def measure_training(
    frame: pd.DataFrame,
    encoder: FeatureEncoder,
    tasks: Sequence[Task],
    args: argparse.Namespace,
    say: Say,
) -> list[dict]:
    """Seconds an epoch by number of tasks, in turns; the first epoch does not count."""
    fits = {}
    for count in args.trained:
        chosen = tasks[:count]
        model = MPTRec(encoder, chosen)
        model.compile(keras.optimizers.Adam(1e-3))
        data = make_dataset(frame, encoder, chosen, batch_size=BATCH, shuffle=True)
        fits[count] = (model, data)
        say(f"warming up: {count} tasks")
        model.fit(data, verbose=0)
    seconds: dict[int, list[float]] = {count: [] for count in fits}
    for turn in range(args.repetitions):
        for count, (model, data) in fits.items():
            start = time.perf_counter()
            model.fit(data, verbose=0)
            seconds[count].append(time.perf_counter() - start)
            say(f"  {turn + 1}/{args.repetitions} {count} tasks: {seconds[count][-1]:.2f} s")
    fewest = seconds[min(seconds)]
    return [
        {
            "tasks": count,
            "seconds": spread(epochs),
            "microseconds_an_example": 1e6 * spread(epochs)["median"] / len(frame),
            "ratio": spread([a / b for a, b in zip(epochs, fewest, strict=True)]),
        }
        for count, epochs in seconds.items()
    ]


def measure_serving(
    frame: pd.DataFrame,
    encoder: FeatureEncoder,
    tasks: Sequence[Task],
    args: argparse.Namespace,
    say: Say,
) -> list[dict]:
    """A session run of the exported graph by number of added tasks."""
    old, new = tasks[:2], tasks[2:]
    model = MPTRec(encoder, old)
    model.compile("adam")
    model.fit(make_dataset(frame[:BATCH], encoder, old, batch_size=BATCH), verbose=0)
    examples = to_examples(encoder.features, raw_rows(encoder.features, frame, max(BATCHES)))
    results = []
    with tempfile.TemporaryDirectory() as name:
        versions = {}
        for added in range(max(args.added) + 1):
            if added:
                model.add_task(new[added - 1])
            if added in args.added:
                say(f"exporting: {added} added tasks")
                base_path = pathlib.Path(name, f"added{added}", "census")
                versions[added] = export(model, base_path, rows=frame, warmup_batch_sizes=BATCHES)
        for batch in BATCHES:
            say(f"serving {batch} rows")
            calls = {str(a): session_call(v, examples[:batch]) for a, v in versions.items()}
            figures = compare(calls, str(min(versions)), args)
            results += [{"batch": batch, "added": int(a), **f} for a, f in figures.items()]
    return results


if __name__ == "__main__":
    main()
