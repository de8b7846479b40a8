"""TensorFlow Serving's APIs in this process; production is TensorFlow Serving itself."""

from mptrec_tf.serving.local.server import LocalServer

__all__ = ["LocalServer"]
