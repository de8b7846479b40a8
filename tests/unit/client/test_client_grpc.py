"""What goes over gRPC, and what may go wrong there."""

import subprocess
import sys

import grpc
import numpy as np
import pytest
import tensorflow as tf
from fake_serving import serving_grpc

from mptrec_client import Client, ServerError, UnavailableError

ROWS = [
    {"age": 0.1, "city": "Malmö", "tags": ["a", "b"]},
    {"age": None, "city": None, "tags": []},
]
BIG = [{"age": 1, "city": "x" * (5 << 20), "tags": []}]
"""More than the 4 MiB that gRPC allows by default."""


def last(model, api):
    return [request for name, request in model.asked if name == api][-1]


@pytest.mark.parametrize(
    ("choice", "version", "label"),
    [({}, 0, ""), ({"version": 3}, 3, ""), ({"label": "stable"}, 0, "stable")],
    ids=["latest", "version", "label"],
)
def test_predict_sends_columns(model, choice, version, label):
    with serving_grpc(model) as address, Client(address, "census", **choice) as client:
        client.predict(ROWS)
    request = last(model, "predict")
    spec = request.model_spec
    assert (spec.name, spec.signature_name) == ("census", "columns")
    assert (spec.version.value, spec.version_label) == (version, label)
    age, city, tags = (request.inputs[name] for name in ("age", "city", "tags"))
    assert age.dtype == tf.float32.as_datatype_enum
    assert age.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(age), np.array([0.1, np.nan], np.float32))
    assert list(city.string_val) == ["Malmö".encode(), b""]
    assert tf.make_ndarray(tags).tolist() == [[b"a", b"b"], [b"", b""]]
    assert len(request.inputs) == 3


def test_some_tasks_are_asked_by_multi_inference(model):
    model.outputs["new"] = 1
    with serving_grpc(model) as address, Client(address, "census", label="stable") as client:
        client.predict(ROWS, ["kind", "click"])
    request = last(model, "multi_inference")
    assert [(task.model_spec.signature_name, task.method_name) for task in request.tasks] == [
        ("kind", "tensorflow/serving/classify"),
        ("click", "tensorflow/serving/regress"),
    ]
    assert {task.model_spec.version_label for task in request.tasks} == {"stable"}
    first, second = (example.features.feature for example in request.input.example_list.examples)
    assert list(first["age"].float_list.value) == [np.float32(0.1)]
    assert list(first["city"].bytes_list.value) == ["Malmö".encode()]
    assert list(first["tags"].bytes_list.value) == [b"a", b"b"]
    assert np.isnan(second["age"].float_list.value).tolist() == [True]
    assert list(second["city"].bytes_list.value) == [b""]
    assert list(second["tags"].bytes_list.value) == []
    assert model.count("predict") == 0


def test_messages_may_be_larger_than_by_default(model):
    model.scores = lambda rows: {"click": np.ones(1, "f"), "kind": np.ones((1, 2 << 20), "f")}
    with serving_grpc(model) as address, Client(address, "census") as client:
        assert client.predict(BIG)["kind"].nbytes == 8 << 20


def test_a_message_over_the_limit_is_told_and_not_sent_again(model):
    with (
        serving_grpc(model) as address,
        Client(address, "census", max_message_bytes=1 << 20) as client,
    ):
        with pytest.raises(ServerError, match=r"smaller batch_size or a larger") as caught:
            client.predict(BIG)
        assert caught.value.code == "RESOURCE_EXHAUSTED"
        assert client.predict(ROWS)["click"].shape == (2,)
    assert model.count("predict") == 1


def test_tls_with_a_certificate_of_ones_own(model, certificate):
    (ours, key), (other, _) = certificate("server"), certificate("other")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), ours.read_bytes())])
    with serving_grpc(model, credentials) as address:
        with Client(address, "census", ca_certificate=str(ours)) as client:
            assert client.predict(ROWS)["kind"].shape == (2, 3)
        asked = len(model.asked)
        for ca_certificate in (str(other), None):
            client = Client(address, "census", ca_certificate=ca_certificate)
            with client, pytest.raises(UnavailableError, match=r"(?i)certificate"):
                client.predict(ROWS, timeout=1)
    assert len(model.asked) == asked


def test_tls_with_a_certificate_of_the_client(model, certificate):
    (ours, key), (theirs, their_key) = certificate("server"), certificate("client")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), ours.read_bytes())], theirs.read_bytes(), require_client_auth=True
    )
    options = {"ca_certificate": str(ours)}
    with serving_grpc(model, credentials) as address:
        with Client(address, "census", **options) as client, pytest.raises(UnavailableError):
            client.predict(ROWS, timeout=1)
        options["client_certificate"] = (str(theirs), str(their_key))
        with Client(address, "census", **options) as client:
            assert client.predict(ROWS)["kind"].shape == (2, 3)


def test_without_the_extra_the_error_tells_how_to_install_it():
    program = """if True:
        import sys
        sys.modules["grpc"] = None
        from mptrec_client import Client, ClientError
        try:
            Client("grpc://localhost:8500", "census")
        except ClientError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'mptrec-tf[serving]'" in done.stdout
