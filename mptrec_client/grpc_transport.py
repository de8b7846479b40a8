"""gRPC, by the official stubs; importing this imports TensorFlow."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from tensorflow import make_ndarray
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DT_FLOAT, DT_STRING
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from mptrec_client.errors import ClientError, server_error
from mptrec_client.rows import Columns, to_array
from mptrec_client.served import COLUMNS, Metadata, ServedModel
from mptrec_client.transport import Connection

SIGNATURES = "signature_def"


class GrpcTransport:
    """Speaks gRPC over one channel.

    Args:
        connection: How the server is reached.
    """

    def __init__(self, connection: Connection) -> None:
        self._headers = [(name.lower(), value) for name, value in connection.headers.items()]
        options = [
            ("grpc.max_send_message_length", connection.max_message_bytes),
            ("grpc.max_receive_message_length", connection.max_message_bytes),
            # A channel without a connection waits this long before it tries again, and refuses
            # requests meanwhile; by default longer than the pauses between our retries.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if connection.tls:
            credentials = _credentials(connection)
            self._channel = grpc.secure_channel(connection.host, credentials, options)
        else:
            self._channel = grpc.insecure_channel(connection.host, options)
        self._predictions = PredictionServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)

    def status(self, model: ServedModel, timeout: float) -> Mapping[str, Any]:
        # A label has no status of its own: the server tells that of all versions.
        spec = _model_spec(ServedModel(model.name, model.version))
        request = GetModelStatusRequest(model_spec=spec)
        return _as_json(self._send(self._models.GetModelStatus, request, timeout))

    def metadata(self, model: ServedModel, timeout: float) -> Mapping[str, Any]:
        request = GetModelMetadataRequest(
            model_spec=_model_spec(model), metadata_field=[SIGNATURES]
        )
        response = self._send(self._predictions.GetModelMetadata, request, timeout)
        signatures = SignatureDefMap()
        if not response.metadata[SIGNATURES].Unpack(signatures):
            raise server_error("INTERNAL", "the metadata hold no signatures")
        return {
            "model_spec": {"version": response.model_spec.version.value},
            "metadata": {SIGNATURES: _as_json(signatures)},
        }

    def predict(
        self,
        model: ServedModel,
        columns: Columns,
        tasks: Sequence[str] | None,
        known: Metadata,
        timeout: float,
    ) -> dict[str, np.ndarray]:
        if tasks is None:
            request = PredictRequest(
                model_spec=_model_spec(model, COLUMNS),
                inputs={name: _tensor(to_array(values)) for name, values in columns.items()},
            )
            response = self._send(self._predictions.Predict, request, timeout)
            return {name: make_ndarray(tensor) for name, tensor in response.outputs.items()}
        request = MultiInferenceRequest()
        for task in tasks:
            if task not in known.signatures:
                raise ClientError(f"version {known.version} has no signature {task!r}")
            method = known.signatures[task].method
            request.tasks.add(model_spec=_model_spec(model, task), method_name=method)
        request.input.example_list.examples.extend(_examples(columns))
        response = self._send(self._predictions.MultiInference, request, timeout)
        return {task: _scores(r) for task, r in zip(tasks, response.results, strict=True)}

    def close(self) -> None:
        self._channel.close()

    def _send(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout, metadata=self._headers)
        except grpc.RpcError as error:
            code, message = error.code(), error.details() or ""
            if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
                message += "; a smaller batch_size or a larger max_message_bytes may help"
            raise server_error(code.name, message) from error


def _credentials(connection: Connection) -> grpc.ChannelCredentials:
    certificate, key = connection.client_certificate or (None, None)
    return grpc.ssl_channel_credentials(
        *(
            pathlib.Path(path).read_bytes() if path else None
            for path in (connection.ca_certificate, key, certificate)
        )
    )


def _model_spec(model: ServedModel, signature: str = "") -> ModelSpec:
    spec = ModelSpec(name=model.name, signature_name=signature)
    if model.version is not None:
        spec.version.value = model.version
    elif model.label is not None:
        spec.version_label = model.label
    return spec


def _as_json(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _tensor(array: np.ndarray) -> TensorProto:
    if array.dtype == np.float32:
        tensor = TensorProto(dtype=DT_FLOAT, tensor_content=array.astype("<f4").tobytes())
    else:
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode() for text in array.flat])
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def _examples(columns: Columns) -> list[Example]:
    examples = [Example() for _ in next(iter(columns.values()))]
    for name, values in columns.items():
        for example, value in zip(examples, values, strict=True):
            feature = example.features.feature[name]
            if isinstance(values, np.ndarray):
                feature.float_list.value.append(value)
            else:
                texts = [value] if isinstance(value, str) else value
                feature.bytes_list.value.extend(text.encode() for text in texts)
    return examples


def _scores(result: Any) -> np.ndarray:
    """The numbers in one result of MultiInference."""
    if result.WhichOneof("result") == "regression_result":
        return np.array([r.value for r in result.regression_result.regressions], np.float32)
    rows = result.classification_result.classifications
    return np.array([[c.score for c in row.classes] for row in rows], np.float32)
