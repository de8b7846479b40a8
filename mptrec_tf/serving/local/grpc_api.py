"""The gRPC services, on TensorFlow Serving's own stubs."""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.local.core import Core
from mptrec_tf.serving.local.errors import RequestError

MAX_MESSAGE = 2000
"""Characters of an error: a client refuses more than 8 KiB of trailers."""


def start_grpc(
    core: Core, host: str, port: int, *, threads: int, max_request_bytes: int
) -> tuple[grpc.Server, int]:
    """Serves the APIs over gRPC.

    Args:
        core: The APIs.
        host: Address to listen on.
        port: Port; 0 for any that is free.
        threads: Requests that are answered at the same time.
        max_request_bytes: Size above which a request is refused.

    Returns:
        The running server and its port.

    Raises:
        ServingError: If the port is in use.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(threads, "grpc"),
        options=[
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(core), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(core), server)
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise ServingError(
            f"gRPC cannot listen on {host}:{port}: the port is in use, or not allowed"
        ) from error
    server.start()
    return server, bound


def _method(api: str) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
    def answer(self: "_Service", request: Any, context: grpc.ServicerContext) -> Any:
        try:
            with self.core.recorded(_model_name(request), api, "GRPC"):
                return self.core.answer(api, request)
        except RequestError as error:
            context.abort(error.code, error.message[:MAX_MESSAGE])

    return answer


def _model_name(request: Any) -> str:
    """Name of the model, for the counts; a MultiInference request has it in its tasks."""
    if hasattr(request, "tasks"):
        request = request.tasks[0] if request.tasks else request
    return request.model_spec.name if hasattr(request, "model_spec") else ""


class _Service:
    def __init__(self, core: Core):
        self.core = core


class _PredictionService(_Service, prediction_service_pb2_grpc.PredictionServiceServicer):
    Predict = _method("Predict")
    Classify = _method("Classify")
    Regress = _method("Regress")
    MultiInference = _method("MultiInference")
    GetModelMetadata = _method("GetModelMetadata")


class _ModelService(_Service, model_service_pb2_grpc.ModelServiceServicer):
    GetModelStatus = _method("GetModelStatus")
    HandleReloadConfigRequest = _method("HandleReloadConfigRequest")
