"""MPT-Rec: multi-task prompt tuning for recommendation, in Keras 3 and TensorFlow."""

__version__ = "0.1.0"

from mptrec_tf import balancing, cache, data, layers, models, optimizers, training
from mptrec_tf.data import FeatureEncoder, make_dataset
from mptrec_tf.errors import DataError, ModelError, MPTRecError, ServingError, SpecError
from mptrec_tf.models import (
    LoRAModule,
    MPTRec,
    ProbeModule,
    PromptModule,
    load_model,
    model_class,
    save_model,
)
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
    "LoRAModule",
    "MPTRec",
    "MPTRecError",
    "ModelError",
    "MultiValuedFeature",
    "NumericFeature",
    "ProbeModule",
    "PromptModule",
    "ServingError",
    "SpecError",
    "Task",
    "balancing",
    "cache",
    "data",
    "layers",
    "load_model",
    "make_dataset",
    "model_class",
    "models",
    "optimizers",
    "save_model",
    "training",
]
