"""The quality of other libraries' multi-task models on the rows, split and encoding of ours.

Each library runs in an environment of its own, `.venv-peers/NAME`, made on first use from
`requirements/peers/NAME.txt`. All get the same encoded rows, sizes, dropout, Adam's rate, batch
size and early stopping on the validation rows; nothing is tuned. Results are JSON lines as those
of `mptrec bench`.

    make bench-peers
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from mptrec_tf.config import Config
from mptrec_tf.data import FeatureEncoder
from mptrec_tf.data.datasets import encode_rows
from mptrec_tf.evaluation import Scored
from mptrec_tf.layers import NumericEncoding
from mptrec_tf.spec import Task

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("train", "validation", "test")


class Peer(NamedTuple):
    """A library.

    Attributes:
        adapter: Its file in `benchmarks/peers/quality`.
        models: What of it is run.
    """

    adapter: str
    models: tuple[str, ...]


PEERS = {
    "torch_rechub": Peer("torch_rechub_models.py", ("mmoe", "ple")),
    "deepctr": Peer("deepctr_models.py", ("mmoe", "ple")),
    "recommenders": Peer("recommenders_models.py", ("shared_bottom",)),
}


def main() -> None:
    """Runs what is not done yet, and adds a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(ROOT / "configs/census_income.yaml"))
    parser.add_argument("--tasks", nargs="+", default=["income", "marital"])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/peers"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "rows.npz"
    labels = write_rows(Config.from_yaml(args.config), args.tasks, file)
    rows = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    results = args.output / "peers.jsonl"
    done = set()
    if results.is_file():
        done = {json.loads(line)["digest"] for line in results.read_text().splitlines()}
    for name in args.peers:
        python = environment(name)
        for model in PEERS[name].models:
            for seed in args.seeds:
                what = f"{name} {model} {seed} {args.epochs} {rows}"
                digest = hashlib.sha256(what.encode()).hexdigest()[:16]
                if digest in done:
                    continue
                print(f"{name}: {model}, seed {seed}", flush=True)
                result = run(python, name, model, seed, args.epochs, file, labels)
                line = {
                    "experiment": "peers",
                    "variant": f"{name}: {model}",
                    "new_tasks": [],
                    "seed": seed,
                    "digest": digest,
                    **result,
                }
                with results.open("a", encoding="utf-8") as opened:
                    opened.write(json.dumps(line) + "\n")
                print({task: m["auc"] for task, m in result["test"].items()}, flush=True)
    print(f"written to {results}")


def environment(name: str) -> pathlib.Path:
    """The Python of a library's environment, which is made if it is not there."""
    directory = ROOT / ".venv-peers" / name
    python, ready = directory / "bin/python", directory / ".ready"
    wanted = (ROOT / "requirements/peers" / f"{name}.txt").read_text()
    if not ready.is_file() or ready.read_text() != wanted:
        print(f"{name}: making {directory}", flush=True)
        make = [sys.executable, "-m", "venv", "--clear", directory]
        subprocess.run(make, check=True)  # noqa: S603
        file = ROOT / "requirements/peers" / f"{name}.txt"
        install = [python, "-m", "pip", "install", "--quiet", "--requirement", file]
        subprocess.run(install, check=True)  # noqa: S603
        ready.write_text(wanted)
    return python


def write_rows(
    config: Config, tasks: list[str], path: pathlib.Path
) -> dict[str, dict[str, np.ndarray]]:
    """Writes what the adapters read, and gives the labels by part and task.

    Raises:
        SystemExit: If a task is not binary or a row lacks a label, which the peers cannot have, or
            there is a multi-valued feature.
    """
    chosen = config.spec.with_tasks(*tasks).tasks
    sources = config.data.sources()
    encoder = FeatureEncoder(config.features).adapt(sources.train)
    if encoder.multivalued_features or any(task.kind != "binary" for task in chosen):
        raise SystemExit("the peers take binary tasks, numbers and categories only")
    names = [feature.name for feature in encoder.numeric_features]
    numeric = NumericEncoding(
        [encoder.numeric_state[name] for name in names],
        [feature.encoding == "standardize" for feature in encoder.numeric_features],
    )
    categories = [feature.name for feature in encoder.categorical_features]
    sizes = [encoder.vocabulary_size(name) for name in categories]
    arrays, labels = {}, {}
    for part in PARTS:
        x, y, *_ = encode_rows(getattr(sources, part), encoder, chosen)
        arrays[f"{part}_dense"] = numeric(x["numeric"]).numpy()
        arrays[f"{part}_ids"] = x["categorical"].astype(np.int32)
        arrays[f"{part}_labels"] = np.stack([y[name] for name in tasks], 1).astype(np.float32)
        labels[part] = y
        if np.isnan(arrays[f"{part}_labels"]).any():
            raise SystemExit(f"{part}: rows without a label, which the peers cannot leave out")
    np.savez(path, tasks=np.array(tasks), sizes=np.array(sizes), **arrays)
    return labels


def run(
    python: pathlib.Path,
    name: str,
    model: str,
    seed: int,
    epochs: int,
    rows: pathlib.Path,
    labels: dict[str, dict[str, np.ndarray]],
) -> dict:
    """Trains one model in its environment, and measures it by the metrics of `mptrec evaluate`."""
    adapter = ROOT / "benchmarks/peers/quality" / PEERS[name].adapter
    predictions = rows.with_name(f"{name}-{model}-{seed}.npz")
    options = ["--model", model, "--seed", str(seed), "--epochs", str(epochs)]
    subprocess.run([python, adapter, rows, predictions, *options], check=True)  # noqa: S603
    with np.load(predictions) as file:
        found = dict(file)
    tasks = list(labels["test"])
    return {
        "tasks": tasks,
        **{
            part: {
                task: Scored(Task(task, task), labels[part][task], found[part][:, i]).metrics()
                for i, task in enumerate(tasks)
            }
            for part in ("validation", "test")
        },
        "trained_parameters": int(found["parameters"]),
        "epochs": int(found["epochs"]),
        "best_epoch": int(found["best_epoch"]),
        "seconds": float(found["seconds"]),
    }


if __name__ == "__main__":
    main()
