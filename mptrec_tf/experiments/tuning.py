"""The search for better settings of a run, by `mptrec_tf.tuning`."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from mptrec_tf.config import Config
from mptrec_tf.experiments.data import EncodedParts
from mptrec_tf.experiments.plan import Run
from mptrec_tf.experiments.training import extended_model, new_model
from mptrec_tf.files import write_json
from mptrec_tf.tuning import Stage1HyperModel, Stage2HyperModel, StageHyperModel, StageTuner


class _NewModel(Stage1HyperModel):
    """A run without parent; see `Stage1HyperModel`."""

    def __init__(self, run: Run, data: EncodedParts) -> None:
        self.run = run
        super().__init__(run.config, data.stage(run.tasks), run.seed)

    def _identity(self) -> dict[str, Any]:
        return self.run.identity

    def _model(self, config: Config) -> Any:
        return new_model(dataclasses.replace(self.run, config=config), self.data.encoder)


class _AddedTask(Stage2HyperModel):
    """A run with parent; see `Stage2HyperModel`."""

    def __init__(self, run: Run, data: EncodedParts, parent: pathlib.Path) -> None:
        self.run = run
        super().__init__(run.config, parent, run.tasks[0], data.stage(run.tasks), run.seed)

    def _identity(self) -> dict[str, Any]:
        return self.run.identity

    def _model(self, config: Config) -> Any:
        return extended_model(
            dataclasses.replace(self.run, config=config), pathlib.Path(self.model_file)
        )


def tuned_values(
    run: Run,
    data: EncodedParts,
    directory: pathlib.Path,
    parent: pathlib.Path | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """What a search chooses on the validation rows; it goes on where it was cut off.

    Args:
        run: The run, with the seed of the search.
        data: Its rows.
        directory: Where the search and its outcome are kept.
        parent: The parent's `.keras` file, if it has one.
        report: Takes a line about each trial.

    Returns:
        Values by name of the setting.
    """
    file = directory / "chosen.json"
    if not file.is_file():
        hypermodel: StageHyperModel = (
            _NewModel(run, data) if parent is None else _AddedTask(run, data, parent)
        )
        tuner = StageTuner(hypermodel, directory / "search", report=report)
        tuner.search()
        write_json(file, tuner.best().values)
    return json.loads(file.read_text())
