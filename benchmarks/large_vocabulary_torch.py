"""The other side of `large_vocabulary.py`: the layers of MPT-Rec on one embedding in PyTorch.

Needs PyTorch and NumPy only. Reads lines of JSON (`kind`, `ids`, `steps`, `batch`), trains so many
steps, and answers each with `seconds_a_step`. Not the whole method: without the adversarial part.
"""

import itertools
import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

TASKS, WIDTH = 2, 8


def mlp(*units: int) -> nn.Sequential:
    """Linear layers, each followed by ReLU."""
    layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(units)]
    return nn.Sequential(*itertools.chain(*layers))


class Model(nn.Module):
    """A sharing and two specific experts, prompts, gates and towers, both passes of stage 1.

    Args:
        ids: Size of the vocabulary.
        sparse: Whether the gradient of the embedding is sparse.
    """

    def __init__(self, ids: int, sparse: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ids, WIDTH, sparse=sparse)
        self.experts = nn.ModuleList(mlp(WIDTH, 256, 128) for _ in range(TASKS + 1))
        self.prompts = nn.Parameter(torch.randn(TASKS, 128))
        self.gates = nn.ModuleList(nn.Linear(WIDTH, 2, bias=False) for _ in range(TASKS))
        self.towers = nn.ModuleList(
            nn.Sequential(mlp(128, 64, 32), nn.Linear(32, 1)) for _ in range(TASKS)
        )

    def forward(self, items: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch."""
        x = self.embedding(items)
        shared, *specific = (expert(x) for expert in self.experts)
        loss = x.new_zeros(())
        for task, tower in enumerate(self.towers):
            gate = self.gates[task](x).softmax(-1)
            fused = gate[:, :1] * specific[task] * self.prompts[task] + gate[:, 1:] * shared
            for weight, features in ((1.0, fused), (0.2, shared)):
                logits = tower(features)[:, 0]
                loss = loss + weight * F.binary_cross_entropy_with_logits(logits, labels[:, task])
        return loss


class Training:
    """A model, its optimizers and its data.

    Args:
        kind: `"sparse"` or `"dense"`.
        ids: Size of the vocabulary.
        steps: Steps of a repetition.
        batch: Rows of a step.
    """

    def __init__(self, kind: str, ids: int, steps: int, batch: int) -> None:
        sparse = kind == "sparse"
        self.model = Model(ids, sparse)
        table = [self.model.embedding.weight]
        others = [p for p in self.model.parameters() if p is not table[0]]
        adam = torch.optim.Adam(others if sparse else others + table, fused=True)
        self.optimizers = [adam, torch.optim.SparseAdam(table)] if sparse else [adam]
        rng = np.random.default_rng(0)
        share = np.cumsum(np.arange(1, ids + 1, dtype=np.float64) ** -1.05)
        ranks = np.searchsorted(share, rng.random(batch * steps) * share[-1])
        self.items = torch.from_numpy(rng.permutation(ids)[ranks]).split(batch)
        self.labels = torch.from_numpy(
            rng.integers(0, 2, (batch * steps, TASKS)).astype(np.float32)
        ).split(batch)

    def seconds_a_step(self) -> float:
        """Trains an epoch."""
        begun = time.perf_counter()
        for items, labels in zip(self.items, self.labels, strict=True):
            loss = self.model(items, labels)
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
        loss.item()
        return (time.perf_counter() - begun) / len(self.items)


def main() -> None:
    """Answers until the input ends."""
    torch.manual_seed(0)
    trainings: dict[str, Training] = {}
    for line in sys.stdin:
        if line not in trainings:
            trainings[line] = Training(**json.loads(line))
        print(json.dumps({"seconds_a_step": trainings[line].seconds_a_step()}), flush=True)


if __name__ == "__main__":
    main()
