"""The models by name."""

from mptrec_tf.errors import ModelError
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
from mptrec_tf.models.mptrec import MPTRec

MODELS: dict[str, type[GrowingModel]] = {
    "mptrec": MPTRec,
    "single_task": SingleTask,
    "shared_bottom": SharedBottom,
    "mmoe": MMoE,
    "ple": PLE,
    "stem": STEM,
    "sparse_sharing": SparseSharing,
    "esmm": ESMM,
    "aitm": AITM,
}
"""Every model of the library, each made by `Class(encoder, tasks, **settings)`."""


def model_class(name: str) -> type[GrowingModel]:
    """The class of the model of that name.

    Args:
        name: A key of `MODELS`.

    Raises:
        ModelError: If there is none; the message lists the names.

    Example:

    >>> model_class("mmoe").__name__
    'MMoE'
    """
    if name not in MODELS:
        raise ModelError(f"there is no model {name!r}; the models are {list(MODELS)}")
    return MODELS[name]
