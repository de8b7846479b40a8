"""What proposes the trials, with what KerasTuner's own does not take care of."""

import pathlib
from typing import Any

import keras_tuner

from mptrec_tf.files import write_json


class PatientOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """Begins with the defaults, proposes nothing twice, and can be killed at any moment.

    KerasTuner's writes its files in place, so a kill may leave half a file, or two that disagree;
    and in a space of few values it proposes some again.

    Takes the arguments of `keras_tuner.oracles.BayesianOptimizationOracle`.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next values; `"status"` is `"STOPPED"` where nothing untried is found."""
        if not self.trials:
            defaults = {hp.name: hp.default for hp in self.hyperparameters.space}
            return {"status": "RUNNING", "values": defaults}
        proposed = super().populate_space(trial_id)
        if proposed["values"] is not None and self._duplicate(proposed["values"]):
            return self._random_populate_space()
        return proposed

    def save(self) -> None:
        write_json(self._get_oracle_fname(), self.get_state())

    def reload(self) -> None:
        super().reload()
        # Where a kill came between two files, the trial's own tells whether it is over.
        running = [name for name, trial in self.trials.items() if trial.status == "RUNNING"]
        self._retry_queue = running

    def _save_trial(self, trial: keras_tuner.engine.trial.Trial) -> None:
        file = pathlib.Path(self._get_trial_dir(trial.trial_id), "trial.json")
        write_json(file, trial.get_state())
