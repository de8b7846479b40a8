"""Requests that are replayed before a version is served."""

import pathlib

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from mptrec_tf.serving.layout import MAX_RECORDS, WARMUP_FILE
from mptrec_tf.serving.local import heads, predict
from mptrec_tf.serving.local.errors import RequestError, invalid
from mptrec_tf.serving.local.servable import Servable

_REPLAY = {
    "predict_log": predict.predict,
    "classify_log": heads.classify,
    "regress_log": heads.regress,
    "multi_inference_log": heads.multi_inference,
}


def warm_up(servable: Servable, path: pathlib.Path) -> None:
    """Replays a version's own requests, if it has any.

    Args:
        servable: The loaded version.
        path: Its directory; the requests are `PredictionLog` records in
            `assets.extra/tf_serving_warmup_requests`.

    Raises:
        RequestError: If a record cannot be read or answered, or there are more than 1,000: what
            makes the load fail in TensorFlow Serving too.
    """
    file = path / WARMUP_FILE
    if not file.exists():
        return
    try:
        for number, record in enumerate(tf.data.TFRecordDataset(str(file)).as_numpy_iterator(), 1):
            if number > MAX_RECORDS:
                raise invalid(
                    f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}"
                )
            _replay(servable, record, f"warmup record {number} of {file}")
    except tf.errors.DataLossError as error:
        raise RequestError(
            grpc.StatusCode.DATA_LOSS,
            f"{error.message}. Please verify your warmup data is in TFRecord format: {file}",
        ) from error


def _replay(servable: Servable, record: bytes, where: str) -> None:
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise invalid(f"Failed to parse {where}: {error}") from error
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    if kind not in _REPLAY:
        raise RequestError(
            grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind} ({where})"
        )
    try:
        _REPLAY[kind](servable, getattr(log, kind).request)
    except RequestError as error:
        raise RequestError(error.code, f"{where}: {error.message}") from error
