"""A model behind gRPC and REST that answers as TensorFlow Serving does, and fails when told to.

`click` (Regress) is twice the age, -1 where it is missing; `kind` (Classify) has the scores
[letters of the city, number of tags, version of the model].
"""

import contextlib
import http.server
import json
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import prediction_service_pb2_grpc as prediction_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.inference_pb2 import MultiInferenceResponse
from tensorflow_serving.apis.model_service_pb2_grpc import (
    ModelServiceServicer,
    add_ModelServiceServicer_to_server,
)
from tensorflow_serving.apis.predict_pb2 import PredictResponse

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
INPUTS = {"age": (tf.float32, 1), "city": (tf.string, 1), "tags": (tf.string, 2)}


class RefusedError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Model:
    """What is served; a test sets what it is to do."""

    def __init__(self):
        self.name = "census"
        self.version = 3
        self.labels = {"stable": 3}
        self.state = "AVAILABLE"
        self.inputs = dict(INPUTS)
        self.outputs = {"click": 1, "kind": 2}
        self.failures = []  # codes with which the next requests are refused
        self.delay = 0.0
        self.asked = []  # (api, what was asked) of each request
        self.headers = []
        self.lock = threading.Lock()

    def count(self, api):
        return sum(name == api for name, _ in self.asked)

    def begin(self, api, request, headers):
        with self.lock:
            self.asked.append((api, request))
            self.headers.append({name.lower(): value for name, value in headers})
            failure = self.failures.pop(0) if self.failures else None
        time.sleep(self.delay)
        if failure:
            raise RefusedError(failure, "as the test wants it")

    def resolve(self, name, version=None, label=None):
        if label is not None and label not in self.labels:
            raise RefusedError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        version = self.labels[label] if label is not None else version
        if name != self.name or version not in (None, self.version) or self.state != "AVAILABLE":
            raise RefusedError("NOT_FOUND", f"Servable not found for request: {name} {version}")

    def status(self, name, version=None):
        if name != self.name or version not in (None, self.version):
            raise RefusedError("NOT_FOUND", f"Could not find any versions of model {name}")
        response = GetModelStatusResponse()
        entry = response.model_version_status.add(version=self.version, state=self.state)
        entry.status.error_message = "" if self.state == "AVAILABLE" else "not yet"
        return response

    def signatures(self):
        signatures = SignatureDefMap()
        columns = signatures.signature_def["columns"]
        columns.method_name = "tensorflow/serving/predict"
        for name, (dtype, rank) in self.inputs.items():
            _describe(columns.inputs[name], dtype, [-1] * rank)
        for name, rank in self.outputs.items():
            _describe(columns.outputs[name], tf.float32, [-1, 3][:rank])
            task = signatures.signature_def[name]
            task.method_name = f"tensorflow/serving/{'regress' if rank == 1 else 'classify'}"
            _describe(task.inputs["inputs"], tf.string, [-1])
        # As TensorFlow 2 writes it: neither a method nor inputs, and an output without a type.
        signatures.signature_def["__saved_model_init_op"].outputs["op"].name = "NoOp"
        return signatures

    def predict(self, arrays):
        if set(arrays) != set(self.inputs):
            raise RefusedError("INVALID_ARGUMENT", f"input size does not match signature: {arrays}")
        for name, (dtype, rank) in self.inputs.items():
            is_text = arrays[name].dtype == object
            if is_text != (dtype == tf.string) or arrays[name].ndim != rank:
                raise RefusedError("INVALID_ARGUMENT", f"{name} is no {dtype.name} of rank {rank}")
        rows = zip(*arrays.values(), strict=True)
        return self.scores([dict(zip(arrays, cells, strict=True)) for cells in rows])

    def scores(self, rows):
        click = [-1 if np.isnan(row["age"]) else 2 * row["age"] for row in rows]
        kind = [
            [len(row.get("city", b"")), sum(tag != b"" for tag in row["tags"]), self.version]
            for row in rows
        ]
        scores = {"click": click, "kind": kind, "new": click}
        return {name: np.array(scores[name], np.float32) for name in self.outputs}


def _describe(info, dtype, shape):
    info.dtype = dtype.as_datatype_enum
    info.name = "placeholder:0"
    for size in shape:
        info.tensor_shape.dim.add(size=size)


class GrpcServicer(prediction_grpc.PredictionServiceServicer, ModelServiceServicer):
    def __init__(self, model):
        self.model = model

    @contextlib.contextmanager
    def answering(self, api, request, context):
        try:
            self.model.begin(api, request, context.invocation_metadata())
            yield
        except RefusedError as error:
            context.abort(grpc.StatusCode[error.code], str(error))

    def resolve(self, spec):
        version = spec.version.value if spec.HasField("version") else None
        self.model.resolve(spec.name, version, spec.version_label or None)

    def GetModelStatus(self, request, context):  # noqa: N802
        with self.answering("status", request, context):
            spec = request.model_spec
            version = spec.version.value if spec.HasField("version") else None
            return self.model.status(spec.name, version)

    def GetModelMetadata(self, request, context):  # noqa: N802
        with self.answering("metadata", request, context):
            self.resolve(request.model_spec)
            response = GetModelMetadataResponse()
            response.model_spec.version.value = self.model.version
            response.metadata["signature_def"].Pack(self.model.signatures())
            return response

    def Predict(self, request, context):  # noqa: N802
        with self.answering("predict", request, context):
            self.resolve(request.model_spec)
            assert request.model_spec.signature_name == "columns"
            arrays = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            response = PredictResponse()
            for name, array in self.model.predict(arrays).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
            return response

    def MultiInference(self, request, context):  # noqa: N802
        with self.answering("multi_inference", request, context):
            response = MultiInferenceResponse()
            examples = request.input.example_list.examples
            scores = self.model.scores([_row_of_example(example) for example in examples])
            for task in request.tasks:
                self.resolve(task.model_spec)
                name = task.model_spec.signature_name
                if name not in scores:
                    raise RefusedError("INVALID_ARGUMENT", f"Requested signature not found: {name}")
                result = response.results.add()
                result.model_spec.signature_name = name
                if task.method_name == "tensorflow/serving/regress":
                    for value in scores[name]:
                        result.regression_result.regressions.add(value=value)
                else:
                    assert task.method_name == "tensorflow/serving/classify"
                    for row in scores[name]:
                        classes = result.classification_result.classifications.add().classes
                        for score in row:
                            classes.add(label="?", score=score)
            return response


def _row_of_example(example):
    features = example.features.feature
    (age,) = features["age"].float_list.value
    (city,) = features["city"].bytes_list.value
    return {"age": age, "city": city, "tags": list(features["tags"].bytes_list.value)}


class RestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer("metadata" if self.path.endswith("/metadata") else "status", None)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer("predict", json.loads(body))

    def answer(self, api, request):
        model = self.server.model
        try:
            model.begin(api, request, self.headers.items())
            self.respond(200, self.content(api, request, model))
        except RefusedError as error:
            self.respond(HTTP_STATUS[error.code], {"error": str(error)})

    def content(self, api, request, model):
        path = self.path.removesuffix("/metadata").removesuffix(":predict")
        name, *choice = path.partition("/v1/models/")[2].split("/")
        version = int(choice[1]) if choice[:1] == ["versions"] else None
        label = choice[1] if choice[:1] == ["labels"] else None
        if api == "status":
            return _json(model.status(name, version))
        model.resolve(name, version, label)
        if api == "metadata":
            spec = {"name": name, "signature_name": "", "version": str(model.version)}
            signatures = {"signature_def": _json(model.signatures())}
            return {"model_spec": spec, "metadata": signatures}
        assert request["signature_name"] == "columns"
        arrays = {
            key: np.char.encode(values, "utf-8").astype(object)
            if (values := np.array(cells)).dtype.kind == "U"
            else values
            for key, cells in request["inputs"].items()
        }
        outputs = {key: values.tolist() for key, values in model.predict(arrays).items()}
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}

    def respond(self, status, content):
        body = json.dumps(content, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _json(message):
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@contextlib.contextmanager
def serving_grpc(model, credentials=None, port=0):
    server = grpc.server(
        futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)]
    )
    servicer = GrpcServicer(model)
    prediction_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    add_ModelServiceServicer_to_server(servicer, server)
    if credentials:
        port = server.add_secure_port(f"localhost:{port}", credentials)
    else:
        port = server.add_insecure_port(f"localhost:{port}")
    server.start()
    try:
        yield f"{'grpcs' if credentials else 'grpc'}://localhost:{port}"
    finally:
        server.stop(0).wait()


class RestServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_):
        pass  # clients that go away are part of the tests


@contextlib.contextmanager
def serving_rest(model, context=None, handler=RestHandler, port=0):
    server = RestServer(("localhost", port), handler)
    server.model = model
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"{'https' if context else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
