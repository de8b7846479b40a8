"""Keras optimizers for large embedding tables."""

from mptrec_tf.optimizers.lazy_adagrad import LazyAdagrad
from mptrec_tf.optimizers.lazy_adam import LazyAdam
from mptrec_tf.optimizers.split import SplitOptimizer

__all__ = ["LazyAdagrad", "LazyAdam", "SplitOptimizer"]
