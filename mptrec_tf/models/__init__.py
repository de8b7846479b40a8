"""Models."""

from mptrec_tf.models.mptrec import MPTRec
from mptrec_tf.models.prompt_module import PromptModule
from mptrec_tf.models.saving import load_model, save_model

__all__ = ["MPTRec", "PromptModule", "load_model", "save_model"]
