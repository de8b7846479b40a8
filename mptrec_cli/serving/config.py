"""`mptrec serving config`: the files of a model server."""

import argparse
import pathlib
from typing import Any

from mptrec_cli.arguments import add_command, existing_file
from mptrec_cli.output import print_table, require_file
from mptrec_cli.serving.promotion import add_label_arguments, asked_servers, print_models
from mptrec_cli.startup import start_tensorflow

ADD_MODEL = """\
Adds a model to a server's model config file, which is made if it is not there. All these commands
replace the file as a whole, at once, and keep no comments. A server that runs with
--model_config_file_poll_wait_seconds takes it up.

example:
  mptrec serving config add-model models.config --model census --base-path /models/census \\
      --versions 1 --label stable=1"""

SHOW = """\
Prints the models of a model config file with their versions and labels.

example:
  mptrec serving config show models.config"""

ADD_VERSION = """\
Serves a version beside the others: step one of a promotion. Let servers load it before a label is
moved to it (step two): a file with a label for a version that is not loaded is refused as a whole.

example:
  mptrec serving config add-version models.config --model census --version 2"""

SET_LABEL = """\
Lets a label stand for a version that is served: step two of a promotion. With --server it is done
when all those servers have loaded the version.

example:
  mptrec serving config set-label models.config --model census --label stable --version 2 \\
      --server localhost:8500"""

RETIRE = """\
Serves a version no longer. It must not be the last, and no label may stand for it.

example:
  mptrec serving config retire models.config --model census --version 1"""

BATCHING = """\
Writes a server's batching parameters file (--batching_parameters_file; it is read at the start, and
only with --enable_batching). Measure with and without: batching can make requests slower.

example:
  mptrec serving config batching batching.config --max-batch-size 64 --num-batch-threads 4 \\
      --allowed-batch-sizes 8 32 64"""

MONITORING = """\
Writes a server's monitoring file (--monitoring_config_file; it is read at the start): metrics for
Prometheus on the REST port.

example:
  mptrec serving config monitoring monitoring.config"""


def add_commands(commands: Any) -> None:
    """Adds `mptrec serving config` with its own commands."""
    summary = "a server's files: models, versions, labels, batching, monitoring"
    group = commands.add_parser("config", help=summary, description=summary, allow_abbrev=False)
    subcommands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = add_command(
        subcommands, "add-model", add_model, summary="add a model", description=ADD_MODEL
    )
    _add_file(parser, pathlib.Path)
    parser.add_argument("--model", required=True, metavar="NAME", help="name of the model")
    parser.add_argument(
        "--base-path",
        required=True,
        metavar="DIR",
        help="directory of its versions as the server sees it, an absolute path or a URL",
    )
    parser.add_argument(
        "--versions",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="versions to serve (default: always the highest, which takes no labels)",
    )
    parser.add_argument(
        "--label",
        action="append",
        type=_label,
        default=[],
        metavar="LABEL=N",
        help="label of a version; may be given several times (default: none)",
    )

    parser = add_command(subcommands, "show", show, summary="print the models", description=SHOW)
    _add_file(parser, existing_file)

    for name, run, summary, description in (
        ("add-version", add_version, "serve a version beside the others", ADD_VERSION),
        ("set-label", set_label, "let a label stand for a version", SET_LABEL),
        ("retire", retire, "serve a version no longer", RETIRE),
    ):
        parser = add_command(subcommands, name, run, summary=summary, description=description)
        _add_file(parser, existing_file)
        parser.add_argument("--model", required=True, metavar="NAME", help="name of the model")
        parser.add_argument("--version", required=True, type=int, metavar="N", help="the version")
        if name == "set-label":
            add_label_arguments(parser)

    parser = add_command(
        subcommands, "batching", batching, summary="batching parameters", description=BATCHING
    )
    _add_file(parser, pathlib.Path)
    for option, default, text in (
        ("--max-batch-size", None, "rows that are run together at most"),
        ("--num-batch-threads", None, "batches run at the same time; start with the cores"),
        ("--batch-timeout-micros", 1000, "microseconds that a batch waits to be filled"),
        ("--max-enqueued-batches", 100, "batches that wait at most before requests are refused"),
    ):
        if default is not None:
            text += " (default: %(default)s)"
        parser.add_argument(
            option, type=int, metavar="N", default=default, required=default is None, help=text
        )
    parser.add_argument(
        "--allowed-batch-sizes",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="sizes that batches are padded to, the last one the maximum (default: no padding)",
    )

    parser = add_command(
        subcommands, "monitoring", monitoring, summary="Prometheus metrics", description=MONITORING
    )
    _add_file(parser, pathlib.Path)
    parser.add_argument(
        "--path",
        # `texts.METRICS_PATH`, written out for a `--help` that does not import TensorFlow.
        default="/monitoring/prometheus/metrics",
        metavar="PATH",
        help="where the metrics are (default: %(default)s)",
    )


def add_model(args: argparse.Namespace) -> None:
    """Adds a model and prints the file."""
    require_file(args.file)
    start_tensorflow()
    from mptrec_tf.serving.config.files import edit_models

    with edit_models(args.file, create=True) as models:
        models.add_model(args.model, args.base_path, args.versions, dict(args.label))
    print_models(args.file)


def show(args: argparse.Namespace) -> None:
    """Prints the file."""
    start_tensorflow()
    print_models(args.file)


def add_version(args: argparse.Namespace) -> None:
    """Adds a version and prints the file."""
    start_tensorflow()
    from mptrec_tf.serving.config.files import edit_models

    with edit_models(args.file) as models:
        models.add_version(args.model, args.version)
    print_models(args.file)


def set_label(args: argparse.Namespace) -> None:
    """Moves a label and prints the file."""
    start_tensorflow()
    from mptrec_tf.serving.config.promotion import move_label

    move_label(args.file, args.model, args.label, args.version, asked_servers(args))
    print_models(args.file)


def retire(args: argparse.Namespace) -> None:
    """Removes a version and prints the file."""
    start_tensorflow()
    from mptrec_tf.serving.config.files import edit_models

    with edit_models(args.file) as models:
        models.retire(args.model, args.version)
    print_models(args.file)


def batching(args: argparse.Namespace) -> None:
    """Writes the batching parameters and prints the file's name."""
    require_file(args.file)
    start_tensorflow()
    from mptrec_tf.serving.config.files import write_text
    from mptrec_tf.serving.config.texts import Batching

    parameters = Batching(
        max_batch_size=args.max_batch_size,
        num_batch_threads=args.num_batch_threads,
        batch_timeout_micros=args.batch_timeout_micros,
        max_enqueued_batches=args.max_enqueued_batches,
        allowed_batch_sizes=args.allowed_batch_sizes,
    )
    write_text(args.file, parameters.text())
    print_table(["file"], [[args.file]])


def monitoring(args: argparse.Namespace) -> None:
    """Writes the monitoring file and prints its name."""
    require_file(args.file)
    start_tensorflow()
    from mptrec_tf.serving.config.files import write_text
    from mptrec_tf.serving.config.texts import Monitoring

    write_text(args.file, Monitoring(args.path).text())
    print_table(["file"], [[args.file]])


def _add_file(parser: argparse.ArgumentParser, kind: Any) -> None:
    parser.add_argument("file", type=kind, metavar="FILE", help="the file")


def _label(text: str) -> tuple[str, int]:
    label, _, version = text.partition("=")
    if not label or not version.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: should be LABEL=N, such as stable=1")
    return label, int(version)
