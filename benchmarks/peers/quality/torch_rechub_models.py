"""MMoE and PLE of torch-rechub, trained by its own trainer.

Needs requirements/peers/torch_rechub.txt.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from contest import PREDICTED_AT_ONCE, Rows, Settings, contest
from torch_rechub.basic.features import DenseFeature, SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE
from torch_rechub.trainers import MTLTrainer


class Batches:
    """Batches as the trainer reads them, with labels to train; its own loader picks row by row."""

    def __init__(self, rows: Rows, part: str, order: np.ndarray, size: int) -> None:
        self.order, self.size = order, size
        self.dense = torch.from_numpy(rows.dense[part])
        self.ids = torch.from_numpy(rows.ids[part].astype("int64"))
        self.labels = torch.from_numpy(rows.labels["train"]) if part == "train" else None

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.order), self.size):
            chosen = torch.from_numpy(self.order[start : start + self.size])
            x = {f"c{i}": column for i, column in enumerate(self.ids[chosen].T)}
            x["dense"] = self.dense[chosen]
            yield x if self.labels is None else (x, self.labels[chosen])


class TorchRechub:
    """A model of torch-rechub."""

    def __init__(self, rows: Rows, name: str, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.rows = rows
        features = [DenseFeature("dense", rows.dense["train"].shape[1])]
        features += [SparseFeature(f"c{i}", n, rows.embedding) for i, n in enumerate(rows.sizes)]
        count = len(rows.tasks)
        types = ["classification"] * count
        expert = {"dims": list(rows.experts), "dropout": settings.dropout}
        towers = [{"dims": list(rows.tower)}] * count
        model = (
            MMOE(features, types, count + 1, expert, towers)
            if name == "mmoe"
            else PLE(features, types, 1, 1, 1, expert, towers)
        )
        self.trainer = MTLTrainer(model, types, optimizer_params={"lr": settings.rate})

    def train(self, order: np.ndarray) -> None:
        """One epoch."""
        with quiet():
            self.trainer.train_one_epoch(Batches(self.rows, "train", order, self.rows.batch))

    def predict(self, part: str) -> np.ndarray:
        """Probabilities."""
        order = np.arange(len(self.rows.ids[part]))
        with quiet():
            found = self.trainer.predict(
                self.trainer.model, Batches(self.rows, part, order, PREDICTED_AT_ONCE)
            )
        return np.array(found)

    def parameters(self) -> int:
        """Trained weights."""
        return sum(p.numel() for p in self.trainer.model.parameters() if p.requires_grad)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the trainer's lines and bars."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    contest(TorchRechub, ("mmoe", "ple"), ("torch-rechub", "torch"))
