"""What both transports do with a request: find the version, answer, count."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from tensorflow_serving.apis import model_management_pb2, model_pb2

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.local import heads, predict
from mptrec_tf.serving.local.errors import RequestError, invalid
from mptrec_tf.serving.local.manager import Manager
from mptrec_tf.serving.local.metrics import Metrics
from mptrec_tf.serving.local.servable import Servable

LOGGER = logging.getLogger(__name__)

_ANSWERS: dict[str, Callable[[Servable, Any], Any]] = {
    "Predict": predict.predict,
    "Classify": heads.classify,
    "Regress": heads.regress,
    "MultiInference": heads.multi_inference,
    "GetModelMetadata": predict.metadata,
}


class Core:
    """The APIs of a server, whatever the transport.

    Args:
        manager: The models.
    """

    def __init__(self, manager: Manager):
        self.manager = manager
        self.metrics = Metrics()

    def answer(self, api: str, request: Any) -> Any:
        """Answers one request.

        Args:
            api: Name of the method in PredictionService or ModelService.
            request: Its request message.

        Returns:
            Its response message.

        Raises:
            RequestError: If it cannot be answered.
        """
        if api == "GetModelStatus":
            return self.manager.status(request)
        if api == "HandleReloadConfigRequest":
            return self._reload(request)
        with self.manager.lease(_model_spec(api, request)) as servable:
            return _ANSWERS[api](servable, request)

    @contextlib.contextmanager
    def recorded(self, model: str, api: str, entrypoint: str) -> Iterator[None]:
        """Counts what happens inside; any error but `RequestError` becomes one, status INTERNAL.

        Args:
            model: Name in the request; counted only if there is such a model.
            api: Name of the method.
            entrypoint: `"GRPC"` or `"REST"`.

        Raises:
            RequestError: As raised inside.
        """
        start, status = time.perf_counter(), "OK"
        try:
            yield
        except RequestError as error:
            status = error.code.name
            raise
        except Exception as error:
            LOGGER.exception("%s of model %s failed", api, model)
            status = grpc.StatusCode.INTERNAL.name
            raise RequestError(grpc.StatusCode.INTERNAL, f"{api} failed: {error}") from error
        finally:
            known = model if model in self.manager.models else ""
            self.metrics.record(known, api, entrypoint, status, time.perf_counter() - start)

    def _reload(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        try:
            self.manager.reload(request.config)
        except ServingError as error:
            raise invalid(str(error)) from error
        return model_management_pb2.ReloadConfigResponse(status={})


def _model_spec(api: str, request: Any) -> model_pb2.ModelSpec:
    if api == "MultiInference":
        return request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec
