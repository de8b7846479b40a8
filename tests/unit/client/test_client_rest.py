"""What goes over HTTP, and what may go wrong there."""

import http.client
import http.server
import json
import ssl
import subprocess
import sys
import time

import numpy as np
import pytest
from fake_serving import RestHandler, serving_rest

from mptrec_client import (
    Client,
    ClientError,
    DeadlineExceededError,
    NotFoundError,
    ServerError,
    UnavailableError,
    rest_transport,
)

ROWS = [
    {"age": 0.1, "city": "Malmö", "tags": ["a", "b"]},
    {"age": None, "city": None, "tags": []},
]


@pytest.fixture
def recording():
    """A handler that keeps what arrives."""

    class Recording(RestHandler):
        lines, bodies, connections = [], [], set()

        def parse_request(self):
            parsed = super().parse_request()
            self.lines.append(f"{self.command} {self.path}")
            self.connections.add(self.client_address)
            return parsed

        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.bodies.append(body.decode())
            self.answer("predict", json.loads(body))

    return Recording


def test_a_request_is_what_tensorflow_serving_reads(model, recording):
    with serving_rest(model, handler=recording) as address, Client(address, "census") as client:
        client.predict(ROWS)
    assert recording.lines == [
        "GET /v1/models/census/metadata",
        "POST /v1/models/census:predict",
    ]
    # float32's 0.1 as a decimal (a whole number would be refused above 2^24), and a literal NaN
    assert recording.bodies == [
        '{"signature_name": "columns", "inputs": {"age": [0.10000000149011612, NaN], '
        '"city": ["Malm\\u00f6", ""], "tags": [["a", "b"], ["", ""]]}}'
    ]


def test_whole_numbers_are_written_as_decimals(model, recording):
    with serving_rest(model, handler=recording) as address, Client(address, "census") as client:
        client.predict([{"age": 2**25, "city": "", "tags": []}])
    assert '"age": [33554432.0]' in recording.bodies[0]


@pytest.mark.parametrize(
    ("choice", "path"), [({"version": 3}, "/versions/3"), ({"label": "a b/c"}, "/labels/a%20b%2Fc")]
)
def test_version_and_label_are_in_the_path(model, recording, choice, path):
    model.labels["a%20b%2Fc"] = 3
    with (
        serving_rest(model, handler=recording) as address,
        Client(address, "census", **choice) as client,
    ):
        client.predict(ROWS)
        client.status()
    assert recording.lines == [
        f"GET /v1/models/census{path}/metadata",
        f"POST /v1/models/census{path}:predict",
        f"GET /v1/models/census{path if 'version' in choice else ''}",
    ]


def test_a_path_of_the_address_comes_first(model, recording):
    with (
        serving_rest(model, handler=recording) as address,
        Client(f"{address}/serving/", "census") as client,
    ):
        client.metadata()
    assert recording.lines == ["GET /serving/v1/models/census/metadata"]


def test_one_connection_serves_many_calls(model, recording):
    with serving_rest(model, handler=recording) as address, Client(address, "census") as client:
        for _ in range(5):
            client.predict(ROWS)
    assert len(recording.connections) == 1


def test_an_answer_of_a_server_that_closes_is_read(model, recording, monkeypatch):
    read1 = http.client.HTTPResponse.read1

    def closing(response, size=-1):  # as newer Pythons do
        piece = read1(response, size)
        if not response.length:
            response.close()
        return piece

    monkeypatch.setattr(http.client.HTTPResponse, "read1", closing)
    recording.protocol_version = "HTTP/1.0"
    with (
        serving_rest(model, handler=recording) as address,
        Client(address, "census", retries=0) as client,
    ):
        for _ in range(2):
            np.testing.assert_allclose(client.predict(ROWS)["click"], [0.2, -1.0], rtol=1e-6)
    assert len(recording.connections) == 3


def test_a_connection_that_the_server_closed_meanwhile_is_no_error(model, recording):
    recording.timeout = 0.1  # the server closes connections that are idle so long
    with (
        serving_rest(model, handler=recording) as address,
        Client(address, "census", retries=0) as client,
    ):
        for _ in range(3):
            client.predict(ROWS)
            time.sleep(0.4)
    assert len(recording.connections) == 3
    assert model.count("predict") == 3


def test_a_connection_that_was_idle_for_long_is_not_used_again(model, recording, monkeypatch):
    monkeypatch.setattr(rest_transport, "IDLE_SECONDS", 0.1)
    with serving_rest(model, handler=recording) as address, Client(address, "census") as client:
        client.predict(ROWS)
        client.predict(ROWS)
        time.sleep(0.2)
        client.predict(ROWS)
    assert len(recording.connections) == 2


def raw_answers(*answers):
    """A handler that answers each request with the next of these texts of HTTP, then closes."""

    left = list(answers)

    class Raw(http.server.BaseHTTPRequestHandler):
        asked = 0

        def handle(self):
            self.rfile.readline()
            type(self).asked += 1
            for piece in left.pop(0) if len(left) > 1 else left[0]:
                if isinstance(piece, float):
                    time.sleep(piece)
                else:
                    self.wfile.write(piece.encode())
                    self.wfile.flush()

    return Raw


def http_text(status, body, length=None):
    return f"HTTP/1.1 {status} X\r\nContent-Length: {length or len(body)}\r\n\r\n{body}"


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (http_text(200, "<html>"), ServerError, "no JSON object: b'<html>'"),
        (http_text(200, "[1]"), ServerError, r"no JSON object: b'\[1\]'"),
        (http_text(200, "{}"), ServerError, "INTERNAL: no signatures in {}"),
        (http_text(404, "<h1>?"), NotFoundError, r"HTTP status 404: b'<h1>\?'"),
        (http_text(404, '{"error": "no model"}'), NotFoundError, "NOT_FOUND: no model"),
        (http_text(302, ""), ServerError, "UNKNOWN: HTTP status 302"),
        (http_text(502, "proxy"), UnavailableError, "HTTP status 502"),
        (http_text(200, "{", 99), UnavailableError, "IncompleteRead"),
        ("", UnavailableError, "closed connection without response"),
        ("SSH-2.0\r\n\r\n", UnavailableError, "BadStatusLine"),
    ],
    ids=["html", "list", "empty", "404", "json404", "302", "502", "cut", "silent", "ssh"],
)
def test_a_strange_answer_is_told(model, answer, error, message):
    handler = raw_answers([answer])
    with (
        serving_rest(model, handler=handler) as address,
        Client(address, "census", retries=1) as client,
        pytest.raises(error, match=message),
    ):
        client.metadata()
    assert handler.asked == (2 if error is UnavailableError else 1)


def test_a_broken_connection_is_tried_again(model):
    signatures = {"model_spec": {"version": "5"}, "metadata": {"signature_def": {}}}
    signatures["metadata"]["signature_def"]["signature_def"] = {}
    handler = raw_answers([""], [http_text(200, "{", 9)], [http_text(200, json.dumps(signatures))])
    with serving_rest(model, handler=handler) as address, Client(address, "census") as client:
        assert client.metadata().version == 5


def test_the_deadline_covers_an_answer_that_trickles(model):
    body = "x" * 40
    pieces = [piece for letter in body for piece in (0.1, letter)]
    handler = raw_answers([http_text(200, "", len(body)), *pieces])
    start = time.monotonic()
    with (
        serving_rest(model, handler=handler) as address,
        Client(address, "census") as client,
        pytest.raises(DeadlineExceededError),
    ):
        client.metadata(timeout=0.5)
    assert time.monotonic() - start < 2


def test_numbers_survive_unchanged(model):
    numbers = np.array([np.nan, np.inf, -np.inf, 1e-42, 0.1, 2 / 3], np.float32)
    model.outputs = {"click": 1, "new": 1}
    model.scores = lambda rows: {"click": numbers, "new": numbers}
    with serving_rest(model) as address, Client(address, "census") as client:
        np.testing.assert_array_equal(client.predict(ROWS * 3)["click"], numbers)


def test_tls_with_a_certificate_of_ones_own(model, certificate):
    (ours, key), (other, _) = certificate("server"), certificate("other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ours, key)
    with serving_rest(model, context) as address:
        with Client(address, "census", ca_certificate=str(ours)) as client:
            assert client.predict(ROWS)["kind"].shape == (2, 3)
        asked = len(model.asked)
        for ca_certificate in (str(other), None):
            with Client(address, "census", ca_certificate=ca_certificate) as client:
                with pytest.raises(ServerError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                    client.predict(ROWS)
                assert not caught.value.retryable
    assert len(model.asked) == asked


def test_a_file_that_is_no_certificate_is_refused():
    with pytest.raises(ClientError, match="the certificates cannot be used"):
        Client("https://localhost:1", "census", ca_certificate=__file__)


def test_tls_with_a_certificate_of_the_client(model, certificate):
    (ours, key), (theirs, their_key) = certificate("server"), certificate("client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(theirs))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(ours, key)
    options = {"ca_certificate": str(ours)}
    with serving_rest(model, context) as address:
        with Client(address, "census", **options) as client, pytest.raises(ServerError):
            client.predict(ROWS, timeout=2)
        options["client_certificate"] = (str(theirs), str(their_key))
        with Client(address, "census", **options) as client:
            assert client.predict(ROWS)["kind"].shape == (2, 3)


def test_rest_imports_neither_tensorflow_nor_grpc_nor_pandas(model):
    program = """if True:
        import sys
        from mptrec_client import Client
        with Client(sys.argv[1], "census") as client:
            client.wait_until_available()
            print(client.predict([{"age": 2, "city": "", "tags": []}])["click"].tolist())
        heavy = {"tensorflow", "grpc", "google.protobuf", "keras", "mptrec_tf", "pandas"}
        print(sorted(heavy & set(sys.modules)))
    """
    with serving_rest(model) as address:
        done = subprocess.run(
            [sys.executable, "-c", program, address], capture_output=True, text=True, check=True
        )
    assert done.stdout == "[4.0]\n[]\n"
