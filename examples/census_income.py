"""MPT-Rec on the full Census-income data: two tasks together, then a third by prompt tuning.

Writes `stage1.keras`, `model.keras`, `results.json` and `report.html` under `--output`, and both
stages as versions of a served model under `--output/serving/census`. A run that was cut off goes on
where it was.

    python examples/census_income.py
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pandas as pd
import tensorflow as tf

from mptrec_tf.config import Config
from mptrec_tf.evaluation import evaluate, results_table, two_stage_results, write_report
from mptrec_tf.models import MPTRec, load_model
from mptrec_tf.serving import Client, Manifest, export
from mptrec_tf.serving.local import LocalServer
from mptrec_tf.training import pretrain, prompt_tune

ROOT = pathlib.Path(__file__).resolve().parent.parent
NEW_TASK = "education"


def main() -> None:
    """Runs both stages, scores the test rows once at the end, writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "configs/census_income.yaml")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    tf.get_logger().setLevel("ERROR")
    config = Config.from_yaml(args.config)
    sources = config.data.sources()

    print(f"Stage 1: {' and '.join(config.stage1.tasks)} together")
    stage1 = pretrain(config, sources, args.output, seed=args.seed, verbose=2)
    for task, metrics in evaluate(stage1.model, sources.validation).items():
        print(f"  validation AUC of {task}: {metrics['auc']:.4f}")

    print(f"Stage 2: {NEW_TASK} by prompt tuning, everything older frozen")
    model = stage1.model
    stage2 = prompt_tune(config, model, NEW_TASK, sources, args.output, seed=args.seed, verbose=2)

    print("Scoring both saved models on validation and test")
    results = two_stage_results(config, sources, args.output, stage1, stage2, seed=args.seed)
    (args.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    title = "Census-income: a new task, the old ones untouched"
    write_report(results, args.output / "report.html", title=title)

    print(f"\n{results_table(results)}")
    print("\nExporting both stages for TensorFlow Serving")
    base_path = args.output / "serving" / "census"
    for version, stage, file in ((1, "stage1", "stage1.keras"), (2, "stage2", "model.keras")):
        path = export_version(
            load_model(args.output / file), base_path, version, sources.test, results[stage]["test"]
        )
        print(f"  {path}")
    ask(base_path, sources.test, [*config.stage1.tasks, NEW_TASK])

    print(f"\nReport: {args.output / 'report.html'}")


def export_version(
    model: MPTRec, base_path: pathlib.Path, version: int, rows: str, metrics: dict
) -> pathlib.Path:
    """Exports a model, unless an earlier run of the demo has done it."""
    path = base_path / str(version)
    if path.is_dir() and Manifest.read(path).fingerprint == model.fingerprint():
        return path
    return export(model, base_path, version, rows=rows, metrics=metrics)


def ask(base_path: pathlib.Path, source: str, tasks: list[str]) -> None:
    """One request to the newest version, on the local server, over REST."""
    rows = pd.read_parquet(source)[:3].reset_index(drop=True)
    with LocalServer(base_path) as server, Client(server.rest_url, "census") as client:
        print(f"\nOne request to the local server, version {client.status()[0].version}:")
        scores = pd.DataFrame(client.predict(rows))[tasks].round(4)
    print(rows[["age", "sex", "major_occupation_code"]].join(scores).to_string(index=False))


if __name__ == "__main__":
    main()
