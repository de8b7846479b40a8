"""What happens around `fit`: progress, checkpoints, stages."""

from mptrec_tf.models.freezing import fingerprint
from mptrec_tf.models.progress import TrainingProgress
from mptrec_tf.training.assignment import PeriodicAssignment
from mptrec_tf.training.cache import CachedRows, cache_rows
from mptrec_tf.training.checkpoint import ResumableEarlyStopping
from mptrec_tf.training.fitting import StageData, Trained, optimizer_for
from mptrec_tf.training.stages import pretrain, prompt_tune, stage1_data, stage2_data
from mptrec_tf.training.workers import MultiWorkerStrategy

__all__ = [
    "CachedRows",
    "MultiWorkerStrategy",
    "PeriodicAssignment",
    "ResumableEarlyStopping",
    "StageData",
    "Trained",
    "TrainingProgress",
    "cache_rows",
    "fingerprint",
    "optimizer_for",
    "pretrain",
    "prompt_tune",
    "stage1_data",
    "stage2_data",
]
