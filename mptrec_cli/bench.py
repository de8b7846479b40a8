"""`mptrec bench`: declared experiments, and a report of their stored results."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mptrec_cli.arguments import add_command, add_output, existing_file, positive
from mptrec_cli.output import UsageError, note, require_file, require_writable
from mptrec_cli.startup import start_tensorflow

if TYPE_CHECKING:
    from mptrec_tf.experiments import Experiment

TRAININGS = 20
"""How many a process does: each leaves about 100 MB of compiled programs behind."""

BENCH = """\
Experiments that are declared in YAML files: which models, tasks, seeds and settings are compared.

example:
  mptrec bench run experiments/stage1.yaml --output runs/bench
  mptrec bench report experiments/stage1.yaml --results runs/bench --html runs/bench/report.html"""

RUN = """\
Runs experiments. What is finished is never done twice, also where two experiments need the same
training; what was cut off goes on after its last finished epoch when the same command is given
again. Early stopping and tuning look at the validation rows; test rows are scored once for each
finished training.

Written to DIR:
  trained/DIGEST/     the model of each training and its result, by a digest of all that defines it
  tuning/DIGEST/      the searches for better settings, where an experiment has any
Written to --results, DIR by default:
  NAME.jsonl          a line for each variant, new task and seed of the experiment of that name

example:
  mptrec bench run experiments/*.yaml --output runs/bench --results docs/results
  mptrec bench run experiments/stage1.yaml --seeds 2 --epochs 1 --no-tuning --output runs/check"""

REPORT = """\
Shows stored results: tables with mean, standard deviation and a paired test over seeds, and on the
HTML page also intervals, parameters and time against quality, gate weights and representations.
Nothing is computed anew; the experiments' files tell titles and order.

example:
  mptrec bench report experiments/*.yaml --results docs/results --markdown docs/results.md \\
      --html runs/bench/report.html"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec bench run` and `mptrec bench report`."""
    group = commands.add_parser(
        "bench",
        help="run declared experiments, report their results",
        description=BENCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subcommands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = add_command(subcommands, "run", run, summary="run experiments", description=RUN)
    _add_experiments(parser)
    add_output(parser)
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        metavar="DIR",
        help="where the results are written (default: the directory of --output)",
    )
    for option, what in (
        ("--seeds", "only so many of the declared seeds (default: all)"),
        ("--new-tasks", "only so many of the declared new tasks (default: all)"),
        ("--epochs", "most epochs of a training (default: the experiment's)"),
    ):
        parser.add_argument(option, type=positive, metavar="N", help=what)
    parser.add_argument(
        "--no-tuning", action="store_true", help="take the settings as they are, search for none"
    )

    parser = add_command(
        subcommands, "report", report, summary="show stored results", description=REPORT
    )
    _add_experiments(parser)
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        required=True,
        metavar="DIR",
        help="directory of the NAME.jsonl files",
    )
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE", help="write the page here")
    parser.add_argument(
        "--markdown", type=pathlib.Path, metavar="FILE", help="write the tables here"
    )
    parser.add_argument(
        "--title", default="Experiments", metavar="TEXT", help="title (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Runs what is not done yet."""
    require_writable(args.output)
    if args.results is not None:
        require_writable(args.results)
    start_tensorflow()
    from mptrec_tf.experiments import Runner

    experiments = [
        experiment.reduced(
            seeds=args.seeds,
            new_tasks=args.new_tasks,
            epochs=args.epochs,
            tuning=not args.no_tuning,
        )
        for experiment in _experiments(args)
    ]
    runner = Runner(
        args.output,
        args.results,
        most=TRAININGS,
        report=lambda line: note(line, args.quiet),
    )
    with contextlib.redirect_stdout(sys.stderr), _installed():
        done = runner.run(experiments)
    if not done:
        note("going on in a new process, which begins with all memory free", args.quiet)
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 (the command itself, once more)
    for experiment in experiments:
        print(runner.results / f"{experiment.name}.jsonl")


def report(args: argparse.Namespace) -> None:
    """Writes the page, the tables or both."""
    targets = [path for path in (args.html, args.markdown) if path is not None]
    if not targets:
        raise UsageError("give --html, --markdown or both")
    for path in targets:
        require_file(path)
    start_tensorflow()
    with _installed():
        from mptrec_tf.experiments.report import write_report

        write_report(
            _experiments(args),
            args.results,
            html=args.html,
            markdown=args.markdown,
            title=args.title,
        )
    for path in targets:
        print(path)


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    """Says how to install what is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{error}: pip install 'mptrec-tf[bench]'") from error
    except ImportError as error:
        raise UsageError(str(error)) from error


def _add_experiments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiments",
        type=existing_file,
        nargs="+",
        metavar="E.yaml",
        help="experiments, see docs/experiments.md",
    )


def _experiments(args: argparse.Namespace) -> list[Experiment]:
    from mptrec_tf.experiments import Experiment

    experiments = [Experiment.from_yaml(path) for path in args.experiments]
    names = [experiment.name for experiment in experiments]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"two experiments are called {repeated[0]!r}")
    return experiments
