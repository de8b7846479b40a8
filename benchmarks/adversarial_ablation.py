"""What the adversarial part of stage 1 is worth on Census-income: every form, several seeds.

For each form and seed: stage 1 on income and marital, then education by prompt tuning, scored on
validation and test. A finished run is never repeated: each is stored in `--runs` as it ends.

    python benchmarks/adversarial_ablation.py --forms representations none --seeds 0 1 2
"""

import argparse
import dataclasses
import json
import os
import pathlib

import numpy as np

FORMS: dict[str, dict[str, object]] = {
    "representations": {"adversarial": "representations", "adversarial_weight": 0.1},
    "none": {"adversarial": None},
    "assigned": {"adversarial": "assigned", "adversarial_weight": 0.1},
}
NEW_TASK = "education"
TASKS = ("income", "marital", NEW_TASK)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(
    config_path: pathlib.Path, form: str, seed: int, directory: pathlib.Path
) -> dict[str, dict]:
    """Both stages with one form and one seed; the AUC of each task on validation and test."""
    from mptrec_tf.config import Config
    from mptrec_tf.evaluation import evaluate
    from mptrec_tf.training import pretrain, prompt_tune

    config = Config.from_yaml(config_path)
    model_config = dataclasses.replace(config.stage1.model, **FORMS[form])
    config = dataclasses.replace(
        config, stage1=dataclasses.replace(config.stage1, model=model_config)
    )
    sources = config.data.sources()
    model = pretrain(config, sources, directory, seed=seed, verbose=0).model
    prompt_tune(config, model, NEW_TASK, sources, directory, seed=seed, verbose=0)
    parts = {"validation": sources.validation, "test": sources.test}
    return {
        part: {task: metrics["auc"] for task, metrics in evaluate(model, source).items()}
        for part, source in parts.items()
    }


def main() -> None:
    """Runs what is not done yet and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "configs/census_income.yaml")
    parser.add_argument("--runs", type=pathlib.Path, default=ROOT / "runs/ablation")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs/census_ablation.json")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    for form in args.forms:
        for seed in args.seeds:
            directory = args.runs / form / str(seed)
            stored = directory / "results.json"
            if not stored.is_file():
                results = run(args.config, form, seed, directory)
                stored.write_text(json.dumps(results, indent=1))
            print(form, seed, json.loads(stored.read_text()), flush=True)
    forms: dict[str, dict] = {form: {"validation": {}, "test": {}} for form in args.forms}
    for form, parts in forms.items():
        for seed in args.seeds:
            results = json.loads((args.runs / form / str(seed) / "results.json").read_text())
            for part, tasks in results.items():
                for task, auc in tasks.items():
                    parts[part].setdefault(task, []).append(auc)
    command = "python benchmarks/adversarial_ablation.py"
    command += f" --forms {' '.join(args.forms)} --seeds {' '.join(map(str, args.seeds))}"
    table = {"command": command, "seeds": args.seeds, "forms": forms}
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(table, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(table))


def markdown(table: dict) -> str:
    """The table of mean and standard deviation over the seeds, with the command that made it."""
    columns = [(part, task) for part in ("validation", "test") for task in TASKS]
    lines = [
        f"<!-- Made by `{table['command']}`. -->",
        f"AUC, mean ± standard deviation over {len(table['seeds'])} seeds.",
        "",
        "| adversarial | " + " | ".join(f"{part}: {task}" for part, task in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for form, parts in table["forms"].items():
        values = [parts[part][task] for part, task in columns]
        cells = [f"{np.mean(v):.4f} ± {np.std(v):.4f}" for v in values]
        lines.append(f"| {form} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
