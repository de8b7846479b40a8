"""Multi-task models to compare with."""

from mptrec_tf.models.baselines.base import BaselineModel, FineTunedModel
from mptrec_tf.models.baselines.mmoe import MMoE
from mptrec_tf.models.baselines.ple import PLE
from mptrec_tf.models.baselines.shared_bottom import SharedBottom
from mptrec_tf.models.baselines.single_task import SingleTask

__all__ = ["PLE", "BaselineModel", "FineTunedModel", "MMoE", "SharedBottom", "SingleTask"]
