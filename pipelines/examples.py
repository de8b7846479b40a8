"""Rows as `tf.Example`s: the form in which they go from component to component.

A raw row holds each feature under its name (a number as a float, a category as a text, absent where
missing), other columns that a slice needs, and for each task `label:TASK` and `weight:TASK`. A row
without a label of a task has the weight 0, and no other row has. An encoded row holds what
`FeatureEncoder` gives.
"""

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from mptrec_tf.data import FeatureEncoder, encode_labels
from mptrec_tf.data.columns import as_strings
from mptrec_tf.data.datasets import Batch, without_autotuning
from mptrec_tf.data.encoding import given_numbers, lists_of, texts_of
from mptrec_tf.data.examples import COMPRESSION, lists_of_one, record_writer
from mptrec_tf.data.readers import Chunk
from mptrec_tf.serving.exporting.signatures import encoded_specs
from mptrec_tf.spec import Feature, MultiValuedFeature, NumericFeature, Task

TRAIN, VALIDATION, TEST = "train", "validation", "test"
LABEL, WEIGHT = "label:", "weight:"
BATCH_ROWS = 8192
LEAST = np.finfo(np.float32).tiny
"""What a labelled row with the weight 0 weighs."""


def raw_examples(
    chunk: Chunk, features: Sequence[Feature], tasks: Sequence[Task], others: Iterable[str] = ()
) -> list[bytes]:
    """Rows as serialized examples, every value checked.

    Args:
        chunk: Rows with a column for each feature, task and other column.
        features: The features.
        tasks: The tasks.
        others: Further columns, kept as text.

    Returns:
        An example for each row.

    Raises:
        DataError: If a value does not fit its feature or task.
    """
    columns = {feature.name: _cells(feature, chunk) for feature in features}
    for name in others:
        if name not in columns:
            columns[name] = _texts(as_strings(chunk.table[name], name, chunk.where))
    labels, weights = encode_labels(tasks, chunk)
    for name, label in labels.items():
        known = ~np.isnan(label)
        # A weight of 0 says that there is no label, which is not the same: the loss is a mean over
        # the labelled rows.
        weight = np.maximum(weights.get(name, np.float32(1)), LEAST)
        weight = np.where(known, weight, np.float32(0))
        always = np.ones(len(label), bool)
        columns[LABEL + name] = lists_of_one(
            pa.array(np.where(known, label, 0), pa.float32()), always
        )
        columns[WEIGHT + name] = lists_of_one(pa.array(weight, pa.float32()), always)
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return RecordBatchToExamplesEncoder().encode(batch)


def _cells(feature: Feature, chunk: Chunk) -> pa.Array:
    if isinstance(feature, NumericFeature):
        values = given_numbers(feature, chunk)
        return lists_of_one(pa.array(values.astype(np.float32)), ~np.isnan(values))
    if isinstance(feature, MultiValuedFeature):
        lists = lists_of(feature, chunk)
        filled = pc.greater(pc.list_value_length(lists), 0)
        return pc.if_else(filled, lists, None).cast(pa.list_(pa.binary()))
    return _texts(texts_of(feature, chunk))


def _texts(texts: pa.Array) -> pa.Array:
    """Lists of one text, null where it is empty."""
    present = texts.fill_null("").to_numpy(zero_copy_only=False) != ""
    return lists_of_one(texts.cast(pa.binary()), present)


def encoded_examples(columns: Mapping[str, np.ndarray]) -> list[bytes]:
    """Encoded rows as serialized examples.

    Args:
        columns: Floats or integers (B,) or (B, n) by name.

    Returns:
        An example for each row.
    """
    arrays = []
    for values in columns.values():
        rows = values.reshape(len(values), -1)
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
        arrays.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.reshape(-1))))
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    return RecordBatchToExamplesEncoder().encode(batch)


def open_writer(directory: str, number: int) -> tf.io.TFRecordWriter:
    """A writer of the file of a split that has this number.

    Args:
        directory: Directory of the split, made if it is not there.
        number: Number of the file, from 0.
    """
    tf.io.gfile.makedirs(directory)
    return record_writer(os.path.join(directory, f"data_tfrecord-{number:05d}.gz"))


def split_files(examples: str, split: str) -> list[str]:
    """The files of a split, in their order.

    Args:
        examples: URI of the examples.
        split: Name of the split.
    """
    return sorted(tf.io.gfile.glob(os.path.join(examples, f"Split-{split}", "*")))


def read_records(files: Sequence[str], batch_rows: int = BATCH_ROWS) -> tf.data.Dataset:
    """Serialized examples of several files, in batches, in the order of the files."""
    records = tf.data.TFRecordDataset(list(files), COMPRESSION, num_parallel_reads=None)
    return without_autotuning(records.batch(batch_rows))


def parse_encoded(serialized: tf.Tensor, encoder: FeatureEncoder, tasks: Sequence[Task]) -> Batch:
    """Encoded examples as a batch of `make_dataset`.

    Args:
        serialized: String (B,).
        encoder: The encoder whose features they hold.
        tasks: The tasks whose labels are read.

    Returns:
        `(x, y)`, or `(x, y, weights)` where a task has a weight column.
    """
    inputs = {
        name: tf.io.FixedLenFeature(
            spec.shape[1:], tf.float32 if spec.dtype == tf.float32 else tf.int64
        )
        for name, spec in encoded_specs(encoder).items()
    }
    columns = {
        prefix + task.name: tf.io.FixedLenFeature((), tf.float32)
        for task in tasks
        for prefix in (LABEL, WEIGHT)
    }
    parsed = tf.io.parse_example(serialized, inputs | columns)
    x = {
        name: parsed[name] if parsed[name].dtype == tf.float32 else tf.cast(parsed[name], tf.int32)
        for name in inputs
    }
    weights = {task.name: parsed[WEIGHT + task.name] for task in tasks}
    y = {
        task.name: tf.where(weights[task.name] > 0, parsed[LABEL + task.name], np.nan)
        for task in tasks
    }
    weighted = {task.name: weights[task.name] for task in tasks if task.weight is not None}
    return (x, y, weighted) if weighted else (x, y)
