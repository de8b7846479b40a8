"""The rows of an experiment, encoded once for all its runs."""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from mptrec_tf.config import Config
from mptrec_tf.data import FeatureEncoder
from mptrec_tf.data.datasets import encode_rows
from mptrec_tf.data.encoded import RowsInMemory
from mptrec_tf.errors import SpecError
from mptrec_tf.training.fitting import EVALUATION_BATCH, StageData


class EncodedParts:
    """Training, validation and test rows in memory, with the labels of all tasks.

    Args:
        config: Data, features and tasks. The encoding is learned from the training rows.
        progress: Whether to show progress bars. Defaults to `False`.

    Attributes:
        encoder: The encoder.

    Raises:
        SpecError: If the configuration names no test rows.
        DataError: If the data do not fit the spec.
    """

    def __init__(self, config: Config, *, progress: bool = False) -> None:
        sources = config.data.sources()
        if sources.test is None:
            raise SpecError("data.test: an experiment needs test rows")
        self.encoder = FeatureEncoder(config.features).adapt(sources.train, progress=progress)
        self._spec = config.spec
        self._parts = {
            part: tf.nest.map_structure(
                tf.convert_to_tensor,
                encode_rows(
                    source,
                    self.encoder,
                    config.tasks,
                    training=part == "train",
                    progress=progress,
                ),
            )
            for part, source in sources._asdict().items()
        }

    def rows(self, part: str, tasks: Sequence[str]) -> RowsInMemory:
        """The rows of a part with the labels of some tasks; nothing is copied.

        Args:
            part: `"train"`, `"validation"` or `"test"`.
            tasks: The tasks.
        """
        return RowsInMemory(self._arrays(part, tasks))

    def stage(self, tasks: Sequence[str]) -> StageData:
        """What a training of some tasks reads."""
        given = self._spec.with_tasks(*tasks).tasks
        return StageData(
            self.encoder, given, self.rows("train", tasks), self.rows("validation", tasks)
        )

    def batches(self, part: str, tasks: Sequence[str]) -> Iterator[Any]:
        """Large batches `(x, labels, weights)` of a part, in its order."""
        dataset = self.rows(part, tasks).batches(EVALUATION_BATCH)
        for x, y, *weights in dataset:
            yield x, y, weights[0] if weights else {}

    def number(self, part: str) -> int:
        """How many rows a part has."""
        return len(next(iter(self._parts[part][0].values())))

    def _arrays(self, part: str, tasks: Sequence[str]) -> Any:
        x, y, *weights = self._parts[part]
        chosen = [{name: values[name] for name in tasks if name in values} for values in weights]
        return (x, {name: y[name] for name in tasks}, *(w for w in chosen if w))
