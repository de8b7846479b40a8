"""See `mptrec_tf.files`."""

from mptrec_tf.files import write_json

__all__ = ["write_json"]
