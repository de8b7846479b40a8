"""What the Tuner runs: the library's own search, on the validation rows alone."""

from typing import Any

from tfx import v1 as tfx

from mptrec_tf.tuning import Stage1HyperModel, Stage2HyperModel, StageTuner
from pipelines.trainer import prepare


def tuner_fn(fn_args: Any) -> tfx.components.TunerFnResult:
    """The search for a stage's settings; see `tfx.v1.components.Tuner`.

    A search that was cut off goes on where it was.

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
    return tfx.components.TunerFnResult(tuner=StageTuner(hypermodel, directory), fit_kwargs={})
