"""The push: versions in order, none by halves, and none that takes tasks from what is served."""

import json
import os
import signal
import subprocess
import sys
import threading

import pipeline_models as models
import pytest
from google.protobuf import json_format
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts as artifacts

from mptrec_tf import Task, load_model
from mptrec_tf.errors import PipelineError, ServingError
from mptrec_tf.serving import Manifest, check
from mptrec_tf.serving.exporting.versions import publish, staging, versions
from pipelines.components.pusher import PUSHED_FILE, PusherExecutor, push

CUT_OFF = """
import sys, time
import tensorflow as tf
from pipelines.components.pusher import push

copy, copied = tf.io.gfile.copy, []

def stall(source, target, **kwargs):
    copied.append(target)
    if len(copied) == 4:
        with open(source, "rb") as whole, open(target, "wb") as half:
            half.write(whole.read(10))
        print("in the middle", flush=True)
        time.sleep(3600)
    return copy(source, target, **kwargs)

tf.io.gfile.copy = stall
push(*sys.argv[1:])
"""


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return models.make_stages(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def other(stages, tmp_path_factory):
    """URI of a model with another task, on the same base, as another run would make it."""
    model = load_model(stages.base_file)
    model.add_task(Task("rent", "buy"), tower_units=(4,))
    return models.write(model, tmp_path_factory.mktemp("models") / "other")


def run_pusher(uri, base_path, directory, *, blessed=1, custom_config=None):
    """What the stock Pusher does with the executor, and the artifact that it fills in."""
    model, blessing, pushed = (
        kind() for kind in (artifacts.Model, artifacts.ModelBlessing, artifacts.PushedModel)
    )
    model.uri, pushed.uri = str(uri), str(directory)
    blessing.set_int_custom_property("blessed", blessed)
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(base_path))
    )
    PusherExecutor().Do(
        {"model": [model], "model_blessing": [blessing]},
        {"pushed_model": [pushed]},
        {
            "push_destination": json_format.MessageToJson(destination),
            "custom_config": json.dumps(custom_config),
        },
    )
    return pushed


def serving_of(uri):
    return str(uri / models.SERVING)


def test_models_become_versions_in_order(stages, tmp_path):
    base_path = tmp_path / "serving"
    for number, uri in enumerate((stages.base, stages.candidate), start=1):
        pushed = run_pusher(uri, base_path, tmp_path)
        path = str(base_path / str(number))
        assert pushed.get_int_custom_property("pushed") == 1
        assert pushed.get_string_custom_property("pushed_version") == str(number)
        assert pushed.get_string_custom_property("pushed_destination") == path
        told = json.loads((tmp_path / PUSHED_FILE).read_text())
        assert told == {"version": number, "destination": path}
    assert sorted(child.name for child in base_path.iterdir()) == ["1", "2"]
    assert Manifest.read(base_path / "2").parent_version == 1
    assert not [finding for finding in check(base_path / "2", ["c_api"]) if finding.problem]


def test_a_model_that_is_not_blessed_is_not_pushed(stages, tmp_path):
    pushed = run_pusher(stages.base, tmp_path / "serving", tmp_path, blessed=0)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not (tmp_path / "serving").exists()


def test_a_push_that_is_repeated_gives_one_version(stages, tmp_path):
    base_path = tmp_path / "serving"
    for uri, version in ((stages.base, "1"), (stages.candidate, "2")):
        for _ in range(2):
            pushed = run_pusher(uri, base_path, tmp_path)
            assert pushed.get_string_custom_property("pushed_version") == version
    assert versions(base_path) == [1, 2]


@pytest.mark.parametrize("stage", ["base", "candidate"])
def test_a_push_that_was_killed_leaves_no_version_and_can_be_repeated(stages, stage, tmp_path):
    uri, base_path = getattr(stages, stage), tmp_path / "serving"
    expected = []
    if stage == "candidate":
        push(serving_of(stages.base), str(base_path))
        expected = [1]
    process = subprocess.Popen(
        [sys.executable, "-c", CUT_OFF, serving_of(uri), str(base_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "in the middle\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (half,) = (child for child in base_path.iterdir() if child.name.startswith(".staging-"))
    assert sum(file.is_file() for file in half.rglob("*")) == 4
    assert versions(base_path) == expected

    path = push(serving_of(uri), str(base_path))
    assert versions(base_path) == [*expected, len(expected) + 1]
    assert not [finding for finding in check(path, ["c_api"]) if finding.problem]


def test_a_version_that_was_pushed_meanwhile_keeps_its_tasks(stages, other, tmp_path):
    base_path = tmp_path / "serving"
    for uri in (stages.base, other):
        run_pusher(uri, base_path, tmp_path)
    message = r"version 2 with the tasks \['click', 'visits', 'color', 'rent'\] was pushed"
    with pytest.raises(PipelineError, match=message):
        run_pusher(stages.candidate, base_path, tmp_path)
    assert versions(base_path) == [1, 2]

    # A run that the user began from an older version is another matter.
    pinned = {"base_is_pinned": True}
    for _ in range(2):
        pushed = run_pusher(stages.candidate, base_path, tmp_path, custom_config=pinned)
        assert pushed.get_string_custom_property("pushed_version") == "3"
    assert Manifest.read(base_path / "3").parent_version == 1
    # And a model of stage 1 begins anew.
    pushed = run_pusher(stages.base, base_path, tmp_path)
    assert pushed.get_string_custom_property("pushed_version") == "4"


def test_of_two_models_pushed_at_once_one_is_refused(stages, other, tmp_path):
    base_path = tmp_path / "serving"
    push(serving_of(stages.base), str(base_path))
    errors, barrier = [], threading.Barrier(2)

    def work(uri):
        barrier.wait()
        try:
            push(serving_of(uri), str(base_path))
        except (PipelineError, ServingError) as error:
            errors.append(str(error))

    threads = [threading.Thread(target=work, args=(uri,)) for uri in (stages.candidate, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions(base_path) == [1, 2]
    (error,) = errors
    assert "version 2" in error


def test_the_first_version_may_be_of_stage_2(stages, tmp_path):
    assert push(serving_of(stages.candidate), str(tmp_path)) == tmp_path / "1"


def test_what_cannot_be_pushed_is_named(stages, tmp_path):
    with pytest.raises(ServingError, match="nowhere has no"):
        push(str(tmp_path / "nowhere"), str(tmp_path / "serving"))
    with pytest.raises(ServingError, match="gs://bucket/serving: versions are published"):
        push(serving_of(stages.base), "gs://bucket/serving")
    with staging(tmp_path) as directory:
        (directory / "saved_model.pb").write_text("of something else")
        publish(directory, tmp_path, 3, lambda number: None)
    with pytest.raises(ServingError, match=r"3 has no assets\.extra/manifest\.json"):
        push(serving_of(stages.candidate), str(tmp_path))
