"""What a client does over gRPC and REST alike."""

import socket
import threading
import time

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from mptrec_client import (
    Client,
    ClientError,
    DeadlineExceededError,
    NotFoundError,
    RowError,
    ServerError,
    UnavailableError,
)

ROWS = [
    {"id": 7, "age": 31.5, "city": "Malmö", "tags": ["a", "b"]},
    {"id": 8, "age": None, "city": "", "tags": []},
    {"id": 9, "age": "40", "city": 3.0, "tags": [1]},
]
CLICK = [63, -1, 80]
KIND = [[6, 2, 3], [0, 0, 3], [1, 1, 3]]


@pytest.fixture(name="client")
def connected_client(model, serving):
    with serving(model) as address, Client(address, "census") as client:
        yield client


def test_predictions_of_all_tasks_in_the_order_of_the_rows(client):
    predictions = client.predict(ROWS)
    assert list(predictions) == ["click", "kind"]
    assert all(array.dtype == np.float32 for array in predictions.values())
    np.testing.assert_array_equal(predictions["click"], CLICK)
    np.testing.assert_array_equal(predictions["kind"], KIND)


def test_a_frame_is_predicted_as_its_rows(client):
    predictions = client.predict(pd.DataFrame(ROWS))
    np.testing.assert_array_equal(predictions["click"], CLICK)
    np.testing.assert_array_equal(predictions["kind"], KIND)


@pytest.mark.parametrize("separators", [{"tags": "|"}, "|"], ids=str)
def test_text_is_split_by_the_separators_of_the_client(separators, model, serving):
    rows = pd.DataFrame(ROWS).assign(tags=["a|b", "", "1"])
    with serving(model) as address, Client(address, "census", separators=separators) as client:
        np.testing.assert_array_equal(client.predict(rows)["kind"], KIND)


@pytest.mark.parametrize("separators", [{"tags": ""}, ""], ids=str)
def test_an_empty_separator_is_refused(separators):
    with pytest.raises(ClientError, match=f"separator should not be empty.*{separators!r}"):
        Client("http://localhost:1", "census", separators=separators)


@pytest.mark.parametrize("tasks", [["kind"], ["click"], ["kind", "click"]], ids=str)
def test_some_tasks_are_those_of_all(client, tasks):
    predictions = client.predict(ROWS, tasks)
    assert list(predictions) == tasks
    for task in tasks:
        np.testing.assert_array_equal(predictions[task], {"click": CLICK, "kind": KIND}[task])


def test_many_rows_are_sent_in_batches(model, serving):
    rows = [{"age": age, "city": "", "tags": ["t"] * (age % 3)} for age in range(25)]
    with serving(model) as address, Client(address, "census", batch_size=10) as client:
        predictions = client.predict(rows)
        some = client.predict(rows, ["kind"])
    np.testing.assert_array_equal(predictions["click"], 2 * np.arange(25))
    np.testing.assert_array_equal(predictions["kind"][:, 1], np.arange(25) % 3)
    np.testing.assert_array_equal(some["kind"], predictions["kind"])
    assert model.count("predict") + model.count("multi_inference") == 6


def test_no_rows_are_no_request(client, model):
    predictions = client.predict([])
    assert {task: array.shape for task, array in predictions.items()} == {
        "click": (0,),
        "kind": (0, 3),
    }
    assert [api for api, _ in model.asked] == ["metadata"]


def test_metadata_are_asked_for_once(client, model):
    for _ in range(3):
        client.predict(ROWS)
    assert model.count("metadata") == 1
    assert model.count("predict") == 3


def test_wrong_rows_are_refused_before_any_is_sent(client, model):
    with pytest.raises(RowError, match="row 1: column 'age' should hold numbers, but has 'old'"):
        client.predict([ROWS[0], {**ROWS[1], "age": "old"}])
    assert model.count("predict") == 0


def test_wrong_rows_are_told_also_where_the_server_is_gone(model, serving):
    with serving(model) as address:
        client = Client(address, "census", retries=0)
        client.metadata()
    with client, pytest.raises(RowError, match="column 'age' should hold numbers, but has 'old'"):
        client.predict([{**ROWS[0], "age": "old"}])


def test_an_unknown_task_is_named_with_the_one_that_was_meant(client):
    with pytest.raises(ClientError, match=r"no task 'clik' \(did you mean 'click'\?\)"):
        client.predict(ROWS, ["clik"])


def test_no_tasks_are_refused(client):
    with pytest.raises(ClientError, match="at least one task"):
        client.predict(ROWS, [])


def test_a_model_without_the_signature_of_columns_is_no_export(client, model):
    signatures = model.signatures()
    del signatures.signature_def["columns"]
    model.signatures = lambda: signatures
    with pytest.raises(ClientError, match=r"version 3 has no signature 'columns'.*'click', 'kind'"):
        client.predict(ROWS)


@pytest.mark.parametrize("choice", [{"version": 3}, {"label": "stable"}], ids=str)
def test_a_version_or_label_is_asked(model, serving, choice):
    with serving(model) as address, Client(address, "census", **choice) as client:
        client.wait_until_available(5)
        np.testing.assert_array_equal(client.predict(ROWS)["click"], CLICK)
        np.testing.assert_array_equal(client.predict(ROWS, ["kind"])["kind"], KIND)
        model.version, model.labels = 4, {"stable": 4}
        if "label" in choice:
            assert client.predict(ROWS)["kind"][0, 2] == 4
        else:
            with pytest.raises(NotFoundError, match="Servable not found"):
                client.predict(ROWS)


def test_another_model_is_not_found(model, serving):
    with serving(model) as address, Client(address, "cencus") as client:
        with pytest.raises(NotFoundError, match="Servable not found") as caught:
            client.predict(ROWS)
        assert caught.value.code == "NOT_FOUND"
        assert not caught.value.retryable
        with pytest.raises(NotFoundError, match="Could not find any versions"):
            client.status()


def test_a_new_version_with_another_input_is_learned(client, model):
    client.predict(ROWS)
    model.version = 4
    model.inputs["job"] = (tf.string, 1)
    rows = [{**row, "job": "cook"} for row in ROWS]
    np.testing.assert_array_equal(client.predict(rows)["kind"][:, 2], [4, 4, 4])
    assert model.count("metadata") == 2


def test_a_new_version_without_an_input_is_learned(client, model):
    model.inputs["job"] = (tf.string, 1)
    client.predict([{**row, "job": "cook"} for row in ROWS])
    model.version = 4
    del model.inputs["job"]
    np.testing.assert_array_equal(client.predict(ROWS)["kind"][:, 2], [4, 4, 4])


@pytest.mark.parametrize("tasks", [None, ["new"], ["click", "new"]], ids=str)
def test_a_new_version_with_another_task_is_learned(client, model, tasks):
    client.predict(ROWS)
    model.version, model.outputs = 4, {"click": 1, "kind": 2, "new": 1}
    predictions = client.predict(ROWS, tasks)
    assert list(predictions) == (tasks or ["click", "kind", "new"])
    np.testing.assert_array_equal(predictions["new"], CLICK)


def test_a_lone_task_has_its_name(model, serving):
    model.outputs = {"kind": 2}
    with serving(model) as address, Client(address, "census") as client:
        predictions = client.predict(ROWS)
    assert list(predictions) == ["kind"]
    np.testing.assert_array_equal(predictions["kind"], KIND)


def test_a_wrong_answer_is_refused(client, model):
    model.scores = lambda rows: {"click": np.zeros(2, np.float32), "kind": np.zeros((2, 3), "f")}
    with pytest.raises(ServerError, match=r"should have 3 rows.*\(2,\)") as caught:
        client.predict(ROWS)
    assert caught.value.code == "INTERNAL"


def test_an_unavailable_server_is_asked_again(client, model):
    model.failures = ["UNAVAILABLE", "UNAVAILABLE"]
    np.testing.assert_array_equal(client.predict(ROWS)["click"], CLICK)
    assert [api for api, _ in model.asked] == ["metadata"] * 3 + ["predict"]


def test_retries_end(model, serving):
    with serving(model) as address, Client(address, "census", retries=2) as client:
        client.metadata()
        model.failures = ["UNAVAILABLE"] * 9
        with pytest.raises(UnavailableError, match="as the test wants it") as caught:
            client.predict(ROWS)
    assert caught.value.retryable
    assert model.count("predict") == 3


@pytest.mark.parametrize(
    "code", ["DEADLINE_EXCEEDED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"]
)
def test_nothing_else_is_sent_again(client, model, code):
    client.metadata()
    model.failures = [code]
    with pytest.raises(ServerError, match="as the test wants it") as caught:
        client.predict(ROWS)
    assert caught.value.code == code
    assert not caught.value.retryable
    assert model.count("predict") == 1


def test_the_deadline_covers_slow_answers(client, model):
    client.metadata()
    model.delay = 3
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        client.predict(ROWS, timeout=0.3)
    assert time.monotonic() - start < 2
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert model.count("predict") == 1


def test_the_deadline_covers_retries(model, serving):
    with serving(model) as address, Client(address, "census", retries=1000) as client:
        model.failures = ["UNAVAILABLE"] * 1000
        start = time.monotonic()
        with pytest.raises(UnavailableError):
            client.predict(ROWS, timeout=0.5)
    assert time.monotonic() - start < 2
    assert 2 <= model.count("metadata") <= 9  # at least 0.05 + 0.1 + 0.2 + ... seconds apart


def test_the_deadline_covers_all_batches(model, serving):
    with serving(model) as address, Client(address, "census", batch_size=1) as client:
        client.metadata()
        model.delay = 0.2
        with pytest.raises(DeadlineExceededError):
            client.predict(ROWS * 4, timeout=0.5)
    assert model.count("predict") <= 3


def test_the_status_tells_states(client, model):
    (status,) = client.status()
    assert (status.version, status.state, status.error) == (3, "AVAILABLE", "")
    model.state = "LOADING"
    assert [str(status) for status in client.status()] == ["version 3 LOADING (not yet)"]


def test_the_metadata_tell_inputs_and_outputs(client):
    metadata = client.metadata()
    assert metadata.version == 3
    inputs = metadata.signatures["columns"].inputs
    assert {name: (info.dtype, info.shape) for name, info in inputs.items()} == {
        "age": ("DT_FLOAT", (-1,)),
        "city": ("DT_STRING", (-1,)),
        "tags": ("DT_STRING", (-1, -1)),
    }
    assert metadata.signatures["kind"].method == "tensorflow/serving/classify"


def test_waits_until_the_version_is_loaded(client, model):
    model.state = "LOADING"
    threading.Timer(0.8, setattr, (model, "state", "AVAILABLE")).start()
    client.wait_until_available(10)
    assert model.count("status") >= 2
    client.predict(ROWS)
    assert model.count("metadata") == 1


def test_waits_until_the_label_is_set(model, serving):
    with serving(model) as address, Client(address, "census", label="canary") as client:
        threading.Timer(0.8, model.labels.__setitem__, ("canary", 3)).start()
        client.wait_until_available(10)
        np.testing.assert_array_equal(client.predict(ROWS)["click"], CLICK)


def test_waits_for_a_server_that_starts(model, serving):
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    scheme = "grpc" if serving.__name__.endswith("grpc") else "http"
    with Client(f"{scheme}://localhost:{port}", "census") as client:
        with pytest.raises(UnavailableError):
            client.predict(ROWS, timeout=0.2)
        started = threading.Event()

        def serve():
            time.sleep(0.6)
            with serving(model, port=port):
                started.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            client.wait_until_available(20)
            np.testing.assert_array_equal(client.predict(ROWS)["click"], CLICK)
        finally:
            started.set()
            thread.join()


@pytest.mark.parametrize(
    ("state", "label", "seen"),
    [
        ("LOADING", None, r"model 'census' is not .* last seen: version 3 LOADING \(not yet\)"),
        ("AVAILABLE", "canary", r"label 'canary' is not .* Unrecognized servable version label"),
    ],
    ids=["state", "label"],
)
def test_waiting_ends_with_the_last_state_seen(model, serving, state, label, seen):
    model.state = state
    with (
        serving(model) as address,
        Client(address, "census", label=label) as client,
        pytest.raises(DeadlineExceededError, match=seen),
    ):
        client.wait_until_available(0.4)


def test_a_last_request_that_is_cut_off_does_not_hide_the_state(client, model):
    model.state = "LOADING"
    threading.Timer(0.3, setattr, (model, "delay", 3)).start()
    with pytest.raises(DeadlineExceededError, match="last seen: version 3 LOADING"):
        client.wait_until_available(0.8)
    assert model.count("status") == 2


def test_waiting_ends_at_once_where_it_cannot_help(client, model):
    model.failures = ["PERMISSION_DENIED"]
    with pytest.raises(ServerError, match="PERMISSION_DENIED"):
        client.wait_until_available(60)


def test_headers_are_sent_with_each_request(model, serving):
    headers = {"Authorization": "Bearer abc"}
    with serving(model) as address, Client(address, "census", headers=headers) as client:
        client.wait_until_available(5)
        client.predict(ROWS)
    assert len(model.headers) == 3
    assert all(sent["authorization"] == "Bearer abc" for sent in model.headers)


def test_threads_share_a_client(client):
    failures = []

    def ask(age):
        rows = [{"age": age, "city": "", "tags": []}] * (age + 1)
        for _ in range(20):
            if client.predict(rows)["click"].tolist() != [2 * age] * (age + 1):
                failures.append(age)

    threads = [threading.Thread(target=ask, args=(age,)) for age in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_closed_client_says_so(client):
    client.predict(ROWS)
    client.close()
    with pytest.raises(ClientError, match="the client is closed"):
        client.predict(ROWS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"address": "localhost:8500"}, "the address should be like grpc://host:8500"),
        ({"address": "http://"}, "the address should be like grpc://host:8500"),
        ({"address": "http://localhost:abc"}, "the address is wrong: Port could not be cast"),
        ({"address": "grpc://localhost:99999"}, "the address is wrong: Port out of range"),
        ({"address": "http://[::1"}, "the address is wrong: Invalid IPv6"),
        ({"address": "grpc://localhost"}, "a gRPC address is a host and a port"),
        ({"address": "grpc://localhost:1/v1"}, "a gRPC address is a host and a port"),
        ({"version": 1, "label": "a"}, "give version or label, not both"),
        ({"batch_size": 0}, "batch_size should be at least 1"),
        ({"ca_certificate": "ca.pem"}, "certificates need http.?s://"),
    ],
    ids=[
        "scheme",
        "host",
        "text",
        "large",
        "bracket",
        "port",
        "path",
        "both",
        "batch",
        "certificate",
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ClientError, match=message):
        Client(**{"address": "http://localhost:1", "model": "census", **arguments})


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_certificate_that_is_not_there_is_named(scheme):
    with pytest.raises(ClientError, match=r"^ca\.pem: no such file"):
        Client(f"{scheme}://localhost:1", "census", ca_certificate="ca.pem")
