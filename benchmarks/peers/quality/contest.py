"""What the adapters of all libraries share: rows, epochs, the epoch that is kept. Needs NumPy only.

An adapter runs in its library's own environment:

    PYTHON benchmarks/peers/quality/deepctr_models.py rows.npz predictions.npz --model mmoe --seed 0
"""

import argparse
import importlib.metadata
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

PREDICTED_AT_ONCE = 8192


class Settings(NamedTuple):
    """How a model is trained.

    Attributes:
        seed: Seed of weights and dropout.
        rate: Learning rate of Adam.
        dropout: Rate of the dropout in experts.
    """

    seed: int
    rate: float
    dropout: float


class Contender(Protocol):
    """A model of a library."""

    def train(self, order: np.ndarray) -> None:
        """One epoch over the training rows in that order."""

    def predict(self, part: str) -> np.ndarray:
        """Probabilities of a part's rows, (rows, tasks)."""

    def parameters(self) -> int:
        """How many weights are trained."""


class Rows:
    """The encoded rows.

    Args:
        path: The file that `benchmarks/peer_quality.py` has written.

    Attributes:
        tasks: Names of the tasks, all binary.
        sizes: Number of ids of each categorical column.
        dense: By part, the numbers as MPTRec's input layer encodes them, float32 (rows, d).
        ids: By part, int32 (rows, columns).
        labels: By part, float32 (rows, tasks).
        embedding: Width of the embeddings.
        experts: Widths of an expert's layers.
        tower: Widths of a tower's layers.
        batch: Rows of a step.
        patience: Epochs without a better validation AUC until a training ends.
    """

    def __init__(self, path: str) -> None:
        parts = ("train", "validation", "test")
        with np.load(path) as file:
            self.tasks = [str(name) for name in file["tasks"]]
            self.sizes = [int(size) for size in file["sizes"]]
            self.dense = {part: file[f"{part}_dense"] for part in parts}
            self.ids = {part: file[f"{part}_ids"] for part in parts}
            self.labels = {part: file[f"{part}_labels"] for part in parts[:2]}
            self.experts = tuple(int(units) for units in file["experts"])
            self.tower = tuple(int(units) for units in file["tower"])
            self.embedding, self.batch, self.patience = (
                int(file[name]) for name in ("embedding", "batch", "patience")
            )


def contest(
    make: Callable[[Rows, str, Settings], Contender],
    models: tuple[str, ...],
    packages: tuple[str, ...],
) -> None:
    """Trains a model, and writes its predictions at the epoch with the best mean validation AUC.

    Args:
        make: Makes the contender of rows, name of the model and settings.
        models: The names it knows.
        packages: Those whose versions are written beside.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("rows")
    parser.add_argument("predictions")
    parser.add_argument("--model", choices=models, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.3)
    args = parser.parse_args()
    versions = [importlib.metadata.version(package) for package in packages]
    rows = Rows(args.rows)
    settings = Settings(args.seed, args.rate, args.dropout)
    contender = make(rows, args.model, settings)
    shuffled = np.random.default_rng(args.seed)
    best: dict[str, Any] = {"auc": -1.0}
    begun = time.perf_counter()
    for epoch in range(args.epochs):
        contender.train(shuffled.permutation(len(rows.labels["train"])))
        found = contender.predict("validation")
        auc = np.mean(
            [area(y, p) for y, p in zip(rows.labels["validation"].T, found.T, strict=True)]
        )
        if auc > best["auc"]:
            test = contender.predict("test")
            best = {"auc": auc, "epoch": epoch, "validation": found, "test": test}
        print(f"epoch {epoch + 1}: mean validation AUC {auc:.5f}", flush=True)
        if epoch - best["epoch"] >= rows.patience:
            break
    partial = f"{args.predictions}.partial.npz"
    np.savez(
        partial,
        auc=best["auc"],
        validation=best["validation"],
        test=best["test"],
        best_epoch=best["epoch"],
        epochs=epoch + 1,
        seconds=time.perf_counter() - begun,
        parameters=contender.parameters(),
        packages=np.array(packages),
        versions=np.array(versions),
    )
    pathlib.Path(partial).replace(args.predictions)  # a kill leaves no half of a file


def area(labels: np.ndarray, scores: np.ndarray) -> float:
    """The AUC, ties counted half."""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    positives = labels.sum()
    pairs = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    return float(pairs / (positives * (len(labels) - positives)))
