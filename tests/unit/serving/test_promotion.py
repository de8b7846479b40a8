"""Promotion and rollback against servers that load slowly, never, or really."""

import concurrent.futures
import contextlib
import time

import grpc
import pytest
import requests
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config import status
from mptrec_tf.serving.config.files import edit_models, read_models
from mptrec_tf.serving.config.promotion import move_label, promote, rollback
from mptrec_tf.serving.config.status import Servers
from mptrec_tf.serving.local import LocalServer

State = get_model_status_pb2.ModelVersionStatus


class SlowServer(model_service_pb2_grpc.ModelServiceServicer):
    """Reads the file at each question, as a polling server would, and loads at its own pace.

    Each version that the file has goes through `states`, one at each question, and stays in the
    last one.
    """

    def __init__(self, path, states):
        self.path, self.states, self.asked = path, states, 0

    def GetModelStatus(self, request, context):  # noqa: N802
        version = request.model_spec.version.value
        served = read_models(self.path)
        if version not in served.versions(request.model_spec.name):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find version {version}")
        state = self.states[min(self.asked, len(self.states) - 1)]
        self.asked += 1
        if state == grpc.StatusCode.UNAVAILABLE:
            context.abort(state, "starting")
        answer = get_model_status_pb2.GetModelStatusResponse()
        status = answer.model_version_status.add(version=version, state=state)
        if state == State.END:
            status.status.error_code = 5
            status.status.error_message = "no saved_model.pb"
        return answer


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(status, "INTERVAL", 0.05)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "models.config"
    with edit_models(path, create=True) as served:
        served.add_model("census", "/models/census", [1], {"stable": 1})
    return path


@contextlib.contextmanager
def running(path, *states):
    """A server and its address."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    service = SlowServer(path, states)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def state_of(path):
    served = read_models(path)
    return served.versions("census"), served.labels("census")


def test_a_version_is_promoted_once_all_servers_have_it(path):
    reports = []
    with (
        running(path, State.AVAILABLE) as (_, fast),
        running(path, State.START, State.LOADING, State.LOADING, State.AVAILABLE) as (slow, late),
    ):
        promote(path, "census", 2, Servers([fast, late], report=reports.append))
    assert slow.asked == 4
    assert state_of(path) == ([1, 2], {"stable": 2})
    prefix = "version 2 of 'census' at "
    assert reports == [
        f"{prefix}{fast}: AVAILABLE",
        *(f"{prefix}{late}: {state}" for state in ("START", "LOADING", "AVAILABLE")),
    ]


def test_the_label_does_not_move_while_the_version_is_loaded(path):
    seen = []
    with running(path, State.START, State.LOADING, State.AVAILABLE) as (_, address):
        servers = Servers([address], report=lambda text: seen.append((text, state_of(path))))
        promote(path, "census", 2, servers)
    assert [state for _, state in seen] == [([1, 2], {"stable": 1})] * 3


def test_a_server_that_fails_first_is_asked_again(path):
    states = (grpc.StatusCode.UNAVAILABLE, State.END, State.AVAILABLE)
    with running(path, *states) as (_, address):
        promote(path, "census", 2, Servers([address]))
    assert state_of(path) == ([1, 2], {"stable": 2})


@pytest.mark.parametrize(
    ("state", "named"),
    [(State.LOADING, "LOADING"), (State.END, "END (no saved_model.pb)")],
    ids=["loading", "failed"],
)
def test_a_version_that_never_comes_leaves_the_label(path, state, named):
    started = time.monotonic()
    with running(path, state) as (_, address), pytest.raises(ServingError) as error:
        promote(path, "census", 2, Servers([address], timeout=0.3))
    assert 0.3 <= time.monotonic() - started < 5
    assert f"version 2 of 'census' at {address} is not available after 0.3 s: {named}" in str(
        error.value
    )
    assert f"{path} is left with the label 'stable' where it was" in str(error.value)
    assert state_of(path) == ([1, 2], {"stable": 1})


def test_a_promotion_that_failed_can_be_run_again(path):
    with running(path, State.LOADING) as (service, address):
        with pytest.raises(ServingError):
            promote(path, "census", 2, Servers([address], timeout=0.1))
        service.states = [State.AVAILABLE]
        promote(path, "census", 2, Servers([address]))
    assert state_of(path) == ([1, 2], {"stable": 2})


def test_no_server_at_the_address(path):
    with pytest.raises(ServingError, match="UNAVAILABLE"):
        promote(path, "census", 2, Servers(["127.0.0.1:1"], timeout=0.2))
    assert state_of(path) == ([1, 2], {"stable": 1})


def test_a_version_that_the_file_does_not_serve_is_not_waited_for(path):
    with running(path, State.AVAILABLE) as (service, address):
        with pytest.raises(ServingError, match=r"models.config: .*among those that are served"):
            move_label(path, "census", "stable", 2, Servers([address]))
        with pytest.raises(ServingError, match="'a/b'"):
            promote(path, "census", 2, Servers([address]), label="a/b")
    assert service.asked == 0
    assert state_of(path) == ([1], {"stable": 1})


def test_a_trial_with_a_label_of_its_own(path):
    with running(path, State.AVAILABLE) as (_, address):
        promote(path, "census", 2, Servers([address]), label="canary")
        assert state_of(path) == ([1, 2], {"canary": 2, "stable": 1})
        promote(path, "census", 2, Servers([address]))
    assert state_of(path) == ([1, 2], {"canary": 2, "stable": 2})


def test_a_rollback(path):
    with edit_models(path) as served:
        served.add_version("census", 2)
        served.add_version("census", 3)
        served.set_label("census", "stable", 3)
    with running(path, State.AVAILABLE) as (service, address):
        rollback(path, "census", servers=Servers([address]))
        assert service.asked == 1
    assert state_of(path) == ([1, 2, 3], {"stable": 2})
    rollback(path, "census", 1)
    assert state_of(path) == ([1, 2, 3], {"stable": 1})
    with pytest.raises(ServingError, match=r"models.config: .*no version below 1"):
        rollback(path, "census")


def test_a_rollback_to_a_version_that_is_not_loaded(path):
    with edit_models(path) as served:
        served.add_version("census", 2)
        served.set_label("census", "stable", 2)
    with running(path, State.LOADING) as (_, address), pytest.raises(ServingError, match="LOADING"):
        rollback(path, "census", servers=Servers([address], timeout=0.1))
    assert state_of(path) == ([1, 2], {"stable": 2})


@pytest.mark.parametrize("address", ["localhost", "http://a:1", "a:b", ":8500", "a b:1", ""])
def test_what_is_no_address(address):
    with pytest.raises(ServingError, match="host:port"):
        Servers([address])


@pytest.mark.parametrize("address", ["localhost:8500", "10.0.0.1:8500", "[::1]:8500"])
def test_addresses(address):
    assert Servers([address]).addresses == [address]


def test_no_address_at_all():
    with pytest.raises(ServingError, match="none"):
        Servers([])


def version_of(url):
    """The version that answers at a URL, `None` if there is none."""
    answer = requests.get(f"{url}/metadata", timeout=10)
    return int(answer.json()["model_spec"]["version"]) if answer.ok else None


def becomes(url, version):
    deadline = time.monotonic() + 10
    while version_of(url) != version and time.monotonic() < deadline:
        time.sleep(0.05)
    return version_of(url) == version


def test_a_server_that_reads_the_file_answers_with_the_new_version(exported, tmp_path):
    path = tmp_path / "models.config"
    with edit_models(path, create=True) as served:
        served.add_model("shop", str(exported[0]), [1], {"stable": 1})
    with LocalServer(config_file=path, poll_seconds=0.1) as server:
        shop = f"{server.rest_url}/v1/models/shop"
        assert version_of(f"{shop}/labels/stable") == 1
        promote(path, "shop", 2, Servers([server.grpc_address]))
        assert becomes(f"{shop}/labels/stable", 2)
        assert version_of(f"{shop}/versions/1") == 1
        rollback(path, "shop", servers=Servers([server.grpc_address]))
        assert becomes(f"{shop}/labels/stable", 1)
        with edit_models(path) as served:
            served.retire("shop", 2)
        assert becomes(f"{shop}/versions/2", None)
        assert version_of(f"{shop}/labels/stable") == 1
