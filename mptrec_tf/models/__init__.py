"""Models."""

from mptrec_tf.models.baselines import (
    AITM,
    ESMM,
    PLE,
    STEM,
    MMoE,
    SharedBottom,
    SingleTask,
    SparseSharing,
)
from mptrec_tf.models.growing import GrowingModel
from mptrec_tf.models.lora_module import LoRAModule
from mptrec_tf.models.mptrec import MPTRec
from mptrec_tf.models.probe_module import ProbeModule
from mptrec_tf.models.prompt_module import PromptModule
from mptrec_tf.models.registry import MODELS, model_class
from mptrec_tf.models.saving import load_model, save_model
from mptrec_tf.models.task_module import TaskModule, TowerModule

__all__ = [
    "AITM",
    "ESMM",
    "MODELS",
    "PLE",
    "STEM",
    "GrowingModel",
    "LoRAModule",
    "MMoE",
    "MPTRec",
    "ProbeModule",
    "PromptModule",
    "SharedBottom",
    "SingleTask",
    "SparseSharing",
    "TaskModule",
    "TowerModule",
    "load_model",
    "model_class",
    "save_model",
]
