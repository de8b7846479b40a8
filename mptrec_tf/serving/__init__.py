"""From a trained model to one that is served: export, check, configuration, client."""

from mptrec_tf.serving.checking import Finding, check
from mptrec_tf.serving.exporting import export
from mptrec_tf.serving.manifest import Manifest

__all__ = ["Finding", "Manifest", "check", "export"]
