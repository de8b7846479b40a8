"""Does what experiments declare, each run once, and goes on where it was cut off."""

import dataclasses
import gc
import importlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from mptrec_tf.config import Stage, with_settings
from mptrec_tf.errors import ModelError
from mptrec_tf.evaluation.two_stage import versions
from mptrec_tf.experiments.config import Experiment
from mptrec_tf.experiments.data import EncodedParts
from mptrec_tf.experiments.plan import TREES, Cell, Run, outdated, plan
from mptrec_tf.experiments.store import Results, key_of
from mptrec_tf.experiments.training import (
    MODEL_FILE,
    TRAINING,
    train,
    train_trees,
)
from mptrec_tf.experiments.trees import check_trees
from mptrec_tf.files import only_one, write_json
from mptrec_tf.models import save_model
from mptrec_tf.spec.parsing import dump
from mptrec_tf.training.fitting import CACHE

OF_A_CELL = ("experiment", "variant", "new_tasks", "seed", "digest")
"""What a line has beside the result of its run."""

RESULT_FILE = "result.json"
TUNING = "tuning"
COMPILATION = 12.0
"""Seconds that a run takes beside its epochs, for the first estimate."""
ROWS_PER_SECOND = 40_000
"""How fast a training reads rows, for the first estimate."""


class Runner:
    """Runs experiments, and shares between them what they have in common.

    A run (a model, its settings, data, tasks and seed) is known by a digest of all that defines it.
    It is trained once, whichever experiments and variants need it: a new task is added to the same
    model of the older tasks that another variant or experiment has trained.

    Args:
        directory: Where models, results of runs and states of trainings are kept. One process at a
            time works there.
        results: Where each experiment's results are written, `NAME.jsonl`. Defaults to `None`, the
            same directory.
        most: After how many trainings to stop, those of searches included: XLA never frees what it
            has compiled, so a long list wants a new process now and then. Defaults to `None`,
            never.
        report: Takes a line about each step. Defaults to `print`.
        verbose: As in `keras.Model.fit`. Defaults to 0.

    Example:

    ```python
    Runner("runs/bench").run([Experiment.from_yaml("experiments/stage1.yaml")])
    ```
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        results: str | os.PathLike[str] | None = None,
        *,
        most: int | None = None,
        report: Callable[[str], None] = print,
        verbose: int = 0,
    ) -> None:
        self.directory = pathlib.Path(directory)
        self.results = pathlib.Path(results or directory)
        self.most = most
        self.report = report
        self.verbose = verbose
        self._data: tuple[Any, EncodedParts] | None = None
        self._paces: list[float] = []
        self._trainings = 0
        self._left: dict[str, float] = {}
        self._stored: dict[str, dict[str, Any]] = {}

    def run(self, experiments: Sequence[Experiment]) -> bool:
        """Runs what is not done yet.

        Args:
            experiments: The experiments, one after another.

        Returns:
            Whether all is done; not, where it stopped after `most` trainings.

        Raises:
            SpecError: If an experiment does not fit, before anything is trained.
            ImportError: If a library that an experiment needs is not installed, before as well.
            ModelError: If another process works in the directory, or stored lines were made with
                other settings than an experiment declares.
            DataError: If the data do not fit the spec.
        """
        plans = [(experiment, plan(experiment)) for experiment in experiments]
        for experiment, cells in plans:
            self._refuse_outdated(experiment, cells)
        runs = {run.digest: run for _, cells in plans for run in _with_parents(cells)}
        for run in runs.values():
            _check_possible(run)
        with only_one(self.directory):
            for file in sorted(self.results.glob("*.jsonl")):
                for line in Results(file).lines():
                    self._stored[line["digest"]] = {
                        key: value for key, value in line.items() if key not in OF_A_CELL
                    }
            todo = [run for run in runs.values() if not self._is_done(run)]
            self.report(f"{len(runs)} runs, {len(runs) - len(todo)} of them done")
            if todo:
                self._left = self._guess(todo)
                self.report(
                    f"about {_duration(sum(self._left.values()))} to go at most, a first guess"
                )
            return all(self._run_cells(experiment, cells) for experiment, cells in plans)

    def _run_cells(self, experiment: Experiment, cells: list[Cell]) -> bool:
        """Whether all cells of an experiment are done."""
        results = self._results(experiment)
        stored = {key_of(line) for line in results.lines()}
        for cell in cells:
            key = (cell.variant, cell.new_tasks, cell.seed, cell.run.digest)
            if key in stored:
                continue
            enough = self.most is not None and self._trainings >= self.most
            if enough and not self._is_done(cell.run):
                return False
            about = f"{experiment.name}: {_title(cell)}"
            result = self._stored.get(cell.run.digest) or self._result(cell.run, about)
            if cell.seed != experiment.seeds[0]:  # a picture needs one seed, and files stay small
                result = result | {"representations": None}
            of_cell = (experiment.name, cell.variant, [*cell.new_tasks], cell.seed, cell.run.digest)
            results.add(dict(zip(OF_A_CELL, of_cell, strict=True)) | result)
        return True

    def _refuse_outdated(self, experiment: Experiment, cells: list[Cell]) -> None:
        results = self._results(experiment)
        lines = outdated(cells, results.lines())
        if lines:
            named = sorted({f"{line['variant']!r} with seed {line['seed']}" for line in lines})
            more = f" and {len(named) - 3} more" if len(named) > 3 else ""
            raise ModelError(
                f"{results.path}: made with other settings than {experiment.name} now declares: "
                f"{', '.join(named[:3])}{more}; delete these lines, or give another directory for "
                "the results"
            )

    def _results(self, experiment: Experiment) -> Results:
        return Results(self.results / f"{experiment.name}.jsonl")

    def _result(self, run: Run, about: str) -> dict[str, Any]:
        """The result of a run, which is trained if it has none yet."""
        file = self._result_file(run)
        if file.is_file():
            return json.loads(file.read_text())
        parent = None
        if run.parent is not None:
            parent = self._result(run.parent, f"{about}: the older tasks")
        self.report(about)
        begun = time.perf_counter()
        self._trainings += 1
        result = self._train(run, parent)
        stored = self._stored.get(run.digest)
        if stored is not None and stored["predictions"] != result["predictions"]:
            self.report(
                "  other predictions than those of the stored line, made on another machine or by "
                "another version: what is added to this model is not added to that one"
            )
        self._note(run, result, time.perf_counter() - begun)
        return result

    def _train(self, run: Run, parent: dict[str, Any] | None) -> dict[str, Any]:
        keras.backend.clear_session()
        gc.collect()  # models hold cycles
        data = self._data_of(run)
        directory = self._directory(run)
        directory.mkdir(parents=True, exist_ok=True)
        if run.model == TREES:
            chosen, result = run, train_trees(run, data)
        else:
            chosen, result = self._train_model(run, data, parent)
        result = {
            "model": run.model,
            "arguments": chosen.arguments,
            "training": dump(chosen.stage.training),
            **result,
            "rows": {part: data.number(part) for part in ("train", "validation", "test")},
            "versions": versions(),
        }
        write_json(directory / RESULT_FILE, result)
        for finished in (TRAINING, CACHE):
            shutil.rmtree(directory / finished, ignore_errors=True)
        return result

    def _train_model(
        self, run: Run, data: EncodedParts, parent: dict[str, Any] | None
    ) -> tuple[Run, dict[str, Any]]:
        """The run with the settings that a search has chosen, if there is one, and its result."""
        directory = self._directory(run)
        parent_file = None if run.parent is None else self._directory(run.parent) / MODEL_FILE
        chosen, tuned = run, None
        if run.tuning_seed is not None:
            tuned = self._tuned(run, data)
            stage: Stage = "stage1" if run.parent is None else "stage2"
            chosen = dataclasses.replace(run, config=with_settings(run.config, stage, tuned))
        model, result = train(chosen, data, directory, parent_file, verbose=self.verbose)
        save_model(model, directory / MODEL_FILE)
        identical = None
        if parent is not None:
            old, new = parent["predictions"], result["predictions"]
            identical = old == {task: new[task] for task in old}
        return chosen, {
            "tuned": tuned,
            "trials": run.config.tuner.trials if tuned is not None else 0,
            **result,
            "old_tasks_identical": identical,
        }

    def _tuned(self, run: Run, data: EncodedParts) -> dict[str, Any]:
        """The settings that a search with the first seed chooses, or has chosen elsewhere."""
        from mptrec_tf.experiments.tuning import tuned_values

        assert run.tuning_seed is not None  # noqa: S101
        searched = run.with_seed(run.tuning_seed)
        if searched.digest in self._stored:
            return self._stored[searched.digest]["tuned"]
        parent = None
        if searched.parent is not None:
            self._result(searched.parent, "the older tasks")
            parent = self._directory(searched.parent) / MODEL_FILE
        directory = self.directory / TUNING / searched.digest
        self._trainings += run.config.tuner.trials
        return tuned_values(
            searched, data, directory, parent, lambda line: self.report(f"  {line}")
        )

    def _data_of(self, run: Run) -> EncodedParts:
        """The rows of a run, encoded; those of the last one are held."""
        key = (run.config.data, run.config.features, run.config.tasks)
        if self._data is None or self._data[0] != key:
            self._data = None
            self._data = key, EncodedParts(run.config, progress=bool(self.verbose))
        return self._data[1]

    def _directory(self, run: Run) -> pathlib.Path:
        return self.directory / "trained" / run.digest

    def _is_done(self, run: Run) -> bool:
        return run.digest in self._stored or self._result_file(run).is_file()

    def _result_file(self, run: Run) -> pathlib.Path:
        return self._directory(run) / RESULT_FILE

    def _guess(self, runs: Sequence[Run]) -> dict[str, float]:
        """Seconds that each run takes, a search for settings included, by digest."""
        rows = self._data_of(runs[0]).number("train")
        guesses, searched = {}, set[str]()
        for run in runs:
            times = 1
            if run.tuning_seed is not None:
                search = run.with_seed(run.tuning_seed).digest
                times += 0 if search in searched else run.config.tuner.trials
                searched.add(search)
            seconds = COMPILATION + run.stage.training.epochs * rows / ROWS_PER_SECOND
            guesses[run.digest] = times * seconds
        return guesses

    def _note(self, run: Run, result: dict[str, Any], seconds: float) -> None:
        """Says what a run gave, and how long the others will take at this pace."""
        guess = self._left.pop(run.digest, 0.0)
        self._paces.append(seconds / guess if guess else 1.0)
        pace = sum(self._paces) / len(self._paces)
        metrics = ", ".join(
            f"{task} {next(iter(result['test'][task].values())):.4f}" for task in result["tasks"]
        )
        left = f"{len(self._left)} runs left, about {_duration(pace * sum(self._left.values()))}"
        self.report(f"  test: {metrics}; {seconds:.0f} s; {left if self._left else 'all done'}")


def _check_possible(run: Run) -> None:
    """Finds out now what would stop a run hours later."""
    if run.model == TREES:
        check_trees(run.config.features, run.arguments)
    elif run.tuning_seed is not None:
        importlib.import_module("mptrec_tf.tuning")  # says what it needs and is not installed


def _with_parents(cells: Sequence[Cell]) -> list[Run]:
    runs = []
    for cell in cells:
        run: Run | None = cell.run
        while run is not None:
            runs.append(run)
            run = run.parent
    return runs


def _title(cell: Cell) -> str:
    tasks = f", {' then '.join(cell.new_tasks)}" if cell.new_tasks else ""
    return f"{cell.variant}{tasks}, seed {cell.seed}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
