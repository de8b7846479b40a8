"""The REST API: paths, bodies and HTTP statuses of TensorFlow Serving."""

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from mptrec_tf.serving.config.arguments import LARGEST
from mptrec_tf.serving.config.texts import METRICS_PATH
from mptrec_tf.serving.layout import SERVING_DEFAULT
from mptrec_tf.serving.local import predict
from mptrec_tf.serving.local.core import Core
from mptrec_tf.serving.local.errors import RequestError, invalid
from mptrec_tf.serving.local.json_examples import read_examples
from mptrec_tf.serving.local.json_inputs import read_inputs
from mptrec_tf.serving.local.json_outputs import (
    write_classifications,
    write_error,
    write_outputs,
    write_regressions,
)
from mptrec_tf.serving.local.json_values import parse, signature_name

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PATTERNS = {
    "POST": re.compile(rf"{_MODEL}:(classify|regress|predict)", re.ASCII),
    "GET": re.compile(rf"{_MODEL}(?:/(metadata))?", re.ASCII),
}

_Code = grpc.StatusCode
_HTTP = {
    _Code.CANCELLED: 499,
    _Code.INVALID_ARGUMENT: 400,
    _Code.DEADLINE_EXCEEDED: 504,
    _Code.NOT_FOUND: 404,
    _Code.ALREADY_EXISTS: 409,
    _Code.PERMISSION_DENIED: 403,
    _Code.RESOURCE_EXHAUSTED: 429,
    _Code.FAILED_PRECONDITION: 400,
    _Code.ABORTED: 409,
    _Code.OUT_OF_RANGE: 400,
    _Code.UNIMPLEMENTED: 501,
    _Code.UNAVAILABLE: 503,
    _Code.UNAUTHENTICATED: 401,
}
"""All others are 500."""


class Answer(NamedTuple):
    """What HTTP sends back.

    Args:
        status: HTTP status.
        text: Body.
        content_type: Its type. Defaults to JSON.
    """

    status: int
    text: str
    content_type: str = "application/json"


class RestApi:
    """Answers requests of REST, whatever the HTTP server.

    Args:
        core: The APIs.

    Example:

    ```python
    status, text, _ = RestApi(core).answer("GET", "/v1/models/census", b"")
    ```
    """

    def __init__(self, core: Core):
        self._core = core

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answers one request.

        Args:
            method: Such as `"GET"`.
            path: Without the query.
            body: JSON of a POST.

        Returns:
            The answer; any error among them.
        """
        if (method, path) == ("GET", METRICS_PATH):
            return Answer(200, self._core.metrics.page(), "text/plain")
        pattern = _PATTERNS.get(method)
        match = pattern and pattern.fullmatch(path)
        if not match:
            return Answer(400, write_error(f"Malformed request: {method} {path}"))
        try:
            spec = _model_spec(*match.group(1, 2, 3))
            action = match.group(4) or "status"
            with self._core.recorded(spec.name, action.capitalize(), "REST"):
                return Answer(200, _ACTIONS[action](self._core, spec, body))
        except RequestError as error:
            return Answer(_HTTP.get(error.code, 500), write_error(error.message))


def _model_spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    try:
        spec = model_pb2.ModelSpec(name=urllib.parse.unquote(name, errors="strict"))
        if label:
            spec.version_label = urllib.parse.unquote(label, errors="strict")
    except UnicodeDecodeError as error:
        raise invalid(f"Failed to decode model name:{name}") from error
    if version:
        if len(version) > len(str(LARGEST)) or int(version) > LARGEST:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    return spec


def _predict(core: Core, spec: model_pb2.ModelSpec, body: bytes) -> str:
    document = parse(body)
    name = signature_name(document) or SERVING_DEFAULT
    with core.manager.lease(spec) as servable:
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        if not signature.inputs:
            raise invalid(f"Failed to get input map for signature: {name}")
        rows, arrays = read_inputs(document, signature)
        return write_outputs(predict.run(servable, signature, arrays), rows=rows)


def _classify(core: Core, spec: model_pb2.ModelSpec, body: bytes) -> str:
    request = classification_pb2.ClassificationRequest(**_examples_request(spec, body))
    return write_classifications(core.answer("Classify", request).result)


def _regress(core: Core, spec: model_pb2.ModelSpec, body: bytes) -> str:
    request = regression_pb2.RegressionRequest(**_examples_request(spec, body))
    return write_regressions(core.answer("Regress", request).result)


def _examples_request(spec: model_pb2.ModelSpec, body: bytes) -> Mapping[str, Any]:
    document = parse(body)
    spec.signature_name = signature_name(document)
    return {"model_spec": spec, "input": read_examples(document)}


def _metadata(core: Core, spec: model_pb2.ModelSpec, body: bytes) -> str:
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=[predict.SIGNATURES_FIELD]
    )
    response = core.answer("GetModelMetadata", request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[predict.SIGNATURES_FIELD].Unpack(signatures)
    return (
        f'{{"model_spec": {_json(response.model_spec)}, '
        f'"metadata": {{"signature_def": {_json(signatures)}}}}}'
    )


def _status(core: Core, spec: model_pb2.ModelSpec, body: bytes) -> str:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    return _json(core.answer("GetModelStatus", request))


def _json(message: Message) -> str:
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


_ACTIONS = {
    "predict": _predict,
    "classify": _classify,
    "regress": _regress,
    "metadata": _metadata,
    "status": _status,
}
