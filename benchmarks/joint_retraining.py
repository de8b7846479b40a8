"""What a new task costs: prompt tuning against training all tasks anew, with the demo's settings.

Both begin with raw rows and end with the epoch that is kept. Prompt tuning reads the rows, computes
the frozen representations once and trains the module up to its best validation AUC. Joint
retraining reads the rows and trains the old tasks and the new one together from scratch, up to the
first epoch whose validation AUC of the new task is that of prompt tuning, or to its best one if it
never gets there. Stage 1, which is there before the new task, is trained first and not counted.

Not part of `make bench-speed`: about five minutes for each seed.

    make bench-joint
"""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from harness.workers import BENCHMARKS, progress_printer, spread
from mptrec_tf.config import Config, Sources
from mptrec_tf.training import Trained, pretrain, prompt_tune

NEW_TASK = "education"
AUC = f"val_{NEW_TASK}_auc"


def main() -> None:
    """Measures every seed and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="at most so many a stage, to try the script")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/bench-speed"))
    args = parser.parse_args()
    config = Config.from_yaml(BENCHMARKS.parent / "configs/census_income.yaml")
    if args.epochs:
        config = with_epochs(config, args.epochs)
    sources = config.data.sources()
    say = progress_printer()
    runs = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as directory:
            runs.append(measure(config, sources, pathlib.Path(directory), seed, say))
    results = {
        "joint_over_prompt_tuning": spread(
            [run["joint"]["seconds"] / run["prompt_tuning"]["seconds"] for run in runs]
        ),
        "runs": runs,
    }
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "joint_retraining.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{results['joint_over_prompt_tuning']}, written to {path}")


def measure(
    config: Config, sources: Sources, directory: pathlib.Path, seed: int, say: Callable[[str], None]
) -> dict:
    """Both ways to the new task with one seed.

    Args:
        config: The demo's configuration.
        sources: Its rows.
        directory: Where the models and the states of the trainings are written.
        seed: The seed.
        say: Gets a line for each step.
    """
    say(f"seed {seed}: stage 1, not counted")
    model = pretrain(config, sources, directory / "old", seed=seed, verbose=0).model
    say(f"seed {seed}: prompt tuning of {NEW_TASK}")
    begun = time.perf_counter()
    tuned = prompt_tune(config, model, NEW_TASK, sources, directory / "new", seed=seed, verbose=0)
    tuned_wall = time.perf_counter() - begun
    together = dataclasses.replace(config.stage1, tasks=(*config.stage1.tasks, NEW_TASK))
    joint_config = dataclasses.replace(config, stage1=together)
    say(f"seed {seed}: joint retraining")
    begun = time.perf_counter()
    joint = pretrain(joint_config, sources, directory / "joint", seed=seed, verbose=0)
    joint_wall = time.perf_counter() - begun
    target = tuned.epochs[tuned.best_epoch][AUC]
    kept = epoch_that_reaches([epoch[AUC] for epoch in joint.epochs], target)
    return {
        "seed": seed,
        "prompt_tuning": {
            "seconds": seconds_to(tuned, tuned.best_epoch, tuned_wall),
            "epochs": tuned.best_epoch + 1,
            "auc": target,
        },
        "joint": {
            "seconds": seconds_to(joint, kept, joint_wall),
            "epochs": kept + 1,
            "auc": joint.epochs[kept][AUC],
            "reached": joint.epochs[kept][AUC] >= target,
        },
    }


def epoch_that_reaches(values: Sequence[float], target: float) -> int:
    """The first epoch whose value is the target or more, else the best one.

    Example:

    >>> epoch_that_reaches([0.5, 0.7, 0.8], 0.6), epoch_that_reaches([0.5, 0.7, 0.6], 0.9)
    (1, 1)
    """
    reached = [epoch for epoch, value in enumerate(values) if value >= target]
    return reached[0] if reached else max(range(len(values)), key=values.__getitem__)


def seconds_to(trained: Trained, epoch: int, wall: float) -> float:
    """The time up to the end of an epoch: all that was spent, less the epochs after it."""
    return wall - sum(later["seconds"] for later in trained.epochs[epoch + 1 :])


def with_epochs(config: Config, epochs: int) -> Config:
    """The configuration with at most so many epochs in each stage."""
    stages = {
        name: dataclasses.replace(
            stage, training=dataclasses.replace(stage.training, epochs=epochs)
        )
        for name, stage in (("stage1", config.stage1), ("stage2", config.stage2))
    }
    return dataclasses.replace(config, **stages)


if __name__ == "__main__":
    main()
