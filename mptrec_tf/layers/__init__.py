"""The Keras layers that MPT-Rec is made of."""

from mptrec_tf.layers.adapters import ExpertAdapter
from mptrec_tf.layers.adversarial import GradientReversal, TaskClassifier, reversal_strength
from mptrec_tf.layers.dropout import HashedDropout
from mptrec_tf.layers.embedding import FeatureEmbedding
from mptrec_tf.layers.experts import ExpertBank
from mptrec_tf.layers.gates import Gate
from mptrec_tf.layers.numeric import NumericEncoding
from mptrec_tf.layers.prompts import PromptAttention, TaskPrompt
from mptrec_tf.layers.standardization import RunningStandardization
from mptrec_tf.layers.towers import TowerBank

__all__ = [
    "ExpertAdapter",
    "ExpertBank",
    "FeatureEmbedding",
    "Gate",
    "GradientReversal",
    "HashedDropout",
    "NumericEncoding",
    "PromptAttention",
    "RunningStandardization",
    "TaskClassifier",
    "TaskPrompt",
    "TowerBank",
    "reversal_strength",
]
