"""What several checks read of a version."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2

from mptrec_tf.serving.layout import read_meta_graph, read_warmup, served_signatures


class VersionFiles:
    """The files of a version, each read once, when it is first asked for.

    Args:
        directory: The version's directory.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory

    @functools.cached_property
    def meta_graph(self) -> meta_graph_pb2.MetaGraphDef:
        """The graph that a server loads; as `read_meta_graph`."""
        return read_meta_graph(self.directory)

    @functools.cached_property
    def signatures(self) -> Mapping[str, meta_graph_pb2.SignatureDef]:
        """The signatures that are meant to be called, by name."""
        return served_signatures(self.meta_graph)

    @functools.cached_property
    def warmup(self) -> list[Any]:
        """The warm-up requests; as `read_warmup`."""
        return read_warmup(self.directory)
