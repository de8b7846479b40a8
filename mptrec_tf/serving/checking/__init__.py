"""Whether a version directory would be served."""

from mptrec_tf.serving.checking.checker import Finding, check

__all__ = ["Finding", "check"]
