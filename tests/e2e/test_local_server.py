"""The local server under load and under attack."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import string
import subprocess
import sys
import threading
import time

import grpc
import pytest
import requests
import tensorflow as tf
import tiny_models
from tensorflow_serving.apis import (
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from mptrec_tf.serving.local import LocalServer

SWAPS = 20
MALFORMED = 1000
MAX_BYTES = 1 << 20
ROWS = [(float(x), ["a"] * (x % 3)) for x in range(8)]
MIB = 1 << 20


def resident():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def predict_request():
    request = predict_pb2.PredictRequest(model_spec={"name": "tiny"})
    examples = [tiny_models.example(*row).SerializeToString() for row in ROWS]
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto(examples))
    return request


def versions_of_scores(click, visits, color):
    """The versions whose answers these are, row by row."""
    versions = set()
    for row, *scores in zip(ROWS, click, visits, color, strict=True):
        version = int(scores[2][0])
        expected = tiny_models.answer(version, *row)
        assert [expected["click"], expected["visits"], expected["color"]] == scores
        versions.add(version)
    return versions


class Load:
    """Asks all the time, by one way, and notes what is wrong with the answers."""

    def __init__(self, server):
        self.grpc_address, self.rest_url = server.grpc_address, server.rest_url
        self.served = self.published = 1
        self.stop = threading.Event()

    def run(self, ask):
        answered = 0
        with grpc.insecure_channel(self.grpc_address) as channel, requests.Session() as session:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while not self.stop.is_set():
                oldest = self.served
                versions = ask(self, stub, session)
                assert len(versions) == 1, versions
                assert oldest <= min(versions) <= self.published
                answered += 1
        return answered

    def by_grpc(self, stub, session):
        response = stub.Predict(predict_request(), timeout=20)
        arrays = {key: tf.make_ndarray(proto) for key, proto in response.outputs.items()}
        versions = versions_of_scores(
            arrays["click"].tolist(), arrays["visits"].tolist(), arrays["color"].tolist()
        )
        return versions | {response.model_spec.version.value}

    def by_heads(self, stub, session):
        request = inference_pb2.MultiInferenceRequest()
        for head, method in (("click", "regress"), ("visits", "regress"), ("color", "classify")):
            request.tasks.add(
                model_spec={"name": "tiny", "signature_name": head},
                method_name=f"tensorflow/serving/{method}",
            )
        request.input.example_list.examples.extend(tiny_models.example(*row) for row in ROWS)
        click, visits, color = stub.MultiInference(request, timeout=20).results
        return versions_of_scores(
            [one.value for one in click.regression_result.regressions],
            [one.value for one in visits.regression_result.regressions],
            [
                [one.score for one in row.classes]
                for row in color.classification_result.classifications
            ],
        ) | {click.model_spec.version.value}

    def by_rest(self, stub, session):
        longest = max(len(tags) for _, tags in ROWS)
        body = {
            "signature_name": "columns",
            "inputs": {
                "x": [x for x, _ in ROWS],
                "tags": [tags + [""] * (longest - len(tags)) for _, tags in ROWS],
            },
        }
        url = f"{self.rest_url}/v1/models/tiny:predict"
        response = session.post(url, json=body, timeout=20)
        assert response.status_code == 200, response.text
        outputs = response.json()["outputs"]
        return versions_of_scores(outputs["click"], outputs["visits"], outputs["color"])


def test_no_request_fails_while_versions_change(tmp_path):
    base_path = tmp_path / "tiny"
    tiny_models.save(base_path, 1)
    with LocalServer(base_path, poll_seconds=0.05) as server:
        load = Load(server)
        ways = (Load.by_grpc, Load.by_grpc, Load.by_heads, Load.by_rest)
        with concurrent.futures.ThreadPoolExecutor(len(ways)) as pool:
            running = [pool.submit(load.run, way) for way in ways]
            used = []
            try:
                for version in range(2, SWAPS + 2):
                    load.published = version
                    tiny_models.save(base_path, version)
                    end = time.monotonic() + 30
                    while server.versions != {"tiny": [version]}:
                        assert time.monotonic() < end, server.versions
                        time.sleep(0.01)
                    load.served = version
                    time.sleep(0.05)
                    used.append(resident())
            finally:
                load.stop.set()
        answered = [future.result() for future in running]
    assert min(answered) > SWAPS

    assert used[-1] - used[SWAPS // 4] < 100 * MIB, [size // MIB for size in used]


def grpc_failure(channel, method, data):
    call = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
    with pytest.raises(grpc.RpcError) as raised:
        call(data, timeout=20)
    return raised.value.code()


def noise(rng, size=20):
    return "".join(rng.choices(string.printable + "äß\u4e2d", k=rng.randrange(1, size)))


def json_noise(rng, depth=3):
    makers = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.randint(-(10**20), 10**20),
        lambda: rng.gauss(0, 1e30),
        lambda: noise(rng),
        lambda: {"b64": noise(rng)},
    ]
    if depth:
        makers += [
            lambda: [json_noise(rng, depth - 1) for _ in range(rng.randrange(4))],
            lambda: {noise(rng): json_noise(rng, depth - 1) for _ in range(rng.randrange(4))},
        ]
    return rng.choice(makers)()


def bad_tensors(rng, request):
    tensor = request.inputs["examples"]
    dims = tensor.tensor_shape.dim
    match rng.randrange(7):
        case 0:
            dims[0].size = rng.choice([-1, 0, 7, 2**40, 2**62])
        case 1:
            dims.add(size=rng.choice([1, -1, 2**31]))
        case 2:
            tensor.dtype = rng.choice([number for number in range(1, 27) if number != 7])
        case 3:
            tensor.tensor_shape.unknown_rank = True
        case 4:
            tensor.string_val[rng.randrange(len(ROWS))] = rng.randbytes(rng.randrange(1, 50))
        case 5:
            request.inputs[noise(rng)].CopyFrom(tensor)
        case 6:
            del request.inputs["examples"]
    return request


def bad_grpc(rng, channel):
    request = predict_request()
    match rng.randrange(6):
        case 0:
            data = b"\xff" + rng.randbytes(rng.randrange(200))
        case 1:
            whole = request.SerializeToString()
            data = whole[: rng.randrange(len(whole))]
        case 2:
            request.output_filter.append(noise(rng))
            data = request.SerializeToString()
        case 3:
            request.model_spec.name = rng.choice(["", "../tiny", "tiny/3", noise(rng)])
            data = request.SerializeToString()
        case 4:
            request.inputs["examples"].string_val.append(bytes(MAX_BYTES))
            data = request.SerializeToString()
        case 5:
            data = bad_tensors(rng, request).SerializeToString()
    method = rng.choice(["Predict", "Predict", "Classify", "Regress", "MultiInference"])
    code = grpc_failure(channel, method, data)
    assert code not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE), code


def bad_rest(rng, url, session):
    valid = json.dumps({"signature_name": "click", "examples": [{"x": 1.5}]})
    path, method, body = "/v1/models/tiny:predict", "POST", json_noise(rng)
    match rng.randrange(8):
        case 0:
            data = valid[: rng.randrange(len(valid))]
        case 1:
            data = "[" * rng.choice([50, 900, 1100, 100_000])
        case 2:
            depth = rng.choice([40, 300, 900, 5000])
            data = '{"instances": ' + "[" * depth + "]" * depth + "}"
        case 3:
            formats = ["instances"] if body == [] else ["instances", "inputs"]
            data = json.dumps({rng.choice(formats): body})
        case 4:
            path = rng.choice(["/v1/models/tiny:classify", "/v1/models/tiny:regress"])
            data = json.dumps({"signature_name": rng.choice(["click", "color"]), "examples": body})
        case 5:
            data = json.dumps({"signature_name": body, "instances": [1]})
        case 6:
            method = rng.choice(["PUT", "DELETE", "PATCH", "OPTIONS"])
            data = valid
        case 7:
            path = "/v1/" + requests.utils.quote(noise(rng, 200))
            data = valid
    response = session.request(method, url + path, data=data.encode(), timeout=20)
    assert 400 <= response.status_code < 500, (method, path, data[:200], response.text)
    assert set(response.json()) == {"error"}


def bad_http(rng, address):
    head = "POST /v1/models/tiny:predict HTTP/1.1\r\nHost: a\r\n"
    garbage = rng.randbytes(rng.randrange(5, 100)).replace(b"\n", b"\r")
    data = rng.choice(
        [
            b"\x00" + garbage + b"\r\n\r\n",
            f"{head}Content-Length: {rng.choice(['-1', '1e9', 'x', '', '1, 2'])}\r\n\r\n".encode(),
            f"{head}Content-Length: {10 ** rng.randrange(7, 30)}\r\n\r\n".encode(),
            f"{head}Transfer-Encoding: {noise(rng).strip() or 'x'}\r\n\r\n".encode(),
            f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
            f"{head}Transfer-Encoding: chunked\r\n\r\n{'ffff' * 4}\r\n".encode(),
            f"{head}X: {'y' * 100_000}\r\n\r\n".encode(),
            head.encode() + b"\x01" + garbage + b"\r\n\r\n",
        ]
    )
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            answer = connection.recv(100)
    assert not answer or answer.startswith(b"HTTP/1.1 4"), (data[:200], answer)


def test_malformed_requests_get_errors_and_leave_nothing_behind(tmp_path):
    rng = random.Random(0)  # noqa: S311
    base_path = tmp_path / "tiny"
    tiny_models.save(base_path, 1)
    with (
        LocalServer(base_path, max_request_bytes=MAX_BYTES) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
        requests.Session() as session,
    ):
        attacks = (
            lambda: bad_grpc(rng, channel),
            lambda: bad_rest(rng, server.rest_url, session),
            lambda: bad_http(rng, server.rest_url.removeprefix("http://")),
        )
        used = []
        for number in range(MALFORMED):
            attacks[number % 3]()
            if number % 100 == 99:
                used.append(resident())
        load = Load(server)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for ask in (load.by_grpc, load.by_heads, load.by_rest):
            assert ask(stub, session) == {1}

    assert used[-1] - used[1] < 30 * MIB, [size // MIB for size in used]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_the_command_serves_until_it_is_told_to_stop(tmp_path, number):
    tiny_models.save(tmp_path / "tiny", 1)
    command = ["-m", "mptrec_cli", "serving", "run", tmp_path / "tiny"]
    process = subprocess.Popen(
        [sys.executable, *command, "--grpc-port", "0", "--rest-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines[:2] == ["model  versions\n", "tiny   1\n"]
        url = lines[3].split()[1].replace("MODEL", "tiny")
        assert requests.get(url, timeout=10).json()["model_version_status"][0]["version"] == "1"
        process.send_signal(number)
        _, notes = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "production is TensorFlow Serving" in notes
    assert "model tiny: version 1 is served" in notes
    assert "Traceback" not in notes
