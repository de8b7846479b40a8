"""From a model to a version directory that a server loads."""

from mptrec_tf.serving.exporting.exporter import export
from mptrec_tf.serving.exporting.manifest import Manifest

__all__ = ["Manifest", "export"]
