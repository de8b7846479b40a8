"""The search: Bayesian, resumable, and loud about trials that fail."""

import contextlib
import gc
import io
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import keras_tuner

from mptrec_tf.config import Config
from mptrec_tf.errors import ModelError, SpecError
from mptrec_tf.files import only_one, write_json
from mptrec_tf.tuning.hypermodel import StageHyperModel
from mptrec_tf.tuning.oracle import PatientOracle

IDENTITY = "identity.json"
GIVE_UP_AFTER = 3
"""Failures with nothing else before them that end a search: the fault is not in the settings."""


class TrialResult(NamedTuple):
    """A trial that is over.

    Attributes:
        number: Its number, from 1.
        values: The settings that it tried, by name.
        objective: The best value of the metric that early stopping watches; NaN if it failed.
        metrics: Validation metrics of the best epoch, `"epochs"` and `"seconds"`.
        error: Why it failed, a traceback; `None` if it did not.

    Example:

    ```python
    {result.number: result.reason for result in tuner.results() if result.error is not None}
    ```
    """

    number: int
    values: dict[str, Any]
    objective: float
    metrics: dict[str, float]
    error: str | None

    @property
    def reason(self) -> str:
        """The last line of the error."""
        return (self.error or "").strip().rpartition("\n")[2]


class StageTuner(keras_tuner.Tuner):
    """Searches the space of a stage by Bayesian optimization, judged on the validation rows.

    Trial 1 is the configuration as it is, where the space contains its values; no values are tried
    twice. A search that was cut off, even by a kill, goes on in the middle of the trial under way
    when a tuner for the same directory searches again.

    KerasTuner hides a trial's failure; this tuner reports it, and raises where all fail. An error
    of the disk is none: it ends the search, which goes on when there is room again.

    Args:
        hypermodel: The stage.
        directory: Where the state of the search is kept.
        trials: Most trials, those of earlier calls included. Defaults to `None`:
            `config.tuner.trials`.
        report: Takes a line about each trial. Defaults to `print`.

    `search(verbose=0)` takes nothing else: the hypermodel holds the rows.

    Raises:
        ModelError: If the directory holds the search of another configuration, or of other rows;
            from `search`, if another process searches there.
        SpecError: If `trials` is not positive.
        RuntimeError: From `search`, if all trials fail.
        FatalError: From `search`, if a file cannot be read or written.

    Example:

    ```python
    data = stage1_data(config, config.data.sources())
    tuner = StageTuner(Stage1HyperModel(config, data), "runs/tune-stage1")
    tuner.search()
    pretrain(tuner.best_config(), config.data.sources(), "runs/tuned")
    ```

    In TFX, a `tuner_fn` returns `TunerFnResult(tuner=tuner, fit_kwargs={})`.
    """

    def __init__(
        self,
        hypermodel: StageHyperModel,
        directory: str | os.PathLike[str],
        *,
        trials: int | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        path = pathlib.Path(directory)
        self.max_trials = hypermodel.config.tuner.trials if trials is None else trials
        if self.max_trials < 1:
            raise SpecError(f"trials must be 1 or more, got {trials}")
        self.report = report
        identity = json.loads(json.dumps(hypermodel.identity))
        _check_same(path, identity)
        oracle = PatientOracle(
            keras_tuner.Objective(*hypermodel.objective),
            max_trials=self.max_trials,
            seed=(hypermodel.seed + 1) % 2**32 or 1,  # 0 would mean a random one
            max_consecutive_failed_trials=self.max_trials + 1,  # it would not save the last one
        )
        oracle.verbose = 0
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(oracle, hypermodel, directory=path.parent, project_name=path.name)
        write_json(path / IDENTITY, identity)

    def search(self, *args: Any, **kwargs: Any) -> None:
        """Runs the trials that are left; see `keras_tuner.Tuner.search`."""
        with only_one(self.project_dir):
            super().search(*args, **kwargs)

    def results(self) -> list[TrialResult]:
        """The trials that are over, in their order."""
        over = (
            trial
            for trial in self.oracle.trials.values()
            if trial.status in ("COMPLETED", "FAILED")
        )
        return sorted(map(self._result, over), key=lambda result: result.number)

    def best(self) -> TrialResult:
        """The best trial.

        Raises:
            ModelError: If no trial has succeeded yet.
        """
        scored = [result for result in self.results() if result.error is None]
        if not scored:
            raise ModelError(f"{self.project_dir}: no trial has succeeded yet")
        choose = max if self.oracle.objective.direction == "max" else min
        return choose(scored, key=lambda result: result.objective)

    def best_config(self) -> Config:
        """The configuration of the best trial.

        Raises:
            ModelError: If no trial has succeeded yet.
        """
        number = self.best().number
        (trial,) = (t for t in self.oracle.trials.values() if _number(t) == number)
        return self.hypermodel.configure(trial.hyperparameters)

    # Called by KerasTuner

    def on_search_begin(self) -> None:
        self.save()  # KerasTuner would do so after the first trial only

    def run_trial(
        self, trial: keras_tuner.engine.trial.Trial, verbose: int | str = 0
    ) -> dict[str, float]:
        """Trains a trial; its state is kept beside KerasTuner's until the trial is over.

        Raises:
            FatalError: If a file cannot be read or written, as on a full disk: no setting is to
                blame, so the search ends, and the next one goes on with this trial.
        """
        gc.collect()  # the model of the trial before: models hold cycles
        hp = trial.hyperparameters
        values = ", ".join(f"{k} {show(v)}" for k, v in self.hypermodel.values(hp).items())
        self.report(f"trial {_number(trial)} of {self.max_trials}: {values}")
        try:
            model = self.hypermodel.build(hp)
            self.hypermodel.prepare(model, self.project_dir)
            return self.hypermodel.fit(hp, model, directory=self._training(trial), verbose=verbose)
        except OSError as error:
            raise keras_tuner.errors.FatalError(str(error)) from error

    def on_trial_end(self, trial: keras_tuner.engine.trial.Trial) -> None:
        super().on_trial_end(trial)
        shutil.rmtree(self._training(trial), ignore_errors=True)
        result = self._result(self.oracle.get_trial(trial.trial_id))
        if result.error is not None:
            self.report(f"  failed: {result.reason}")
            if len(self.results()) >= GIVE_UP_AFTER:
                self._require_success()
            return
        best, name = self.best(), self.oracle.objective.name
        self.report(
            f"  {name} {result.objective:.5f} after {result.metrics['epochs']:.0f} epochs, "
            f"{result.metrics['seconds']:.0f} s; best so far {best.objective:.5f}, "
            f"trial {best.number}"
        )

    def on_search_end(self) -> None:
        self._require_success()
        tried = len(self.results())
        if tried < self.max_trials:
            self.report(f"nothing untried was found after {tried} trials")

    def save(self) -> None:
        self.oracle.save()
        write_json(self._get_tuner_fname(), self.get_state())

    def _require_success(self) -> None:
        results = self.results()
        if all(result.error is not None for result in results):
            raise RuntimeError(
                f"all {len(results)} trials failed, the first one with:\n{results[0].error}"
            )

    def _training(self, trial: keras_tuner.engine.trial.Trial) -> pathlib.Path:
        return pathlib.Path(self.get_trial_dir(trial.trial_id), "training")

    def _result(self, trial: keras_tuner.engine.trial.Trial) -> TrialResult:
        error = None
        if trial.status == "FAILED":
            error = trial.message or f"{self.oracle.objective.name} is not a number"
        metrics = trial.metrics
        return TrialResult(
            number=_number(trial),
            values=self.hypermodel.values(trial.hyperparameters),
            objective=math.nan if error else float(trial.score),
            metrics={name: float(metrics.get_last_value(name)) for name in metrics.metrics},
            error=error,
        )


def show(value: Any) -> str:
    """A setting's value, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(trial: keras_tuner.engine.trial.Trial) -> int:
    return int(trial.trial_id) + 1


def _check_same(directory: pathlib.Path, identity: dict[str, Any]) -> None:
    """Refuses a directory that holds another search."""
    file = directory / IDENTITY
    if file.is_file() and json.loads(file.read_text()) != identity:
        raise ModelError(
            f"{directory} holds the search of another configuration or other rows; give another "
            "directory, or delete this one"
        )
