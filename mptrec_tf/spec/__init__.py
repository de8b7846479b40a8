"""The description of features and tasks that data, models, pipelines and serving all read."""

from mptrec_tf.spec.data_spec import DataSpec
from mptrec_tf.spec.features import (
    CategoricalFeature,
    Feature,
    MultiValuedFeature,
    NumericFeature,
)
from mptrec_tf.spec.tasks import Task

__all__ = [
    "CategoricalFeature",
    "DataSpec",
    "Feature",
    "MultiValuedFeature",
    "NumericFeature",
    "Task",
]
