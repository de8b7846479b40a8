"""What commands do with a trained model."""

import hashlib
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from mptrec_tf.config import Config
from mptrec_tf.data import Chunk, check_same_features, check_same_tasks, has_labels, read_chunks
from mptrec_tf.data.encoding import Encoded
from mptrec_tf.data.readers import Source, describe
from mptrec_tf.data.unknown import UnknownValues
from mptrec_tf.models import GrowingModel, load_model
from mptrec_tf.models.growing import ModelT
from mptrec_tf.spec import CategoricalFeature, Task

BATCH_SIZE = 4096


def load_model_of(config: Config, path: pathlib.Path, kind: type[ModelT]) -> ModelT:
    """Reads a model and checks that it was made from the features and tasks of a configuration.

    Args:
        config: The configuration.
        path: The file.
        kind: What the model must be; `GrowingModel` allows all.

    Raises:
        ModelError: If the file is broken, or holds another kind of model.
        SpecError: If a feature, or a task that both have, is defined differently.
    """
    model = load_model(path, kind)
    check_same_features(model.encoder, config.spec, str(path))
    check_same_tasks(model.tasks, config.spec, str(path))
    return model


def labelled_tasks(model: GrowingModel, source: Source) -> list[Task]:
    """The model's tasks that at least one row of a source has a label of."""
    return [task for task in model.tasks if has_labels(task, source)]


def predict_chunks(
    model: GrowingModel,
    source: Source,
    tasks: Sequence[str],
    *,
    columns: Sequence[str] = (),
    progress: str | None = None,
) -> Iterator[tuple[Chunk, dict[str, np.ndarray]]]:
    """Predicts chunk by chunk, in bounded memory; at the end, tells of columns of unknown values.

    Args:
        model: The model.
        source: Raw rows.
        tasks: Names of the tasks.
        columns: Columns to read beside the features. Defaults to none.
        progress: Label of a progress bar. Defaults to `None`, no bar.

    Yields:
        Some rows and their predictions by task, in the order of the source.
    """

    # A function of its own: `predict` would compile with XLA anew for each size of a last batch.
    @tf.function(reduce_retracing=True)
    def forward(batch: Encoded) -> dict[str, tf.Tensor]:
        predictions = model(batch, training=False)
        return {name: predictions[name] for name in tasks}

    read = [*model.encoder.features, *map(CategoricalFeature, columns)]
    unknown = UnknownValues(model.encoder)
    for chunk in read_chunks(source, read, progress=progress):
        encoded = model.encoder.encode_chunk(chunk)
        unknown.update(encoded)
        parts = [
            forward({key: array[start : start + BATCH_SIZE] for key, array in encoded.items()})
            for start in range(0, chunk.table.num_rows, BATCH_SIZE)
        ]
        yield chunk, {name: np.concatenate([part[name] for part in parts]) for name in tasks}
    unknown.warn(describe(source))


def prediction_digests(model: GrowingModel, source: Source, tasks: Sequence[str]) -> dict[str, str]:
    """A SHA-256 of each task's predictions: equal digests mean equal predictions, bit for bit."""
    digests = {name: hashlib.sha256() for name in tasks}
    for _, predictions in predict_chunks(model, source, tasks):
        for name, values in predictions.items():
            digests[name].update(values.tobytes())
    return {name: digest.hexdigest() for name, digest in digests.items()}
