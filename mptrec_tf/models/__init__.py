"""Models."""

from mptrec_tf.models.baselines import PLE, MMoE, SharedBottom, SingleTask
from mptrec_tf.models.growing import GrowingModel
from mptrec_tf.models.mptrec import MPTRec
from mptrec_tf.models.prompt_module import PromptModule
from mptrec_tf.models.registry import MODELS, model_class
from mptrec_tf.models.saving import load_model, save_model
from mptrec_tf.models.task_module import TaskModule

__all__ = [
    "MODELS",
    "PLE",
    "GrowingModel",
    "MMoE",
    "MPTRec",
    "PromptModule",
    "SharedBottom",
    "SingleTask",
    "TaskModule",
    "load_model",
    "model_class",
    "save_model",
]
