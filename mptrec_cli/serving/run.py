"""`mptrec serving run`: the local server."""

import argparse
import logging
import pathlib
import signal
import threading
from typing import Any

from mptrec_cli.arguments import add_command, existing_file
from mptrec_cli.output import UsageError, note, print_table
from mptrec_cli.startup import start_tensorflow

RUN = """\
Serves exported models on this machine, over gRPC and REST as TensorFlow Serving does: for
notebooks and tests. Production is TensorFlow Serving, which takes the same exports, the same
configuration file and the same requests.

A new version in BASE_PATH is served within a second or two, without a request lost. Ctrl-C or
SIGTERM stops the server after it has answered the requests under way.

example:
  mptrec serving run serving/census
  mptrec serving run --config serving/models.config --rest-port 0"""

PRODUCTION = "This server is for notebooks and tests; production is TensorFlow Serving."


def add_commands(commands: Any) -> None:
    """Adds `mptrec serving run`."""
    parser = add_command(
        commands, "run", run, summary="serve models on this machine", description=RUN
    )
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument(
        "base_path",
        type=pathlib.Path,
        nargs="?",
        metavar="BASE_PATH",
        help="directory of a model's versions, of which the latest is served",
    )
    models.add_argument(
        "--config",
        type=existing_file,
        metavar="FILE",
        help="several models, versions and labels: the file that TensorFlow Serving takes as "
        "--model_config_file; read again when it changes",
    )
    parser.add_argument(
        "--name", help="name that the model is served under (default: last part of BASE_PATH)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; there is no encryption and no authentication "
        "(default: %(default)s, this machine only)",
    )
    for transport, port in (("grpc", 8500), ("rest", 8501)):
        parser.add_argument(
            f"--{transport}-port",
            type=int,
            default=port,
            metavar="N",
            help="port, 0 for any that is free (default: %(default)s)",
        )


def run(args: argparse.Namespace) -> None:
    """Serves until it is told to stop."""
    if args.config and args.name:
        raise UsageError("--name goes with BASE_PATH; the models of --config have their names")
    start_tensorflow()
    import tensorflow as tf

    from mptrec_tf.serving.local import LocalServer

    tf.get_logger().setLevel(logging.ERROR)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mptrec_tf").setLevel(logging.WARNING if args.quiet else logging.INFO)
    server = LocalServer(
        args.base_path,
        name=args.name,
        config_file=args.config,
        host=args.host,
        grpc_port=args.grpc_port,
        rest_port=args.rest_port,
    )
    with server:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        rows = [[name, ", ".join(map(str, found))] for name, found in server.versions.items()]
        print_table(["model", "versions"], rows)
        print(f"gRPC  {server.grpc_address}\nREST  {server.rest_url}/v1/models/MODEL", flush=True)
        note(PRODUCTION, args.quiet)
        stop.wait()
        note("stopping", args.quiet)
