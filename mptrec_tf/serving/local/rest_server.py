"""The HTTP server below the REST API: Tornado in a thread of its own."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable
from concurrent import futures

import tornado.httpserver
import tornado.httputil
import tornado.netutil
import tornado.web

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.local.json_outputs import write_error
from mptrec_tf.serving.local.rest_api import Answer, RestApi

IDLE_SECONDS = 75.0
BODY_SECONDS = 30.0
_DIGITS = 20
"""Enough of a length to see that it is too large."""


class RestServer:
    """Listens until it is stopped.

    Args:
        api: Answers the requests.
        host: Address to listen on.
        port: Port; 0 for any that is free.
        threads: Requests that are answered at the same time.
        max_request_bytes: Size of the body above which a request is answered with 413.

    Raises:
        ServingError: If the port is in use.
    """

    def __init__(
        self,
        api: RestApi,
        host: str,
        port: int,
        *,
        threads: int,
        max_request_bytes: int,
    ):
        try:
            self._sockets = tornado.netutil.bind_sockets(port, host)
        except OSError as error:
            raise ServingError(
                f"REST cannot listen on {host}:{port}: {error.strerror or error}"
            ) from error
        self.port = self._sockets[0].getsockname()[1]
        self._pool = futures.ThreadPoolExecutor(threads, "rest")
        self._busy: set[tornado.web.RequestHandler] = set()
        self._application = tornado.web.Application(
            default_handler_class=_Handler,
            default_handler_args={
                "api": api,
                "pool": self._pool,
                "busy": self._busy,
                "max_bytes": max_request_bytes,
            },
            log_function=lambda handler: None,
        )
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._grace = 0.0
        self._thread = threading.Thread(target=self._run, name="rest-server", daemon=True)
        self._thread.start()

    def stop(self, grace: float) -> None:
        """Accepts no more requests and waits for those that are under way.

        Args:
            grace: Seconds to wait.
        """
        self._grace = grace
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._pool.shutdown(wait=False)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = tornado.httpserver.HTTPServer(
            self._application,
            idle_connection_timeout=IDLE_SECONDS,
            body_timeout=BODY_SECONDS,
            max_body_size=sys.maxsize,  # the handler counts, and answers
        )
        server.add_sockets(self._sockets)
        await self._stopping.wait()
        server.stop()
        end = self._loop.time() + self._grace
        while self._busy and self._loop.time() < end:
            await asyncio.sleep(0.01)
        await server.close_all_connections()


@tornado.web.stream_request_body
class _Handler(tornado.web.RequestHandler):
    def initialize(
        self,
        api: RestApi,
        pool: futures.Executor,
        busy: set[tornado.web.RequestHandler],
        max_bytes: int,
    ) -> None:
        self._api, self._pool, self._busy, self._max_bytes = api, pool, busy, max_bytes
        self._body = bytearray()

    def prepare(self) -> None:
        """Refuses a body by its announced length before it is read."""
        length = self.request.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length[:_DIGITS]) > self._max_bytes:
            self._too_large()

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk
        if len(self._body) > self._max_bytes and not self._finished:
            self._too_large()

    async def _answer(self) -> None:
        self._busy.add(self)
        try:
            answer = await asyncio.get_running_loop().run_in_executor(
                self._pool,
                self._api.answer,
                self.request.method,
                self.request.path,
                bytes(self._body),
            )
            await self._send(answer)
        finally:
            self._busy.discard(self)

    get = post = head = put = delete = patch = options = _answer

    def write_error(self, status_code: int, **_: object) -> None:
        reason = tornado.httputil.responses.get(status_code, "Error")
        self._send(Answer(status_code, write_error(reason)))

    def compute_etag(self) -> None:
        """No caching: an answer may change with the version."""

    def _too_large(self) -> None:
        message = f"the request has more than {self._max_bytes} bytes"
        self._send(Answer(413, write_error(message)))

    def _send(self, answer: Answer) -> Awaitable[None]:
        self.set_status(answer.status)
        self.set_header("Content-Type", answer.content_type)
        return self.finish(answer.text)
