"""Rows of a source through a model, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mptrec_tf.data import FeatureEncoder, encode_labels, read_chunks
from mptrec_tf.data.columns import as_strings
from mptrec_tf.data.labels import RuleCounts
from mptrec_tf.data.readers import Source, describe
from mptrec_tf.data.unknown import UnknownValues
from mptrec_tf.spec import CategoricalFeature, Task


def encoded_batches(
    encoder: FeatureEncoder, source: Source, tasks: Sequence[Task], batch_size: int
) -> Iterator[tuple[dict[str, tf.Tensor], dict[str, Any], dict[str, Any]]]:
    """Inputs as tensors, labels and weights as arrays, of all rows in their order.

    Args:
        encoder: An adapted encoder.
        source: A frame, a dict of columns, or files.
        tasks: The tasks whose labels are read.
        batch_size: Most rows in a batch.
    """
    unknown, rules = UnknownValues(encoder), RuleCounts(tasks)
    for chunk in read_chunks(source, encoder.features, tasks):
        arrays = (encoder.encode_chunk(chunk), *encode_labels(tasks, chunk))
        unknown.update(arrays[0])
        rules.update(chunk, arrays[1])
        for start in range(0, chunk.table.num_rows, batch_size):
            rows = slice(start, start + batch_size)
            inputs, labels, weights = tf.nest.map_structure(lambda a, rows=rows: a[rows], arrays)
            yield tf.nest.map_structure(tf.constant, inputs), labels, weights
    unknown.warn(describe(source))
    rules.warn(describe(source))


def read_columns(source: Source, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns as texts, in the order of the rows.

    Args:
        source: A frame, a dict of columns, or files.
        names: The columns.

    Returns:
        By column, object (rows,), `""` for an empty cell.

    Raises:
        DataError: If a column is missing, or holds neither text nor whole numbers.

    Example:

    >>> read_columns({"city": ["Rome", None], "age": [31, 45]}, ["city"])["city"].tolist()
    ['Rome', '']
    """
    names = list(dict.fromkeys(names))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for chunk in read_chunks(source, [CategoricalFeature(name) for name in names]):
        for name in names:
            texts = as_strings(chunk.table.column(name), name, chunk.where)
            parts[name].append(texts.fill_null("").to_numpy(zero_copy_only=False))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def graph(function: Callable[[Any], Any], inputs: dict[str, tf.Tensor]) -> Callable[[Any], Any]:
    """A function of a batch as one graph for batches of any size.

    Args:
        function: The function.
        inputs: A batch, for its types and widths.
    """
    signature = {
        name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)
        for name, tensor in inputs.items()
    }
    return tf.function(function).get_concrete_function(signature)
