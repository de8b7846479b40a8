"""`mptrec train` and `mptrec add-task`: stage 1 and stage 2."""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from mptrec_cli.arguments import (
    add_command,
    add_config,
    add_model,
    add_training,
    check_training,
    existing_file,
    sources_of,
)
from mptrec_cli.output import note, print_metrics, print_table, write_json
from mptrec_cli.startup import start_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

    from mptrec_tf.training import Trained

TRAIN = """\
Stage 1: learns the encoding from the training rows and trains the tasks of `stage1` together.

Written to DIR:
  stage1.keras         the model of the best epoch, with its encoding
  stage1-results.json  exact metrics of each task on the validation rows, metrics of every epoch
  stage1/              the state of the training after its last finished epoch

A run that was cut off goes on after its last finished epoch when the same command is given again.
Where TF_CONFIG names several workers, the same command on each trains with all of them; DIR is on a
disk that they share.

With --warm-start, the model begins with what an earlier one learned, wherever it has a counterpart:
embeddings by category, so there may be new categories; experts, gates and towers by task and
feature. What was taken and what was not is shown, and written to stage1-results.json.

example:
  mptrec train --config configs/census_income.yaml --output runs/census
  mptrec train --config shop.yaml --warm-start runs/monday/stage1.keras --output runs/tuesday"""

ADD_TASK = """\
Stage 2: adds a task of the configuration to a trained model by prompt tuning. Everything older is
frozen; that the older tasks did not change by one bit is checked.

The training rows may be others than those of stage 1 and need not have the older tasks' labels.

Written to DIR:
  model.keras          the model with the new task
  TASK-results.json    exact metrics on the validation rows, of the older tasks before and after
                       where these rows have their labels; parameters; whether the older tasks'
                       predictions are identical; seconds; metrics of every epoch
  stage2-TASK/         the state of the training after its last finished epoch, and with
                       `cache: disk` what the frozen part makes of each row

A model.keras that is there is replaced, unless it has tasks that the new one would lack. A further
task begins with the model that has those before it: --model DIR/model.keras.

A run that was cut off goes on after its last finished epoch when the same command is given again.
Where TF_CONFIG names several workers, the same command on each trains with all of them; DIR is on a
disk that they share.

example:
  mptrec add-task --config configs/census_income.yaml --model runs/census/stage1.keras \\
      --task education --output runs/census"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec train` and `mptrec add-task`."""
    parser = add_command(
        commands, "train", train, summary="stage 1: train tasks together", description=TRAIN
    )
    add_config(parser)
    parser.add_argument(
        "--warm-start",
        type=existing_file,
        metavar="M.keras",
        help="an earlier model to begin with (default: none)",
    )
    add_training(parser)

    parser = add_command(
        commands, "add-task", add_task, summary="stage 2: add a task", description=ADD_TASK
    )
    add_config(parser)
    add_model(parser)
    parser.add_argument(
        "--task", required=True, metavar="TASK", help="the new task, one of the configuration's"
    )
    add_training(parser)


def train(args: argparse.Namespace) -> None:
    """Runs stage 1, prints and writes its validation metrics."""
    check_training(args)
    start_tensorflow()
    from mptrec_tf.config import Config
    from mptrec_tf.evaluation import evaluate
    from mptrec_tf.training import pretrain
    from mptrec_tf.training.stages import STAGE1_FILE
    from mptrec_tf.training.workers import is_chief, training_workers

    config = Config.from_yaml(args.config)
    sources = sources_of(config, args)
    with training_workers() as strategy:
        quiet = args.quiet or not is_chief(strategy)
        _note_resumption(args.output / "stage1", config.stage1.training.epochs, quiet)
        with contextlib.redirect_stdout(sys.stderr):
            trained = pretrain(
                config, sources, args.output,
                earlier=args.warm_start, seed=args.seed, verbose=_verbosity(quiet),
                strategy=strategy,
            )  # fmt: skip
        if not is_chief(strategy):
            return
        with contextlib.redirect_stdout(sys.stderr):
            validation = evaluate(trained.model, sources.validation)
        write_json(
            args.output / "stage1-results.json",
            {
                "model": args.output / STAGE1_FILE,
                "validation": validation,
                "warm_start": _taken(trained, args.warm_start),
                **_report(trained, args),
            },
        )
    print_metrics(validation)
    _print_training(trained, args.output / STAGE1_FILE)


def add_task(args: argparse.Namespace) -> None:
    """Runs stage 2, prints and writes what it brought and that it left the older tasks alone."""
    check_training(args)
    start_tensorflow()
    from mptrec_tf.training.workers import training_workers

    with training_workers() as strategy:
        _add_task(args, strategy)


def _add_task(args: argparse.Namespace, strategy: tf.distribute.Strategy) -> None:
    from mptrec_cli.models import labelled_tasks, load_model_of, prediction_digests
    from mptrec_tf.config import Config
    from mptrec_tf.errors import ModelError
    from mptrec_tf.evaluation import evaluate
    from mptrec_tf.models import MPTRec
    from mptrec_tf.models.parameters import count_parameters
    from mptrec_tf.training import prompt_tune
    from mptrec_tf.training.stages import MODEL_FILE, require_tasks_kept
    from mptrec_tf.training.workers import is_chief

    config = Config.from_yaml(args.config)
    config.spec.task(args.task)
    with strategy.scope():
        model = load_model_of(config, args.model, MPTRec)
    old_tasks = [task.name for task in model.tasks]
    if args.task in old_tasks:
        raise ModelError(f"{args.model}: the model already has a task {args.task!r}")
    require_tasks_kept(model, args.task, args.output)
    sources = sources_of(config, args)
    labelled = labelled_tasks(model, sources.validation)
    quiet = args.quiet or not is_chief(strategy)

    report: dict[str, Any] = {}

    def check(trained: Trained[MPTRec]) -> None:
        """Before the model is written, so that a command that was cut off can be given again."""
        after = evaluate(model, sources.validation, [*labelled, model.task(args.task)])
        identical = (
            prediction_digests(model, sources.validation, old_tasks) == digests
            and model.fingerprint(frozen_only=True) == fingerprint
        )
        parameters = count_parameters(model)
        report.update(
            model=args.output / MODEL_FILE,
            base=args.model,
            task=args.task,
            validation={
                name: {"before": before.get(name), "after": metrics}
                for name, metrics in after.items()
            },
            old_tasks_identical=identical,
            fingerprint=fingerprint,
            trainable_parameters=parameters.trained,
            total_parameters=parameters.total,
            **_report(trained, args),
        )
        write_json(args.output / f"{args.task}-results.json", report)
        if not identical:
            raise RuntimeError(
                f"the older tasks {old_tasks} have changed; the model is not written"
            )

    with contextlib.redirect_stdout(sys.stderr):
        before = evaluate(model, sources.validation, labelled) if labelled else {}
        digests = prediction_digests(model, sources.validation, old_tasks)
        fingerprint = model.fingerprint()
        _note_resumption(args.output / f"stage2-{args.task}", config.stage2.training.epochs, quiet)
        trained = prompt_tune(
            config, model, args.task, sources, args.output,
            seed=args.seed, verbose=_verbosity(quiet), check=check,
        )  # fmt: skip
    if is_chief(strategy):
        _print_report(report, old_tasks)
        _print_training(trained, args.output / MODEL_FILE)


def _print_report(report: dict[str, Any], old_tasks: list[str]) -> None:
    print_table(
        ["task", "metric", "before", "after"],
        [
            [name, metric, (found["before"] or {}).get(metric), value]
            for name, found in report["validation"].items()
            for metric, value in found["after"].items()
            if isinstance(value, float)
        ],
    )
    print(f"\nolder tasks: {', '.join(old_tasks)}: identical to the bit")
    trainable, total = report["trainable_parameters"], report["total_parameters"]
    print(f"parameters trained: {trainable:,} of {total:,} ({trainable / total:.1%})")


def _note_resumption(directory: pathlib.Path, epochs: int, quiet: bool) -> None:
    """Says so where a training goes on."""
    from mptrec_tf.training.checkpoint import STATE

    file = directory / STATE
    if not file.is_file():
        return
    state = json.loads(file.read_text())
    done = len(state["epochs"])
    if state["stopped"] or done >= epochs:
        note(
            f"{directory}: the training is over after {done} epochs; its best epoch is used", quiet
        )
    else:
        note(f"{directory}: going on after epoch {done} of at most {epochs}", quiet)


def _verbosity(quiet: bool) -> int:
    """Nothing, a progress bar on a terminal, a line for each epoch elsewhere."""
    return 0 if quiet else 1 if sys.stderr.isatty() else 2


def _report(trained: Trained, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "config": args.config,
        "seed": args.seed,
        "best_epoch": trained.best_epoch + 1,
        "epochs": trained.epochs,
        "seconds": trained.seconds,
    }


def _taken(trained: Trained, earlier: pathlib.Path | None) -> dict[str, Any] | None:
    """What a model began with, where it began with an earlier one."""
    taken = trained.warm_start
    if taken is None:
        return None
    return {"earlier": earlier, "taken": taken.taken, "left": taken.left}


def _print_training(trained: Trained, model: pathlib.Path) -> None:
    print(
        f"best epoch: {trained.best_epoch + 1} of {len(trained.epochs)}, "
        f"{trained.seconds:.1f} seconds"
    )
    print(f"model: {model}")
