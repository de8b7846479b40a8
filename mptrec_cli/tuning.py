"""`mptrec tune`: a search for better settings of a stage."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from mptrec_cli.arguments import (
    add_command,
    add_config,
    add_training,
    check_training,
    existing_file,
    sources_of,
)
from mptrec_cli.output import UsageError, note, print_table, write_json
from mptrec_cli.startup import start_tensorflow

if TYPE_CHECKING:
    from mptrec_tf.config import Config, Sources
    from mptrec_tf.tuning import StageHyperModel, StageTuner

TUNE = """\
Searches for better settings of a stage by Bayesian optimization. What may be tried is the section
`tuner` of the configuration; trial 1 is the configuration as it is, where the space contains its
values. A trial is trained as `train` or `add-task` would, and is judged by what early stopping
watches on the validation rows; test rows are not read.

Written to DIR, where NAME is stage1, or the task of stage 2:
  NAME-best.yaml    the configuration with the best settings, for train or add-task
  NAME-trials.json  every trial: settings, validation metrics, seconds, or why it failed
  NAME-trials.png   the objective by trial and by setting
  tune-NAME/        the state of the search

A search that was cut off goes on where it was when the same command is given again, and one that is
over goes on with more --trials.

example:
  mptrec tune --config configs/census_income.yaml --output runs/tune
  mptrec train --config runs/tune/stage1-best.yaml --output runs/tuned
  mptrec tune --config runs/tune/stage1-best.yaml --stage stage2 --model runs/tuned/stage1.keras \\
      --task education --output runs/tune"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec tune`."""
    parser = add_command(
        commands, "tune", tune, summary="search for better settings", description=TUNE
    )
    add_config(parser)
    parser.add_argument(
        "--stage",
        choices=("stage1", "stage2"),
        default="stage1",
        help="what is tuned (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=existing_file,
        metavar="M.keras",
        help="for stage 2: the model that is to get the task",
    )
    parser.add_argument("--task", metavar="TASK", help="for stage 2: the new task")
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="most trials, those of earlier calls included (default: the configuration's)",
    )
    add_training(parser)


def tune(args: argparse.Namespace) -> None:
    """Searches, prints the trials, writes them and the best configuration."""
    needed = args.stage == "stage2"
    if any((option is not None) != needed for option in (args.model, args.task)):
        raise UsageError("--stage stage2 needs --model and --task; stage1 takes neither")
    if args.trials is not None and args.trials < 1:
        raise UsageError(f"--trials must be 1 or more, got {args.trials}")
    check_training(args)
    start_tensorflow()
    try:
        from mptrec_tf.tuning import StageTuner, plot_trials
        from mptrec_tf.tuning.hyperparameters import space_of
    except ImportError as error:
        raise UsageError(str(error)) from error
    from mptrec_tf.config import Config
    from mptrec_tf.files import write_text
    from mptrec_tf.spec.parsing import dump, to_yaml

    config = Config.from_yaml(args.config)
    space_of(config, args.stage)
    name = args.task or args.stage
    with contextlib.redirect_stdout(sys.stderr):
        tuner = StageTuner(
            _hypermodel(args, config, sources_of(config, args)),
            args.output / f"tune-{name}",
            trials=args.trials,
            report=lambda line: note(line, args.quiet),
        )
        done = len(tuner.results())
        if done:
            note(f"{tuner.project_dir}: going on after trial {done}", args.quiet)
        tuner.search()
    write_text(args.output / f"{name}-best.yaml", to_yaml(dump(tuner.best_config())))
    write_json(args.output / f"{name}-trials.json", _report(args, tuner))
    plot_trials(tuner, args.output / f"{name}-trials.png")
    _print(tuner)
    print(f"configuration: {args.output / f'{name}-best.yaml'}")


def _hypermodel(args: argparse.Namespace, config: Config, sources: Sources) -> StageHyperModel:
    from mptrec_cli.models import load_model_of
    from mptrec_tf.models import MPTRec
    from mptrec_tf.training.stages import stage1_data, stage2_data
    from mptrec_tf.tuning import Stage1HyperModel, Stage2HyperModel

    progress = not args.quiet
    if args.stage == "stage1":
        data = stage1_data(config, sources, progress=progress)
        return Stage1HyperModel(config, data, args.seed)
    model = load_model_of(config, args.model, MPTRec)
    data = stage2_data(config, model, args.task, sources, progress=progress)
    return Stage2HyperModel(config, args.model, args.task, data, args.seed)


def _report(args: argparse.Namespace, tuner: StageTuner) -> dict[str, Any]:
    return {
        "config": args.config,
        "stage": args.stage,
        "model": args.model,
        "task": args.task,
        "seed": args.seed,
        "objective": tuner.hypermodel.objective._asdict(),
        "best": tuner.best().number,
        "trials": [result._asdict() for result in tuner.results()],
    }


def _print(tuner: StageTuner) -> None:
    """The trials, the best one first, then what failed."""
    from mptrec_tf.tuning.tuner import show

    metric, mode = tuner.hypermodel.objective
    results = tuner.results()
    failed = [result for result in results if result.error is not None]
    scored = sorted(
        (result for result in results if result.error is None),
        key=lambda result: result.objective,
        reverse=mode == "max",
    )
    print_table(
        ["trial", metric, "seconds", *results[0].values],
        [
            [r.number, r.objective, round(r.metrics["seconds"]), *map(show, r.values.values())]
            for r in scored
        ]
        + [[r.number, None, None, *map(show, r.values.values())] for r in failed],
    )
    for result in failed:
        print(f"trial {result.number} failed: {result.reason}")
    print(f"\nbest trial: {tuner.best().number} of {len(results)}")
