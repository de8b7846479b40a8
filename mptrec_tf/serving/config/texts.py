"""The texts of a server's batching and monitoring files, for which no stubs are published."""

import dataclasses
import itertools
import re
from collections.abc import Sequence

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.arguments import check_whole

METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclasses.dataclass(frozen=True)
class Batching:
    """How a server joins requests that arrive together: its `--batching_parameters_file`.

    A server does so only with `--enable_batching`. Measure first: each request may wait, and
    gains only where the device is faster with larger batches.

    Args:
        max_batch_size: Rows that are run together at most.
        num_batch_threads: Batches that are run at the same time; the number of cores, as a start.
        batch_timeout_micros: How long a batch waits to be filled, in microseconds. Defaults to
            1000.
        max_enqueued_batches: Batches that wait at most; what comes then is refused. Defaults to
            100.
        allowed_batch_sizes: Sizes that batches are padded to, in ascending order, the last one
            `max_batch_size`. Defaults to none: batches are run as large as they are.

    Raises:
        ServingError: If a server would refuse the parameters.

    Example:

    >>> print(Batching(max_batch_size=64, num_batch_threads=4, allowed_batch_sizes=[8, 64]).text())
    max_batch_size { value: 64 }
    batch_timeout_micros { value: 1000 }
    max_enqueued_batches { value: 100 }
    num_batch_threads { value: 4 }
    allowed_batch_sizes: 8
    allowed_batch_sizes: 64
    <BLANKLINE>
    """

    max_batch_size: int
    num_batch_threads: int
    batch_timeout_micros: int = 1000
    max_enqueued_batches: int = 100
    allowed_batch_sizes: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_whole("max_batch_size", self.max_batch_size)
        check_whole("num_batch_threads", self.num_batch_threads)
        check_whole("batch_timeout_micros", self.batch_timeout_micros, least=0)
        check_whole("max_enqueued_batches", self.max_enqueued_batches)
        sizes = list(self.allowed_batch_sizes)
        for size in sizes:
            check_whole("a size of allowed_batch_sizes", size)
        if any(size >= larger for size, larger in itertools.pairwise(sizes)):
            raise ServingError(f"allowed_batch_sizes must ascend. Received: {sizes}")
        if sizes and sizes[-1] != self.max_batch_size:
            raise ServingError(
                f"the last of allowed_batch_sizes must be max_batch_size, {self.max_batch_size}. "
                f"Received: {sizes}"
            )

    def text(self) -> str:
        """The text protobuf, a `BatchingParameters`."""
        lines = [
            f"{name} {{ value: {getattr(self, name)} }}"
            for name in (
                "max_batch_size",
                "batch_timeout_micros",
                "max_enqueued_batches",
                "num_batch_threads",
            )
        ]
        lines += [f"allowed_batch_sizes: {size}" for size in self.allowed_batch_sizes]
        return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True)
class Monitoring:
    """Metrics for Prometheus on the REST port: a server's `--monitoring_config_file`.

    Args:
        path: Where the metrics are. Defaults to `"/monitoring/prometheus/metrics"`.

    Raises:
        ServingError: If it is not a path, or one of the models' own.

    Example:

    >>> print(Monitoring("/metrics").text())
    prometheus_config {
      enable: true
      path: "/metrics"
    }
    <BLANKLINE>
    """

    path: str = METRICS_PATH

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", self.path) or self.path.startswith("/v1/"):
            raise ServingError(
                f"path must be one such as {METRICS_PATH!r}, and not below /v1. "
                f"Received: {self.path!r}"
            )

    def text(self) -> str:
        """The text protobuf, a `MonitoringConfig`."""
        return f'prometheus_config {{\n  enable: true\n  path: "{self.path}"\n}}\n'
