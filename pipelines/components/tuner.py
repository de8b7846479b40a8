"""What the Tuner runs: the library's own search, on the validation rows alone."""

import shutil
from typing import Any

from tfx import v1 as tfx

from mptrec_tf.tuning import Stage1HyperModel, Stage2HyperModel, StageTuner
from pipelines.components.trainer import prepare


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
    tuner = StageTuner(hypermodel, directory)
    before = tuner.results()
    if before and all(trial.error is not None for trial in before):
        shutil.rmtree(directory)
        tuner = StageTuner(hypermodel, directory)
    return tfx.components.TunerFnResult(tuner=tuner, fit_kwargs={})
