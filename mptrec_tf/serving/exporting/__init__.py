"""From a model to a version directory that a server loads."""

from mptrec_tf.serving.exporting.exporter import export, publish_version, write_version

__all__ = ["export", "publish_version", "write_version"]
