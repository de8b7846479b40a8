"""Counts and latencies in the Prometheus format, under TensorFlow Serving's names."""

import bisect
import collections
import threading

_BOUNDS = tuple(10 * 1.8**power for power in range(33))
"""Microseconds, from 10 to about 20 minutes, as TensorFlow Serving has them."""


class Metrics:
    """Requests by model and status, latencies by model, API and entry point.

    Example:

    >>> metrics = Metrics()
    >>> metrics.record("census", "Predict", "GRPC", "OK", seconds=0.001)
    >>> print(metrics.page().splitlines()[1])
    :tensorflow:serving:request_count{model_name="census",status="OK"} 1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: collections.Counter[tuple[str, str]] = collections.Counter()
        self._latencies: dict[tuple[str, str, str], _Histogram] = {}

    def record(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Counts a request; its latency too if it succeeded.

        Args:
            model: Name of the model.
            api: Such as `"Predict"`.
            entrypoint: `"GRPC"` or `"REST"`.
            status: Name of the status, such as `"OK"`.
            seconds: How long it took.
        """
        with self._lock:
            self._requests[model, status] += 1
            if status == "OK":
                key = (model, api, entrypoint)
                self._latencies.setdefault(key, _Histogram()).add(seconds * 1e6)

    def page(self) -> str:
        """All counts as text."""
        lines = ["# TYPE :tensorflow:serving:request_count counter"]
        with self._lock:
            for (model, status), count in sorted(self._requests.items()):
                labels = f'model_name="{model}",status="{status}"'
                lines.append(f":tensorflow:serving:request_count{{{labels}}} {count}")
            lines.append("# TYPE :tensorflow:serving:request_latency histogram")
            for (model, api, entrypoint), histogram in sorted(self._latencies.items()):
                labels = f'model_name="{model}",API="{api}",entrypoint="{entrypoint}"'
                lines += histogram.lines(":tensorflow:serving:request_latency", labels)
        return "\n".join(lines) + "\n"


class _Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect.bisect_left(_BOUNDS, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        total, lines = 0, []
        for bound, count in zip((*_BOUNDS, "+Inf"), self._counts, strict=True):
            total += count
            edge = bound if isinstance(bound, str) else f"{bound:g}"
            lines.append(f'{name}_bucket{{{labels},le="{edge}"}} {total}')
        return [
            *lines,
            f"{name}_sum{{{labels}}} {self._sum:g}",
            f"{name}_count{{{labels}}} {total}",
        ]
