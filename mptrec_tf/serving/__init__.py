"""From a trained model to one that is served.

`export` writes a version, `check` tries it, `config` tells a server what to serve, `Client` asks
it, and `mptrec_tf.serving.local.LocalServer` stands in for it in notebooks and tests.
"""

from mptrec_client import Client
from mptrec_tf.serving.checking import Finding, check
from mptrec_tf.serving.exporting import export, publish_version, write_version
from mptrec_tf.serving.manifest import Manifest

__all__ = ["Client", "Finding", "Manifest", "check", "export", "publish_version", "write_version"]
