"""MPT-Rec: multi-task prompt tuning for recommendation, in Keras 3 and TensorFlow."""

__version__ = "0.1.0"

from mptrec_tf import balancing, data, layers, optimizers, training
from mptrec_tf.data import FeatureEncoder, make_dataset
from mptrec_tf.errors import DataError, ModelError, MPTRecError, ServingError, SpecError
from mptrec_tf.models import MPTRec, PromptModule, load_model, save_model
from mptrec_tf.spec import (
    CategoricalFeature,
    DataSpec,
    MultiValuedFeature,
    NumericFeature,
    Task,
)

__all__ = [
    "CategoricalFeature",
    "DataError",
    "DataSpec",
    "FeatureEncoder",
    "MPTRec",
    "MPTRecError",
    "ModelError",
    "MultiValuedFeature",
    "NumericFeature",
    "PromptModule",
    "ServingError",
    "SpecError",
    "Task",
    "balancing",
    "data",
    "layers",
    "load_model",
    "make_dataset",
    "optimizers",
    "save_model",
    "training",
]
