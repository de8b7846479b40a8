"""`mptrec pipeline`: the TFX pipelines of both stages, what they did, and where a model is from."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import pathlib
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mptrec_cli.arguments import (
    add_command,
    add_config,
    add_output,
    add_seed,
    existing_file,
    local_path,
)
from mptrec_cli.output import UsageError, note, print_table, require_file, require_writable
from mptrec_cli.startup import start_tensorflow

if TYPE_CHECKING:
    from mptrec_tf.pipeline_config import PipelineConfig
    from pipelines.metadata import Artifact, Execution, Run, Store
    from pipelines.runs import Outcome

STAGES = ("pretrain", "prompt_tune")
PICTURES = (".png", ".svg")
BASE = {
    "model": "the model that gets the task",
    "transform_graph": "its Transform graph",
    "schema": "the schema of its rows",
    "statistics": "the statistics of its rows",
}
"""What a new task is built on; `mptrec pipeline lineage` tells the URIs."""

RUN = """\
Runs a pipeline on this machine: from raw rows to a version that is served, if its model keeps what
the configuration demands. Stage pretrain trains the tasks of `stage1` together; stage prompt_tune
adds one task to a model that was pushed, and pushes only if the older tasks did not change by one
bit.

Steps whose inputs and settings did not change are taken from the cache, also after a run that was
cut off. One run at a time in DIR.

Written to DIR, where NAME is `pipeline.name`:
  serving/NAME/N    the versions that are served, unless `pipeline.push_to` names another place
  metadata.sqlite   what was run on what, unless `pipeline.metadata` names a server

example:
  mptrec pipeline run --config configs/census_income.yaml --stage pretrain --output runs/census
  mptrec pipeline run --config configs/census_income.yaml --stage prompt_tune --task education \\
      --output runs/census"""

STATUS = """\
Prints the runs in DIR, the components of the last one, and the versions that were pushed. A run
that has not ended is `running` while its process is there, else `interrupted`; processes of other
machines are not seen.

example:
  mptrec pipeline status --output runs/census"""

LINEAGE = """\
Prints what a version was made from: data with their spans and fingerprints, schema, Transform
graph, base model and what that was made from, settings, metrics, blessing.

example:
  mptrec pipeline lineage --output runs/census --version 2
  mptrec pipeline lineage --output runs/census --picture lineage.svg
  mptrec pipeline lineage --output runs/census --json > lineage.json"""

COMPILE = """\
Writes a pipeline as a file for an orchestrator: Kubeflow Pipelines or Vertex AI. Container image
and root of the artifacts are those of `pipeline.kubeflow`.

example:
  mptrec pipeline compile --config C.yaml --stage pretrain --output pretrain.json
  mptrec pipeline compile --config C.yaml --stage prompt_tune --task buy \\
      --base-model gs://bucket/pipelines/Trainer/model/7 \\
      --base-transform-graph gs://bucket/pipelines/Transform/transform_graph/6 \\
      --base-schema gs://bucket/pipelines/LearnedSchema/schema/3 \\
      --base-statistics gs://bucket/pipelines/StatisticsGen/statistics/2 --output buy.json"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec pipeline` with its own commands."""
    summary = "run the TFX pipelines, see what they did"
    group = commands.add_parser("pipeline", help=summary, description=summary, allow_abbrev=False)
    subcommands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = add_command(subcommands, "run", run, summary="run a pipeline here", description=RUN)
    _add_stage(parser)
    add_output(parser)
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="for prompt_tune: the model that gets the task: the number of a pushed version, "
        "id:NUMBER of a Model artifact, or its URI (default: the version pushed last)",
    )
    parser.add_argument(
        "--span",
        type=int,
        metavar="N",
        help="span of the data, where their paths hold {SPAN} (default: the latest)",
    )
    add_seed(parser)

    parser = add_command(
        subcommands, "status", status, summary="runs and pushed versions", description=STATUS
    )
    _add_store(parser)

    parser = add_command(
        subcommands, "lineage", lineage, summary="what a version was made from", description=LINEAGE
    )
    _add_store(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--version", type=int, metavar="N", help="pushed version (default: the one pushed last)"
    )
    which.add_argument(
        "--artifact", type=int, metavar="ID", help="any artifact, by its number, instead"
    )
    parser.add_argument(
        "--picture",
        type=_picture,
        metavar="FILE",
        help=f"file for a picture, one of {', '.join(PICTURES)} (default: none)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")

    parser = add_command(
        subcommands, "compile", compile_, summary="write it for Kubeflow", description=COMPILE
    )
    _add_stage(parser)
    for part, what in BASE.items():
        parser.add_argument(_option(part), metavar="URI", help=f"for prompt_tune: URI of {what}")
    parser.add_argument(
        "--pin-base",
        action="store_true",
        help="for prompt_tune: the base may be older than the version pushed last (default: such a "
        "push is refused)",
    )
    parser.add_argument(
        "--labelled-tasks",
        nargs="+",
        default=[],
        metavar="TASK",
        help="for prompt_tune: older tasks whose labels the rows have, to be evaluated too",
    )
    add_seed(parser)
    parser.add_argument(
        "--orchestrator",
        choices=["kubeflow"],
        default="kubeflow",
        help="what the file is for (default: %(default)s)",
    )
    parser.add_argument(
        "--output", type=_definition, required=True, metavar="FILE", help=".json or .yaml to write"
    )


def run(args: argparse.Namespace) -> None:
    """Runs a pipeline, prints what its components did and what was pushed."""
    _check_stage(args)
    require_writable(args.output)
    _start_tfx()
    with _needing_tfx():
        from pipelines.runs import run_pretrain, run_prompt_tune
    from mptrec_tf.config import Config

    config = Config.from_yaml(args.config)
    options = {"seed": args.seed, "span": args.span, "progress": not args.quiet}
    if args.stage == "pretrain":
        outcome = run_pretrain(config, args.output, **options)
    else:
        outcome = run_prompt_tune(config, args.task, args.output, base=args.base, **options)
    _print_outcome(outcome)


def status(args: argparse.Namespace) -> None:
    """Prints the runs and the pushed versions."""
    store, _ = _open(args)
    from pipelines.metadata import is_there
    from pipelines.runners.lock import holder

    at_work = holder(args.output)
    runs = store.runs(at_work)
    print_table(
        ["started", "pipeline", "state", "seconds", "components"],
        [[_when(r.started), r.pipeline, r.state, round(r.seconds), _counts(r)] for r in runs],
    )
    if runs:
        print(f"\n{runs[-1].pipeline}, {_when(runs[-1].started)}:")
        _print_executions(runs[-1].executions)
    models = store.pushed_models()
    if models:
        print()
        print_table(
            ["version", "pushed", "by", "directory"],
            [
                [
                    str(model.version),
                    _when(model.pushed),
                    model.pipeline,
                    model.directory + ("" if is_there(model.directory) else " (deleted)"),
                ]
                for model in models
            ],
        )
    if at_work is not None:
        note(f"at work: {at_work.stage}, process {at_work.pid}", args.quiet)


def lineage(args: argparse.Namespace) -> None:
    """Prints what a version was made from, and draws it where asked."""
    if args.picture is not None:
        require_file(args.picture)
    store, push_to = _open(args)
    from mptrec_tf.errors import PipelineError
    from pipelines.reporting.lineage import to_json, to_text, trace

    pushed = None
    if args.version is not None:
        pushed = store.pushed_version(args.version, push_to)
    elif args.artifact is None:
        models = store.pushed_models(push_to)
        if not models:
            raise PipelineError(f"{store.place}: no version has been pushed yet; give --artifact")
        pushed = models[-1]
    traced = trace(store, store.artifact(args.artifact) if pushed is None else pushed.artifact)
    if args.picture is not None:
        from pipelines.reporting.lineage_plot import plot

        plot(traced, args.picture)
        note(f"picture: {args.picture}", args.quiet)
    if args.json:
        print(json.dumps(to_json(traced), indent=2, ensure_ascii=False))
    else:
        print(to_text(traced), end="")
        if pushed is not None:
            _print_base(store, pushed.model)


def _print_base(store: Store, model: Artifact) -> None:
    """Prints what `compile` is given to build on a model, if it was made by these pipelines."""
    from mptrec_tf.errors import PipelineError
    from pipelines.base import base_of

    with contextlib.suppress(PipelineError):
        base = base_of(store, model)
        print("\nas the base of a new task, for mptrec pipeline compile:")
        for part, uri in base._asdict().items():
            print(f"  {_option(part)} {uri}")


def compile_(args: argparse.Namespace) -> None:
    """Writes a pipeline for an orchestrator."""
    _check_stage(args)
    uris = {name: getattr(args, f"base_{name}") for name in BASE}
    given = [name for name, uri in uris.items() if uri is not None]
    if len(given) not in (0, len(BASE)) or bool(given) != (args.stage == "prompt_tune"):
        raise UsageError(
            f"--stage prompt_tune needs {', '.join(map(_option, BASE))}; pretrain takes none"
        )
    if args.pin_base and not given:
        raise UsageError("--pin-base is for --stage prompt_tune")
    require_file(args.output)
    _start_tfx()
    with _needing_tfx():
        from pipelines.base import Base
        from pipelines.runners.kubeflow import compile_pipeline
        from pipelines.sources import curated_schema, sources_elsewhere
    from mptrec_tf.config import Config

    config = Config.from_yaml(args.config)
    sources = sources_elsewhere(config)
    compile_pipeline(
        config,
        args.output,
        sources=sources,
        schema=curated_schema(config),
        task=args.task,
        base=Base(**uris) if given else None,
        labelled_tasks=args.labelled_tasks,
        seed=args.seed,
        base_is_pinned=args.pin_base,
    )
    print(f"pipeline: {args.output}")
    mounted = [path for path in sources.values() if "://" not in path]
    if mounted:
        note(f"to be mounted in the containers: {', '.join(mounted)}", args.quiet)


def _option(part: str) -> str:
    return f"--base-{part.replace('_', '-')}"


def _add_stage(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--stage", choices=STAGES, required=True, help="stage 1, or a new task of stage 2"
    )
    parser.add_argument("--task", metavar="TASK", help="for prompt_tune: the new task")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=_directory, required=True, metavar="DIR", help="directory of the runs"
    )
    parser.add_argument(
        "--config",
        type=existing_file,
        metavar="C.yaml",
        help="configuration of the runs; needed where it has pipeline.metadata, or where several "
        "models share DIR (default: what is in DIR)",
    )


def _check_stage(args: argparse.Namespace) -> None:
    if (args.task is not None) != (args.stage == "prompt_tune"):
        raise UsageError("--stage prompt_tune needs --task; pretrain does not take it")
    if getattr(args, "base", None) is not None and args.stage == "pretrain":
        raise UsageError("--base is for --stage prompt_tune")


def _open(args: argparse.Namespace) -> tuple[Store, str | None]:
    """The store, and the directory of the served versions where a configuration tells it."""
    _start_tfx()
    with _needing_tfx():
        from pipelines.metadata import Store, connection, push_directory
    from mptrec_tf.config import Config
    from mptrec_tf.pipeline_config import PipelineConfig

    if args.config is None:
        return Store(connection(PipelineConfig(), args.output)), None
    config: PipelineConfig = Config.from_yaml(args.config).pipeline
    return Store(connection(config, args.output)), push_directory(config, args.output)


def _start_tfx() -> None:
    start_tensorflow()
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFX warns of what no user could change


@contextlib.contextmanager
def _needing_tfx() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("pipelines", "mptrec")):
            raise
        raise UsageError(f"pipelines need {error.name}: pip install 'mptrec-tf[tfx]'") from error


def _print_outcome(outcome: Outcome) -> None:
    """Prints what was done.

    Raises:
        PipelineError: If the model was refused.
    """
    from mptrec_tf.errors import PipelineError

    _print_executions(tuple(outcome.result.executions.values()))
    print(f"\n{outcome.result.seconds:.0f} seconds")
    if outcome.report is not None:
        print(f"report: {outcome.report}")
    for line in outcome.notes:
        print(f"note: {line}")
    if outcome.version is None:
        reasons = "\n".join(f"- {reason}" for reason in outcome.reasons)
        raise PipelineError(f"not pushed:\n{reasons}")
    print(f"version {outcome.version}: {outcome.directory}")


def _print_executions(executions: tuple[Execution, ...]) -> None:
    print_table(
        ["component", "state", "seconds"],
        [
            [e.component, e.state, None if e.seconds is None else round(e.seconds)]
            for e in executions
        ],
    )


def _counts(run: Run) -> str:
    """How many components ended how."""
    states = [execution.state for execution in run.executions]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _when(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _directory(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no such directory")
    return path


def _picture(text: str) -> pathlib.Path:
    if not text.endswith(PICTURES):
        raise argparse.ArgumentTypeError(f"{text}: should end in one of {', '.join(PICTURES)}")
    return local_path(text)


def _definition(text: str) -> pathlib.Path:
    if not text.endswith((".json", ".yaml")):
        raise argparse.ArgumentTypeError(f"{text}: should end in .json or .yaml")
    return local_path(text)
