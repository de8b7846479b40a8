"""From a model to a version directory that a server loads."""

from mptrec_tf.serving.exporting.exporter import export, publish_version, write_version
from mptrec_tf.serving.exporting.manifest import Manifest

__all__ = ["Manifest", "export", "publish_version", "write_version"]
