"""Start, limits, configuration and stop of a server."""

import threading
import time

import grpc
import pytest
import requests
import tensorflow as tf
import tiny_models
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.local import LocalServer
from mptrec_tf.serving.local.config import single_model
from mptrec_tf.serving.local.servable import Servable

CONFIG = "model_config_list {{ {} }}"
MODEL = "config {{ name: '{}' base_path: '{}' model_platform: 'tensorflow' }}"
BODY = {"signature_name": "click", "examples": [{"x": 64.0}]}


@pytest.fixture
def base_path(tmp_path):
    tiny_models.save(tmp_path / "tiny", 1)
    return tmp_path / "tiny"


def clicks(server, model="tiny"):
    url = f"{server.rest_url}/v1/models/{model}:regress"
    response = requests.post(url, json=BODY, timeout=10)
    return response.json().get("results", response.status_code)


def predict(address, value=b"", name="tiny"):
    request = predict_pb2.PredictRequest(model_spec={"name": name, "signature_name": "echo"})
    request.inputs["tags"].CopyFrom(tf.make_tensor_proto([[value]]))
    with grpc.insecure_channel(address) as channel:
        return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(
            request, timeout=10
        )


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_both_transports_answer_on_loopback_until_the_end(base_path):
    with LocalServer(base_path) as server:
        assert server.versions == {"tiny": [1]}
        assert server.grpc_address.startswith("127.0.0.1:")
        assert server.rest_url.startswith("http://127.0.0.1:")
        assert predict(server.grpc_address, b"a").outputs["tags"].string_val == [b"a"]
        assert clicks(server) == [2.0]
    with pytest.raises(grpc.RpcError):
        predict(server.grpc_address)
    with pytest.raises(requests.ConnectionError):
        clicks(server)
    assert server.versions == {"tiny": []}


def test_the_name_can_be_chosen(base_path):
    with LocalServer(base_path, name="census") as server:
        assert clicks(server, "census") == [2.0]
        assert clicks(server, "tiny") == 404


def test_new_versions_are_seen(base_path):
    with LocalServer(base_path, poll_seconds=0.02) as server:
        tiny_models.save(base_path, 2)
        until(lambda: server.versions == {"tiny": [2]})
        assert clicks(server) == [3.0]


def test_the_configuration_file_is_read_again(base_path, tmp_path):
    tiny_models.save(tmp_path / "other", 4)
    file = tmp_path / "models.config"
    file.write_text(CONFIG.format(MODEL.format("tiny", base_path)))
    with LocalServer(config_file=file, poll_seconds=0.02) as server:
        assert (clicks(server), clicks(server, "other")) == ([2.0], 404)
        file.write_text("model_config_list {")
        time.sleep(0.1)
        assert clicks(server) == [2.0]
        file.write_text(CONFIG.format(MODEL.format("other", tmp_path / "other")))
        until(lambda: server.versions == {"other": [4]})
        assert (clicks(server), clicks(server, "other")) == (404, [5.0])


def test_a_label_may_be_moved_before_its_version_has_arrived(base_path, tmp_path, caplog):
    file = tmp_path / "models.config"

    def move(version):
        label = f"version_labels {{ key: 'stable' value: {version} }}"
        policy = f"model_version_policy {{ all {{}} }} {label} }}"
        file.write_text(CONFIG.format(MODEL.format("tiny", base_path)[:-1] + policy))

    move(1)
    with LocalServer(config_file=file, poll_seconds=0.02) as server:

        def stable():
            url = f"{server.rest_url}/v1/models/tiny/labels/stable:regress"
            return requests.post(url, json=BODY, timeout=10).json()["results"]

        assert stable() == [2.0]
        move(2)
        until(lambda: "not taken" in caplog.text)
        time.sleep(0.2)
        assert caplog.text.count("not taken") == 1
        assert stable() == [2.0]
        tiny_models.save(base_path, 2)
        until(lambda: stable() == [3.0])


def test_the_configuration_can_be_sent(base_path, tmp_path):
    tiny_models.save(tmp_path / "other", 4)
    with (
        LocalServer(base_path) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = model_management_pb2.ReloadConfigRequest()
        request.config.CopyFrom(single_model("other", tmp_path / "other"))
        assert stub.HandleReloadConfigRequest(request).status.error_code == 0
        assert server.versions == {"other": [4]}
        request.config.model_config_list.config[0].name = "../other"
        with pytest.raises(grpc.RpcError) as raised:
            stub.HandleReloadConfigRequest(request)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "'../other'" in raised.value.details()
        assert server.versions == {"other": [4]}


def test_large_requests_are_refused_before_they_are_read(base_path):
    with LocalServer(base_path, max_request_bytes=10_000) as server:
        with pytest.raises(grpc.RpcError) as raised:
            predict(server.grpc_address, bytes(10_000))
        assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        url = f"{server.rest_url}/v1/models/tiny:predict"
        announced = requests.post(url, data=bytes(10_001), timeout=10)
        chunked = requests.post(url, data=iter([bytes(6_000)] * 2), timeout=10)
        for response in (announced, chunked):
            assert response.status_code == 413
            assert response.json() == {"error": "the request has more than 10000 bytes"}
        assert predict(server.grpc_address, bytes(5_000)).outputs
        assert clicks(server) == [2.0]


def test_requests_are_counted(base_path):
    with LocalServer(base_path) as server:
        for _ in range(3):
            predict(server.grpc_address)
        clicks(server)
        for name in ("nobody", "somebody"):
            with pytest.raises(grpc.RpcError):
                predict(server.grpc_address, name=name)
        lines = requests.get(
            f"{server.rest_url}/monitoring/prometheus/metrics", timeout=10
        ).text.splitlines()
    count, latency = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"
    labels = 'model_name="tiny",API="Predict",entrypoint="GRPC"'
    assert f'{count}{{model_name="tiny",status="OK"}} 4' in lines
    assert f'{count}{{model_name="",status="NOT_FOUND"}} 2' in lines
    assert f"{latency}_count{{{labels}}} 3" in lines
    assert f'{latency}_bucket{{{labels},le="+Inf"}} 3' in lines


def test_a_stop_waits_for_requests_under_way(base_path, monkeypatch):
    started = threading.Semaphore(0)
    real = Servable.run

    def slow(self, feeds, fetches):
        started.release()
        time.sleep(0.5)
        return real(self, feeds, fetches)

    monkeypatch.setattr(Servable, "run", slow)
    server = LocalServer(base_path).start()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(clicks(server))),
        threading.Thread(target=lambda: answers.append(predict(server.grpc_address))),
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=10)
    server.stop()
    for thread in threads:
        thread.join(10)
    assert [2.0] in answers
    assert len(answers) == 2
    assert server.versions == {"tiny": []}


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_port_in_use_is_named(base_path, transport):
    with LocalServer(base_path) as server:
        address = server.grpc_address if transport == "grpc" else server.rest_url
        port = int(address.rpartition(":")[2])
        with pytest.raises(ServingError, match=rf"cannot listen on 127.0.0.1:{port}: .*in use"):
            LocalServer(base_path, **{f"{transport}_port": port}).start()
        assert clicks(server) == [2.0]


def test_a_base_path_without_versions_says_why(tmp_path):
    with pytest.raises(ServingError, match=r"model gone: .*: there is no such directory"):
        LocalServer(tmp_path / "gone").start()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ServingError, match="no directory there has an integer name"):
        LocalServer(tmp_path / "empty").start()
    (tmp_path / "broken" / "3").mkdir(parents=True)
    with pytest.raises(ServingError, match="can be served: 3: SavedModel file does not exist at"):
        LocalServer(tmp_path / "broken").start()


def test_arguments_that_contradict_each_other_are_refused(base_path, tmp_path):
    with pytest.raises(ServingError, match="either base_path or config_file"):
        LocalServer()
    with pytest.raises(ServingError, match="either base_path or config_file"):
        LocalServer(base_path, config_file=tmp_path / "models.config")
    with pytest.raises(ServingError, match="name goes with base_path"):
        LocalServer(config_file=tmp_path / "models.config", name="tiny")
    with pytest.raises(ServingError, match="a model is named with letters"):
        LocalServer(base_path, name="../tiny")
