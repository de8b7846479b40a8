"""The PyTorch peer as a worker: chooses its fastest form on this machine, then repeats epochs.

Runs in the environment of `requirements/torch.txt`.
"""

import argparse
import functools
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.protocol import Worker
from peers.mptrec_torch import Settings, Stage1, Stage2, reversal_strength

TRIAL_SECONDS = 3.0
"""How long each form is tried once it is warm."""
TRIAL_STEPS = 25
PRODUCT = 1024
TOLERANCE = 1e-4

Batch = tuple[Tensor, Tensor, Tensor]
"""Numbers (B, N), ids (B, C), labels (K, B)."""


class Form(NamedTuple):
    """A way to compute the same.

    Attributes:
        compiled: Whether `torch.compile` is used.
        threads: Threads within an operation.
        batched: Whether experts and towers are batched products instead of loops.
        adam: The optimizer's implementation, `"fused"` or `"foreach"`.
    """

    compiled: bool
    threads: int
    batched: bool
    adam: str

    def __str__(self) -> str:
        compiled = "compiled" if self.compiled else "eager"
        batched = "batched" if self.batched else "looped"
        return f"{compiled},{self.threads},{batched},{self.adam}"

    @classmethod
    def parse(cls, text: str) -> "Form":
        """Reads what `str` gives."""
        compiled, threads, batched, adam = text.split(",")
        return cls(compiled == "compiled", int(threads), batched == "batched", adam)


class Data:
    """The rows as tensors in memory.

    Args:
        directory: What `harness.census.prepare` wrote.
        stage: 1 or 2.
    """

    def __init__(self, directory: pathlib.Path, stage: int) -> None:
        with np.load(directory / "rows.npz") as rows:
            self.numeric = torch.from_numpy(rows["numeric"])
            self.categorical = torch.from_numpy(rows["categorical"])
            labels = rows["labels"][:2] if stage == 1 else rows["labels"][2:]
        self.labels = torch.from_numpy(np.ascontiguousarray(labels.T))

    def __len__(self) -> int:
        return len(self.numeric)

    def first(self, rows: int) -> Batch:
        """The first rows."""
        return self.numeric[:rows], self.categorical[:rows], self.labels[:rows].T

    def slices(self, batch: int) -> Iterator[Batch]:
        """An epoch: all rows put into an order drawn anew, then slices of the tensors."""
        order = torch.randperm(len(self))
        columns = (self.numeric[order], self.categorical[order], self.labels[order])
        for numeric, categorical, labels in zip(*(c.split(batch) for c in columns), strict=True):
            yield numeric, categorical, labels.T

    def rows(self, batch: int, loaders: int) -> Iterator[Batch]:
        """An epoch through a `DataLoader` whose data set gives a dict for each row.

        Args:
            batch: Rows in a batch.
            loaders: Processes that read.
        """
        rows = RowByRow(self)
        loader = torch.utils.data.DataLoader(
            rows, batch_size=batch, shuffle=True, num_workers=loaders
        )
        for columns, labels in loader:
            numeric, categorical = (
                torch.stack([columns[name] for name in names], dim=1)
                for names in (rows.numeric, rows.categorical)
            )
            yield numeric, categorical, labels.T


class RowByRow(torch.utils.data.Dataset):
    """For each row a dict with an entry a column, as the data set of torch-rechub gives it.

    The columns are NumPy arrays, which give single values several times as fast as tensors do.

    Args:
        data: The rows.
    """

    def __init__(self, data: Data) -> None:
        numeric, categorical = data.numeric.numpy().T, data.categorical.numpy().T
        self.numeric = [f"numeric_{index}" for index in range(len(numeric))]
        self.categorical = [f"categorical_{index}" for index in range(len(categorical))]
        self._labels = data.labels.numpy()
        self._columns = {
            name: np.ascontiguousarray(column)
            for name, column in zip(
                [*self.numeric, *self.categorical], [*numeric, *categorical], strict=True
            )
        }

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[dict[str, Any], np.ndarray]:
        return {name: column[row] for name, column in self._columns.items()}, self._labels[row]


class Training:
    """A model in one form, its optimizer, and the step.

    Args:
        directory: What `harness.census.prepare` wrote.
        stage: 1 or 2.
        form: How to compute.
    """

    def __init__(self, directory: pathlib.Path, stage: int, form: Form) -> None:
        torch.set_num_threads(form.threads)
        self.stage = stage
        self.settings = Settings(json.loads((directory / "settings.json").read_text()))
        # Where in the training the reversal stands makes no difference to the work.
        self.alpha = torch.tensor(reversal_strength(self.settings.progress))
        with np.load(directory / f"stage{stage}.npz") as stored:
            self.stored = dict(stored)
        kind = Stage1 if stage == 1 else Stage2
        self.model = kind(self.settings, self.stored, form.batched)
        self.forward: Callable[..., Tensor] = self.model
        if form.compiled:
            torch.compiler.reset()
            self.forward = torch.compile(self.model)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=self.settings.learning_rate,
            eps=self.settings.epsilon,
            **{form.adam: True},
        )

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch."""
        return self.forward(*batch, self.alpha) if self.stage == 1 else self.forward(*batch)

    def steps(self, batches: Iterable[Batch]) -> int:
        """Trains on some batches and gives the number of examples."""
        examples = 0
        for batch in batches:
            loss = self.loss(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            examples += len(batch[0])
        return examples

    def check(self, batch: Batch) -> None:
        """Refuses to be measured if loss or gradients are not those of `mptrec_tf`.

        Raises:
            SystemExit: Names what differs.
        """
        loss = self.loss(batch)
        loss.backward()
        self._compare("the loss", loss.detach().numpy(), self.stored["loss"])
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                key = f"gradient/{PARAMETERS.get(name, name)}"
                expected = self.stored[key].reshape(parameter.shape)
                self._compare(key, parameter.grad.numpy(), expected)
        self.optimizer.zero_grad(set_to_none=True)

    @staticmethod
    def _compare(what: str, ours: np.ndarray, expected: np.ndarray) -> None:
        error = float(np.linalg.norm(ours - expected))
        size = float(np.linalg.norm(expected))
        if not error <= TOLERANCE * max(size, 1e-2):
            raise SystemExit(f"not the same model: {what} is off by {error:.2e}, of {size:.2e}")


PARAMETERS = {
    "backbone.table": "table",
    "backbone.first": "expert_kernel_0",
    "backbone.first_bias": "expert_bias_0",
    "backbone.second": "expert_kernel_1",
    "backbone.second_bias": "expert_bias_1",
    "classifier": "classifier_kernel",
    "prompt": "new_prompt",
    "query_hidden": "new_query_hidden",
    "query_output": "new_query_output",
    "norm_scale": "new_norm_scale",
    "norm_shift": "new_norm_shift",
    "gate": "new_gate",
    **{f"towers.kernels.{i}": f"tower_kernel_{i}" for i in range(3)},
    **{f"towers.biases.{i}": f"tower_bias_{i}" for i in range(3)},
    **{f"tower.kernels.{i}": f"new_tower_kernel_{i}" for i in range(3)},
    **{f"tower.biases.{i}": f"new_tower_bias_{i}" for i in range(3)},
}
"""What `stage1.npz` and `stage2.npz` call a parameter, where it is not its own name."""


def choose(directory: pathlib.Path, stage: int, data: Data, batch: int) -> dict[Form, float]:
    """Examples per second of the forms that are tried, on tensors in memory.

    All forms without compilation, then compilation with the number of threads of the best.
    """
    rates: dict[Form, float] = {}

    def attempt(form: Form) -> None:
        training = Training(directory, stage, form)
        training.check(data.first(batch))
        rates[form] = _rate(training, data, batch)
        print(form, f"{rates[form]:,.0f} examples/s", file=sys.stderr, flush=True)

    for threads, batched in itertools.product(sorted({1, os.cpu_count() or 1}), (True, False)):
        attempt(Form(False, threads, batched, "fused"))
    best = max(rates, key=rates.__getitem__)
    attempt(best._replace(adam="foreach"))
    for batched in (True, False):
        attempt(best._replace(compiled=True, batched=batched))
    return rates


def choose_loaders(training: Training, data: Data, batch: int) -> dict[int, float]:
    """Seconds of some steps by number of processes that read rows, their start left out."""
    seconds = {}
    for loaders in (0, os.cpu_count() or 1):
        batches = data.rows(batch, loaders)
        training.steps(itertools.islice(batches, TRIAL_STEPS))
        start = time.perf_counter()
        training.steps(itertools.islice(batches, 3 * TRIAL_STEPS))
        seconds[loaders] = time.perf_counter() - start
    return seconds


def _rate(training: Training, data: Data, batch: int) -> float:
    """Examples per second in the best of some short trials."""
    batches = itertools.chain.from_iterable(data.slices(batch) for _ in itertools.count())
    training.steps(itertools.islice(batches, TRIAL_STEPS))
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < TRIAL_SECONDS:
        start = time.perf_counter()
        examples = training.steps(itertools.islice(batches, TRIAL_STEPS))
        best = max(best, examples / (time.perf_counter() - start))
    return best


def matrix_product_flops() -> float:
    """Operations a second of a float32 product of two square matrices, the best of many tries."""
    torch.set_num_threads(os.cpu_count() or 1)
    left, right = torch.ones(PRODUCT, PRODUCT), torch.ones(PRODUCT, PRODUCT)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < TRIAL_SECONDS:
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return 2 * PRODUCT**3 / best


def main() -> None:
    """Chooses, warms up, then repeats epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--stage", type=int, choices=(1, 2), required=True)
    parser.add_argument("--input", choices=("slices", "rows"), default="slices")
    parser.add_argument("--form", help="instead of trying all, such as eager,2,batched,fused")
    args = parser.parse_args()
    worker = Worker()
    torch.manual_seed(0)
    data = Data(args.data, args.stage)
    batch = json.loads((args.data / "settings.json").read_text())["batch"]
    rates: dict[Form, float] = {}
    flops = matrix_product_flops()
    if args.form is None:
        rates = choose(args.data, args.stage, data, batch)
    form = Form.parse(args.form) if args.form else max(rates, key=rates.__getitem__)
    training = Training(args.data, args.stage, form)
    training.check(data.first(batch))
    chosen: dict[str, object] = {"form": str(form), "torch": torch.__version__, "flops": flops}
    chosen["rates"] = {str(form): round(rate) for form, rate in rates.items()}
    epoch = functools.partial(data.slices, batch)
    if args.input == "rows":
        seconds = choose_loaders(training, data, batch)
        chosen["loaders"] = min(seconds, key=seconds.__getitem__)
        epoch = functools.partial(data.rows, batch, chosen["loaders"])
    training.steps(itertools.islice(epoch(), 2 * TRIAL_STEPS))
    worker.ready(chosen)
    for _ in worker.requests():
        start = time.perf_counter()
        examples = training.steps(epoch())
        worker.done(time.perf_counter() - start, examples)


if __name__ == "__main__":
    main()
