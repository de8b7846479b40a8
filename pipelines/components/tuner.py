"""What the Tuner runs: the library's own search, on the validation rows alone."""

import pathlib
import shutil
from typing import Any

from tfx import v1 as tfx

from mptrec_tf.training.fitting import CACHE
from mptrec_tf.tuning import Stage1HyperModel, Stage2HyperModel, StageTuner
from pipelines.components.trainer import prepare


class Search(StageTuner):
    """A search that lets go of its representations when it has ended; its trials are kept."""

    def on_search_end(self) -> None:
        super().on_search_end()
        shutil.rmtree(pathlib.Path(self.project_dir, CACHE), ignore_errors=True)


def tuner_fn(fn_args: Any) -> tfx.components.TunerFnResult:
    """The search for a stage's settings; see `tfx.v1.components.Tuner`.

    A search that was cut off goes on where it was. One in which all trials failed begins anew: its
    settings are the same, so what made them fail was something else.

    Args:
        fn_args: `tfx.v1.components.FnArgs`.
    """
    prepared = prepare(fn_args)
    run, config, data = prepared.run, prepared.run.config, prepared.data
    hypermodel = (
        Stage1HyperModel(config, data, run.seed)
        if prepared.base_file is None or run.task is None
        else Stage2HyperModel(config, prepared.base_file, run.task, data, run.seed)
    )
    directory = run.state_of("tune", hypermodel.identity)
    tuner = Search(hypermodel, directory)
    before = tuner.results()
    if before and all(trial.error is not None for trial in before):
        shutil.rmtree(directory)
        tuner = Search(hypermodel, directory)
    return tfx.components.TunerFnResult(tuner=tuner, fit_kwargs={})
