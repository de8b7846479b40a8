"""Multi-task models to compare with."""

from mptrec_tf.models.baselines.aitm import AITM
from mptrec_tf.models.baselines.base import BaselineModel, FineTunedModel
from mptrec_tf.models.baselines.esmm import ESMM
from mptrec_tf.models.baselines.mmoe import MMoE
from mptrec_tf.models.baselines.ple import PLE
from mptrec_tf.models.baselines.shared_bottom import SharedBottom
from mptrec_tf.models.baselines.single_task import SingleTask
from mptrec_tf.models.baselines.sparse_sharing import SparseSharing
from mptrec_tf.models.baselines.stem import STEM

__all__ = [
    "AITM",
    "ESMM",
    "PLE",
    "STEM",
    "BaselineModel",
    "FineTunedModel",
    "MMoE",
    "SharedBottom",
    "SingleTask",
    "SparseSharing",
]
