"""What a served request costs: the graph alone, heads added to it, gRPC and REST around it.

Exports MPT-Rec with the Census-income configuration for 2, 3 and 10 tasks (latency does not depend
on the weights, so they are trained for a moment only), then measures in one run:

- `heads`: a bare session run of the graph, by number of tasks;
- `transport`: a session run, and Predict over gRPC and REST against the local server in a process
  of its own, same graph with 3 tasks, same rows;
- `cold`: the first request after a load with warm-up, against the median.

Writes the figures as JSON and as tables.

    python benchmarks/serving_latency.py
"""

import argparse
import base64
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from mptrec_tf import FeatureEncoder, MPTRec, make_dataset
from mptrec_tf.config import Config
from mptrec_tf.serving import export
from mptrec_tf.serving.exporting.samples import raw_rows, to_examples
from mptrec_tf.serving.layout import read_meta_graph, served_signatures

ROOT = pathlib.Path(__file__).resolve().parent.parent
TASKS = (2, 3, 10)
BATCHES = (1, 64)
SERVED_TASKS = 3

Call = Callable[[], object]


def main() -> None:
    """Runs all measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="ratios are taken within a round")
    parser.add_argument("--calls", type=int, default=200, help="calls a round, of each kind")
    parser.add_argument("--starts", type=int, default=5, help="servers started for `cold`")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs/serving_latency.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        versions, examples = make_versions(pathlib.Path(directory))
        figures = {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "libraries": {"tensorflow": tf.__version__, "grpcio": grpc.__version__},
            "rounds": args.rounds,
            "calls": args.calls,
            "heads": measure_heads(versions, examples, args),
            "transport": measure_transport(versions, examples, args),
            "cold": measure_cold(versions, examples, args),
        }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(figures, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(figures))
    print(markdown(figures))


def make_versions(directory: pathlib.Path) -> tuple[dict[int, pathlib.Path], list[bytes]]:
    """Exports by number of tasks, and rows as serialized Examples."""
    config = Config.from_yaml(ROOT / "configs/census_income.yaml")
    rows = config.data.sources().validation
    encoder = FeatureEncoder(config.features).adapt(rows)
    model = MPTRec(encoder, config.tasks[:2], **dataclasses.asdict(config.stage1.model))
    model.compile("adam", jit_compile=False)
    model.fit(make_dataset(rows, encoder, config.tasks[:2]).take(1), verbose=0)
    versions = {}
    for count in range(2, max(TASKS) + 1):
        if count > 2:
            task = dataclasses.replace(config.tasks[2], name=f"added{count}")
            model.add_task(task, **dataclasses.asdict(config.stage2.module))
        if count in TASKS:
            base_path = directory / f"tasks{count}" / "census"
            versions[count] = export(model, base_path, rows=rows, warmup_batch_sizes=BATCHES)
    columns = raw_rows(config.features, rows, max(BATCHES))
    return versions, to_examples(config.features, columns)


def session_call(version: pathlib.Path, examples: list[bytes]) -> Call:
    """A bare run of `serving_default`."""
    signature = served_signatures(read_meta_graph(version))["serving_default"]
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version))
    fetches = [tensor.name for tensor in signature.outputs.values()]
    call = session.make_callable(fetches, [signature.inputs["examples"].name])
    feed = np.array(examples, object)
    return lambda: call(feed)


def measure_heads(
    versions: dict[int, pathlib.Path], examples: list[bytes], args: argparse.Namespace
) -> list[dict[str, object]]:
    """Session runs by number of tasks, in turn."""
    results = []
    for batch in BATCHES:
        calls = {
            f"{count} tasks": session_call(version, examples[:batch])
            for count, version in versions.items()
        }
        results.append({"batch": batch, **compare(calls, f"{TASKS[0]} tasks", args)})
    return results


def measure_transport(
    versions: dict[int, pathlib.Path], examples: list[bytes], args: argparse.Namespace
) -> list[dict[str, object]]:
    """Predict over gRPC and REST against a session run of the same graph."""
    version = versions[SERVED_TASKS]
    results = []
    with server(version.parent) as (address, url):
        for batch in BATCHES:
            rows = examples[:batch]
            calls = {
                "session": session_call(version, rows),
                "grpc": grpc_call(address, rows),
                "rest": rest_call(url, rows),
            }
            results.append({"batch": batch, **compare(calls, "session", args)})
    return results


def measure_cold(
    versions: dict[int, pathlib.Path], examples: list[bytes], args: argparse.Namespace
) -> list[dict[str, object]]:
    """The first request to a server that has just started, against the median of the next ones."""
    results = []
    batch = max(BATCHES)
    for _ in range(args.starts):
        with server(versions[SERVED_TASKS].parent) as (address, _):
            call = grpc_call(address, examples[:batch])
            first = timed(call)
            median = float(np.median([timed(call) for _ in range(args.calls)]))
        results.append({"batch": batch, "first_ms": first, "p50_ms": median})
        results[-1]["ratio"] = first / median
    return results


def compare(calls: dict[str, Call], reference: str, args: argparse.Namespace) -> dict[str, object]:
    """Medians of each kind, and in each round its ratio to the reference; the kinds take turns."""
    for call in calls.values():
        for _ in range(20):
            call()
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(args.calls):
            for name, call in calls.items():
                times[name].append(timed(call))
        for name in calls:
            rounds[name].append(float(np.median(times[name])))
    ratios = {n: np.divide(medians, rounds[reference]) for n, medians in rounds.items()}
    return {
        name: {
            "p50_ms": float(np.median(medians)),
            "ratio": float(np.median(ratios[name])),
            "ratio_min": float(ratios[name].min()),
            "ratio_max": float(ratios[name].max()),
        }
        for name, medians in rounds.items()
    }


def timed(call: Call) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


@contextlib.contextmanager
def server(base_path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """The local server in a process of its own: its gRPC address and REST URL."""
    command = [sys.executable, "-m", "mptrec_cli", "serving", "run", str(base_path)]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--grpc-port", "0", "--rest-port", "0", "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        addresses = {}
        for line in process.stdout:
            kind, _, address = line.strip().partition("  ")
            if kind in ("gRPC", "REST"):
                addresses[kind] = address
            if len(addresses) == 2:
                break
        else:
            raise SystemExit("the local server did not start")
        yield addresses["gRPC"], addresses["REST"].removesuffix("/v1/models/MODEL")
    finally:
        process.terminate()
        process.wait()


def grpc_call(address: str, examples: list[bytes]) -> Call:
    """Predict over gRPC with a request that is ready to be sent."""
    channel = grpc.insecure_channel(address)
    grpc.channel_ready_future(channel).result(60)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "census"
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto(examples))
    return lambda: stub.Predict(request)


def rest_call(url: str, examples: list[bytes]) -> Call:
    """Predict over REST with a body that is ready to be sent."""
    session = requests.Session()
    encoded = [{"b64": base64.b64encode(example).decode()} for example in examples]
    body = json.dumps({"inputs": {"examples": encoded}})
    address = f"{url}/v1/models/census:predict"

    def call() -> None:
        session.post(address, data=body).raise_for_status()

    return call


def markdown(figures: dict) -> str:
    """The figures as tables, with the command that made them."""
    lines = [
        "<!-- Made by `python benchmarks/serving_latency.py`. -->",
        f"{figures['machine']['cores']} cores, TensorFlow {figures['libraries']['tensorflow']}; "
        f"medians of {figures['rounds']} rounds of {figures['calls']} calls each; in brackets the "
        "ratio to the first column, its median and its range over the rounds.",
    ]
    for part in ("heads", "transport"):
        names = [name for name in figures[part][0] if name != "batch"]
        lines += ["", f"| rows | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
        for result in figures[part]:
            cells = [
                f"{figure['p50_ms']:.2f} ms ({figure['ratio']:.2f}, {figure['ratio_min']:.2f} to "
                f"{figure['ratio_max']:.2f})"
                for figure in (result[name] for name in names)
            ]
            lines.append(f"| {result['batch']} | {' | '.join(cells)} |")
    cold = [result["ratio"] for result in figures["cold"]]
    lines += [
        "",
        f"First request of {max(BATCHES)} rows after a load with warm-up, over the median of those "
        f"that followed: {np.median(cold):.2f}, {min(cold):.2f} to {max(cold):.2f} over "
        f"{len(cold)} starts.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
