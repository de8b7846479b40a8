"""Raw data, their encoding, and datasets."""

from mptrec_tf.data import ali_ccp, byte_rec, census_income, synthetic
from mptrec_tf.data.conversion import convert
from mptrec_tf.data.datasets import dataset_of_arrays, encode_rows, make_dataset
from mptrec_tf.data.encoded import EncodedRows, RowsInFiles, RowsInMemory
from mptrec_tf.data.encoding import FeatureEncoder, check_same_features, check_same_tasks
from mptrec_tf.data.labels import encode_labels, has_labels
from mptrec_tf.data.readers import Chunk, read_chunks

__all__ = [
    "Chunk",
    "EncodedRows",
    "FeatureEncoder",
    "RowsInFiles",
    "RowsInMemory",
    "ali_ccp",
    "byte_rec",
    "census_income",
    "check_same_features",
    "check_same_tasks",
    "convert",
    "dataset_of_arrays",
    "encode_labels",
    "encode_rows",
    "has_labels",
    "make_dataset",
    "read_chunks",
    "synthetic",
]
