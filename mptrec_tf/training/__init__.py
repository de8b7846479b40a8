"""What happens around `fit`: progress, checkpoints, stages."""

from mptrec_tf.models.fingerprints import fingerprint
from mptrec_tf.models.progress import TrainingProgress
from mptrec_tf.training.assignment import PeriodicAssignment
from mptrec_tf.training.checkpoint import ResumableEarlyStopping
from mptrec_tf.training.fitting import StageData, Trained, optimizer_for
from mptrec_tf.training.saved_embeddings import (
    SavedEmbeddings,
    embeddings_from_saved_model,
    take_embeddings,
)
from mptrec_tf.training.stages import pretrain, prompt_tune, stage1_data, stage2_data
from mptrec_tf.training.warm_start import WarmStart, keep_bins, warm_start
from mptrec_tf.training.workers import MultiWorkerStrategy

__all__ = [
    "MultiWorkerStrategy",
    "PeriodicAssignment",
    "ResumableEarlyStopping",
    "SavedEmbeddings",
    "StageData",
    "Trained",
    "TrainingProgress",
    "WarmStart",
    "embeddings_from_saved_model",
    "fingerprint",
    "keep_bins",
    "optimizer_for",
    "pretrain",
    "prompt_tune",
    "stage1_data",
    "stage2_data",
    "take_embeddings",
    "warm_start",
]
