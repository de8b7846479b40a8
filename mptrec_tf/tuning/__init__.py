"""Search for better settings of a stage, judged on its validation rows.

`StageTuner(Stage1HyperModel(config, data), directory).search()` tries what `config.tuner` declares,
`Stage2HyperModel` does so for a new task's prompt module; `best_config` is a configuration to train
with.
"""

try:
    import keras_tuner  # noqa: F401
    import matplotlib as mpl  # noqa: F401
except ImportError as error:
    raise ImportError(f"tuning needs {error.name}: pip install 'mptrec-tf[tuner]'") from error

from mptrec_tf.tuning.hypermodel import Stage1HyperModel, Stage2HyperModel, StageHyperModel
from mptrec_tf.tuning.hyperparameters import with_hyperparameters
from mptrec_tf.tuning.plot import plot_trials
from mptrec_tf.tuning.tuner import StageTuner, TrialResult

__all__ = [
    "Stage1HyperModel",
    "Stage2HyperModel",
    "StageHyperModel",
    "StageTuner",
    "TrialResult",
    "plot_trials",
    "with_hyperparameters",
]
