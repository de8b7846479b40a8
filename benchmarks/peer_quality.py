"""The quality of other libraries' models: the external variants of `experiments/peers.yaml`.

Each library runs in an environment of its own, `.venv-peers/NAME`, made on first use from
`requirements/peers/NAME.txt`. All get our encoded rows, the same sizes and batches, early stopping
on validation, and as many trials of tuning on validation as our models. Lines of results go beside
those of `mptrec bench run`; a training that is finished is never done twice.

    make bench-peers
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from mptrec_tf.config import Config, Stage1Config
from mptrec_tf.data import FeatureEncoder
from mptrec_tf.data.datasets import encode_rows
from mptrec_tf.evaluation import Scored
from mptrec_tf.experiments import Experiment, Results
from mptrec_tf.layers import NumericEncoding
from mptrec_tf.spec import Task
from mptrec_tf.spec.space import FloatRange

ROOT = pathlib.Path(__file__).resolve().parent.parent
ADAPTERS = ROOT / "benchmarks/peers/quality"
PARTS = ("train", "validation", "test")
Values = dict[str, float]


class Peer(NamedTuple):
    """A model of another library.

    Attributes:
        library: Names its adapter, its environment and its requirements.
        model: What the adapter calls it.
    """

    library: str
    model: str


PEERS = {
    "torch-rechub MMoE": Peer("torch_rechub", "mmoe"),
    "torch-rechub PLE": Peer("torch_rechub", "ple"),
    "DeepCTR MMoE": Peer("deepctr", "mmoe"),
    "DeepCTR PLE": Peer("deepctr", "ple"),
    "TensorFlow Recommenders shared bottom": Peer("recommenders", "shared_bottom"),
}


class Rows(NamedTuple):
    """The encoded rows.

    Attributes:
        file: What the adapters read.
        digest: A short digest of the file.
        tasks: The tasks.
        labels: By part and task.
    """

    file: pathlib.Path
    digest: str
    tasks: tuple[Task, ...]
    labels: dict[str, dict[str, np.ndarray]]


class Training(NamedTuple):
    """What defines a training of a peer.

    Attributes:
        peer: The model.
        values: Learning rate and dropout.
        seed: The seed.
        epochs: The most epochs.
    """

    peer: Peer
    values: Values
    seed: int
    epochs: int

    def digest(self, rows: Rows) -> str:
        """A short digest of all that the result depends on."""
        text = json.dumps([self, rows.digest, requirements(self.peer.library)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    """Runs what is not done yet, and adds a line for each variant and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default=str(ROOT / "experiments/peers.yaml"))
    parser.add_argument("--seeds", type=int, help="only so many of the declared seeds")
    parser.add_argument("--epochs", type=int, help="most epochs (default: those of our models)")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/peers"))
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("docs/results"))
    args = parser.parse_args()
    whole = Experiment.from_yaml(args.experiment)
    experiment = whole.reduced(seeds=args.seeds, epochs=args.epochs)
    unknown = {v.name for v in experiment.variants if v.is_external} - set(PEERS)
    if unknown:
        raise SystemExit(f"{args.experiment}: no peers {sorted(unknown)}; there are {list(PEERS)}")
    args.output.mkdir(parents=True, exist_ok=True)
    rows = write_rows(Config.from_yaml(experiment.base), args.output / "rows.npz")
    run(experiment, rows, args.output, Results(args.results / f"{experiment.name}.jsonl"))


def run(experiment: Experiment, rows: Rows, directory: pathlib.Path, results: Results) -> None:
    """Runs what of an experiment is external and not done yet."""
    stage1 = Config.from_yaml(experiment.base).stage1
    epochs = experiment.epochs or stage1.training.epochs
    trials = candidates(experiment, stage1)
    peers = {v.name: PEERS[v.name] for v in experiment.variants if v.is_external}
    best = {
        name: tuned(peer, trials, experiment.seeds[0], epochs, rows, directory)
        for name, peer in peers.items()
    }
    trainings = {
        (name, seed): Training(peer, best[name], seed, epochs)
        for seed in experiment.seeds
        for name, peer in peers.items()
    }
    digests = {key: training.digest(rows) for key, training in trainings.items()}
    refuse_others(results, digests)
    done = {line["digest"] for line in results.lines()}
    for (name, seed), training in trainings.items():
        digest = digests[name, seed]
        if digest in done:
            continue
        found = trained(training, rows, directory)
        line = {
            "experiment": experiment.name,
            "variant": name,
            "new_tasks": [],
            "seed": seed,
            "digest": digest,
            "model": "external",
            "training": {"epochs": epochs, "learning_rate": best[name]["learning_rate"]},
            "tuned": best[name] if len(trials) > 1 else None,
            "trials": len(trials) if len(trials) > 1 else 0,
            **measured(found, rows),
        }
        results.add(line)
        print({task: m["auc"] for task, m in line["test"].items()}, flush=True)


def tuned(
    peer: Peer, trials: list[Values], seed: int, epochs: int, rows: Rows, directory: pathlib.Path
) -> Values:
    """The values with the best mean AUC on validation."""
    found = [trained(Training(peer, values, seed, epochs), rows, directory) for values in trials]
    aucs = [float(result["auc"]) for result in found]
    return trials[aucs.index(max(aucs))]


def refuse_others(results: Results, wanted: dict[tuple[str, int], str]) -> None:
    """Refuses to write beside stored lines of the same variants and seeds by other settings.

    Raises:
        SystemExit: Names them.
    """
    others = {
        f"{line['variant']!r} with seed {line['seed']}"
        for line in results.lines()
        if wanted.get((line["variant"], line["seed"]), line["digest"]) != line["digest"]
    }
    if others:
        raise SystemExit(
            f"{results.path}: made with other settings, rows or libraries: {sorted(others)}; "
            "delete these lines, or give other --results"
        )


def candidates(experiment: Experiment, base: Stage1Config) -> list[Values]:
    """What tuning tries: the base's settings, and others drawn from the experiment's space."""
    first = {
        "learning_rate": base.training.learning_rate,
        "expert_dropout": base.model.expert_dropout,
    }
    tuning = experiment.tuning
    if tuning is None:
        return [first]
    drawn = np.random.default_rng(experiment.seeds[0])

    def draw(space: Any) -> float:
        if not isinstance(space, FloatRange):
            raise SystemExit(f"{experiment.name}: tuning: the peers know ranges of numbers only")
        if space.log:
            return math.exp(drawn.uniform(math.log(space.min), math.log(space.max)))
        return drawn.uniform(space.min, space.max)

    others = [
        first | {name: draw(space) for name, space in tuning.stage1.items()}
        for _ in range(tuning.trials - 1)
    ]
    return [first, *others]


def trained(training: Training, rows: Rows, directory: pathlib.Path) -> dict[str, Any]:
    """What an adapter wrote about a training, which is done if it is not yet."""
    file = directory / f"{training.digest(rows)}.npz"
    if not file.is_file():
        peer, values = training.peer, training.values
        python = environment(peer.library)
        print(f"{peer.library}: {peer.model}, seed {training.seed}, {values}", flush=True)
        options = {
            "model": peer.model,
            "seed": training.seed,
            "epochs": training.epochs,
            "rate": values["learning_rate"],
            "dropout": values["expert_dropout"],
        }
        given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        adapter = ADAPTERS / f"{peer.library}_models.py"
        subprocess.run([python, adapter, rows.file, file, *given], check=True)  # noqa: S603
    with np.load(file) as found:
        return dict(found)


def measured(found: dict[str, Any], rows: Rows) -> dict[str, Any]:
    """What a line says of a training, with the metrics of `mptrec evaluate`."""
    return {
        "tasks": [task.name for task in rows.tasks],
        **{
            part: {
                task.name: Scored(task, rows.labels[part][task.name], found[part][:, i]).metrics()
                for i, task in enumerate(rows.tasks)
            }
            for part in ("validation", "test")
        },
        "trained_parameters": int(found["parameters"]),
        "epochs": int(found["epochs"]),
        "best_epoch": int(found["best_epoch"]) + 1,
        "seconds": float(found["seconds"]),
        "parameters": int(found["parameters"]),
        "predictions": None,
        "flops": None,
        "gates": None,
        "representations": None,
        "old_tasks_identical": None,
        "rows": {part: len(next(iter(rows.labels[part].values()))) for part in PARTS},
        "versions": dict(zip(found["packages"].tolist(), found["versions"].tolist(), strict=True)),
    }


def requirements(name: str) -> str:
    """The locked requirements of a library's environment."""
    return (ROOT / "requirements/peers" / f"{name}.txt").read_text()


def environment(name: str) -> pathlib.Path:
    """The Python of a library's environment, which is made if it is not there."""
    directory = ROOT / ".venv-peers" / name
    python, ready = directory / "bin/python", directory / ".ready"
    wanted = requirements(name)
    if not ready.is_file() or ready.read_text() != wanted:
        print(f"{name}: making {directory}", flush=True)
        make = [sys.executable, "-m", "venv", "--clear", directory]
        subprocess.run(make, check=True)  # noqa: S603
        file = ROOT / "requirements/peers" / f"{name}.txt"
        install = [python, "-m", "pip", "install", "--quiet", "--requirement", file]
        subprocess.run(install, check=True)  # noqa: S603
        ready.write_text(wanted)
    return python


def write_rows(config: Config, path: pathlib.Path) -> Rows:
    """Writes what the adapters read: the rows with the tasks of stage 1.

    Raises:
        SystemExit: If a task is not binary or weighs its rows, or a row lacks a label, which the
            peers cannot have, or there is a multi-valued feature.
    """
    tasks = config.spec.with_tasks(*config.stage1.tasks).tasks
    names = [task.name for task in tasks]
    sources = config.data.sources()
    encoder = FeatureEncoder(config.features).adapt(sources.train)
    if encoder.multivalued_features or any(t.kind != "binary" or t.weight for t in tasks):
        raise SystemExit("the peers take binary tasks without weights, numbers and categories only")
    numbers = [feature.name for feature in encoder.numeric_features]
    numeric = NumericEncoding(
        [encoder.numeric_state[name] for name in numbers],
        [feature.encoding == "standardize" for feature in encoder.numeric_features],
    )
    categories = [feature.name for feature in encoder.categorical_features]
    sizes = [encoder.vocabulary_size(name) for name in categories]
    arrays, labels = {}, {}
    for part in PARTS:
        x, y = encode_rows(getattr(sources, part), encoder, tasks)
        arrays[f"{part}_dense"] = numeric(x["numeric"]).numpy()
        arrays[f"{part}_ids"] = x["categorical"].astype(np.int32)
        arrays[f"{part}_labels"] = np.stack([y[name] for name in names], 1).astype(np.float32)
        labels[part] = y
        if np.isnan(arrays[f"{part}_labels"]).any():
            raise SystemExit(f"{part}: rows without a label, which the peers cannot leave out")
    model, training = config.stage1.model, config.stage1.training
    arrays |= {
        "embedding": np.array(model.embedding_dim),
        "experts": np.array(model.expert_units),
        "tower": np.array(model.tower_units),
        "batch": np.array(training.batch_size),
        "patience": np.array(training.patience),
    }
    np.savez(path, tasks=np.array(names), sizes=np.array(sizes), **arrays)
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).tobytes())
    return Rows(path, digest.hexdigest()[:16], tasks, labels)


if __name__ == "__main__":
    main()
