"""Which versions are served when the disk or the configuration changes."""

import shutil

import numpy as np
import pytest
import tiny_models
from google.protobuf import text_format
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.files import read_models
from mptrec_tf.serving.local.config import read_config, single_model
from mptrec_tf.serving.local.errors import RequestError
from mptrec_tf.serving.local.manager import Manager


@pytest.fixture
def base_path(tmp_path):
    return tmp_path / "tiny"


def config_of(base_path, *parts, name="tiny"):
    text = "\n".join(
        [f"name: '{name}'", f"base_path: '{base_path}'", "model_platform: 'tensorflow'", *parts]
    )
    return text_format.Parse(f"model_config_list {{ config {{ {text} }} }}", ModelServerConfig())


def served(manager, name="tiny"):
    model = manager.models.get(name)
    return model.available() if model else []


def states(manager, name="tiny"):
    request = GetModelStatusRequest(model_spec={"name": name})
    return {
        one.version: ModelVersionStatus.State.Name(one.state)
        for one in manager.status(request).model_version_status
    }


def version_for(manager, **spec):
    with manager.lease(ModelSpec(name="tiny", **spec)) as servable:
        return servable.version


def error_for(manager, **spec):
    with pytest.raises(RequestError) as raised:
        version_for(manager, **spec)
    return raised.value.code.name, raised.value.message


def specific(*versions):
    numbers = " ".join(f"versions: {version}" for version in versions)
    return f"model_version_policy {{ specific {{ {numbers} }} }}"


def label(name, version):
    return f"version_labels {{ key: '{name}' value: {version} }}"


def test_the_latest_version_is_served_and_the_older_one_ends(base_path):
    tiny_models.save(base_path, 2)
    manager = Manager(single_model("tiny", base_path))
    assert served(manager) == [2]
    tiny_models.save(base_path, 10)
    tiny_models.save(base_path, 1)
    manager.poll()
    assert served(manager) == [10]
    assert states(manager) == {2: "END", 10: "AVAILABLE"}
    assert error_for(manager, version={"value": 2}) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(tiny, 2)",
    )


def test_a_request_keeps_the_version_that_it_began_with(base_path):
    tiny_models.save(base_path, 1)
    manager = Manager(single_model("tiny", base_path))
    with manager.lease(ModelSpec(name="tiny")) as servable:
        tiny_models.save(base_path, 2)
        manager.poll()
        assert version_for(manager) == 2
        assert states(manager) == {1: "UNLOADING", 2: "AVAILABLE"}
        outputs = servable.signatures["click"].outputs
        inputs = servable.signatures["click"].inputs
        examples = np.array([tiny_models.example(64.0).SerializeToString()], object)
        fetched = servable.run({inputs["inputs"].name: examples}, [outputs["outputs"].name])
        assert fetched[outputs["outputs"].name].tolist() == [2.0]
    assert states(manager) == {1: "END", 2: "AVAILABLE"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", [12]),
        ("model_version_policy { latest { num_versions: 2 } }", [3, 12]),
        ("model_version_policy { all {} }", [1, 3, 12]),
        (specific(1, 3, 7), [1, 3]),
    ],
    ids=["default", "latest", "all", "specific"],
)
def test_policies(base_path, policy, expected):
    for version in (1, 3, 12):
        tiny_models.save(base_path, version)
    assert served(Manager(config_of(base_path, policy))) == expected


def test_only_directories_with_integer_names_are_versions(base_path):
    tiny_models.save(base_path, 1)
    for name in ("-2", "3.0", "4a", "²", ".staging-5", str(2**63)):
        tiny_models.save(base_path, 5, name=name)
    (base_path / "6").write_text("no directory")
    tiny_models.save(base_path, 7, name="007")
    manager = Manager(config_of(base_path, "model_version_policy { all {} }"))
    assert served(manager) == [1, 7]


def test_a_version_that_fails_leaves_the_older_one_and_is_tried_again_when_it_changes(base_path):
    tiny_models.save(base_path, 1)
    manager = Manager(single_model("tiny", base_path))
    shutil.copytree(base_path / "1", base_path / "2", ignore=shutil.ignore_patterns("*.pb"))
    manager.poll()
    assert version_for(manager) == 1
    assert states(manager) == {1: "AVAILABLE", 2: "END"}
    failed = manager.models["tiny"].statuses()[2].status
    assert failed.error_code == 5
    assert f"SavedModel file does not exist at: {base_path / '2'}" in failed.error_message
    manager.poll()
    assert manager.models["tiny"].statuses()[2].status == failed
    shutil.copy(base_path / "1" / "saved_model.pb", base_path / "2")
    manager.poll()
    assert served(manager) == [2]
    assert not manager.models["tiny"].statuses()[2].status.error_message


def test_a_version_that_comes_back_is_served_again(base_path):
    tiny_models.save(base_path, 1)
    tiny_models.save(base_path, 2)
    manager = Manager(single_model("tiny", base_path))
    (base_path / "2").rename(base_path / "away")
    manager.poll()
    assert served(manager) == [1]
    (base_path / "away").rename(base_path / "2")
    manager.poll()
    assert served(manager) == [2]


def test_versions_stay_when_the_base_path_cannot_be_read(base_path):
    tiny_models.save(base_path, 1)
    manager = Manager(single_model("tiny", base_path))
    base_path.rename(base_path.with_name("away"))
    manager.poll()
    assert served(manager) == [1]


def test_versions_go_when_the_base_path_is_empty(base_path):
    tiny_models.save(base_path, 1)
    manager = Manager(single_model("tiny", base_path))
    shutil.rmtree(base_path / "1")
    manager.poll()
    assert served(manager) == []
    assert error_for(manager) == ("NOT_FOUND", "Servable not found for request: Latest(tiny)")


def test_a_label_moves_in_two_steps(base_path):
    tiny_models.save(base_path, 1)
    tiny_models.save(base_path, 2)
    manager = Manager(config_of(base_path, specific(1), label("stable", 1)))
    assert version_for(manager, version_label="stable") == 1
    with pytest.raises(RequestError, match="assign label to version 2 of model tiny, which is not"):
        manager.reload(config_of(base_path, specific(1, 2), label("stable", 2)))
    assert served(manager) == [1]
    manager.reload(config_of(base_path, specific(1, 2), label("stable", 1)))
    manager.reload(config_of(base_path, specific(1, 2), label("stable", 2)))
    assert version_for(manager, version_label="stable") == 2
    assert error_for(manager, version_label="canary") == (
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: canary",
    )


def test_a_label_of_a_version_that_went_is_not_found(base_path):
    tiny_models.save(base_path, 1)
    manager = Manager(config_of(base_path, label("stable", 1)))
    tiny_models.save(base_path, 2)
    manager.poll()
    assert error_for(manager, version_label="stable") == (
        "NOT_FOUND",
        "Servable not found for request: Specific(tiny, 1)",
    )


def test_a_label_at_the_start_needs_a_version_that_loads(base_path):
    tiny_models.save(base_path, 1)
    with pytest.raises(ServingError, match="label to version 2 of model tiny"):
        Manager(config_of(base_path, label("stable", 2)))


def test_a_reload_replaces_all(base_path, tmp_path):
    tiny_models.save(base_path, 1)
    tiny_models.save(tmp_path / "other", 5)
    manager = Manager(single_model("tiny", base_path))
    manager.reload(config_of(tmp_path / "other", name="other"))
    assert list(manager.models) == ["other"]
    assert served(manager, "other") == [5]
    assert states(manager) == {1: "END"}
    assert error_for(manager) == ("NOT_FOUND", "Servable not found for request: Latest(tiny)")
    manager.reload(single_model("tiny", base_path))
    assert states(manager) == {1: "AVAILABLE"}


def test_a_reload_says_that_a_new_model_has_no_version(base_path, tmp_path):
    tiny_models.save(base_path, 1)
    manager = Manager(single_model("tiny", base_path))
    config = single_model("tiny", base_path)
    config.model_config_list.config.add(
        name="other", base_path=str(tmp_path / "nowhere"), model_platform="tensorflow"
    )
    with pytest.raises(RequestError, match=r"1 model\(s\) did not become available: other"):
        manager.reload(config)
    assert version_for(manager) == 1


def test_a_closed_manager_serves_nothing(base_path):
    tiny_models.save(base_path, 1)
    manager = Manager(single_model("tiny", base_path))
    manager.close()
    assert states(manager) == {1: "END"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\\b", "a:b", "a\n", "\x00", " "])
def test_names_with_parts_of_paths_are_refused(base_path, name):
    with pytest.raises(ServingError, match="a model is named with letters"):
        single_model(name, base_path)


def test_an_empty_configuration_serves_nothing_until_there_are_models(base_path):
    tiny_models.save(base_path, 1)
    manager = Manager(ModelServerConfig())
    manager.reload(ModelServerConfig())
    assert served(manager) == []
    manager.reload(config_of(base_path))
    # A file that is just being written must not unload all.
    with pytest.raises(RequestError, match="Cannot transition to requested config"):
        manager.reload(ModelServerConfig())
    assert served(manager) == [1]


def test_a_url_is_refused_here_and_not_by_a_server(tmp_path):
    file = tmp_path / "models.config"
    file.write_text(text_format.MessageToString(config_of("gs://bucket/tiny")))
    assert read_models(file).base_path("tiny") == "gs://bucket/tiny"
    with pytest.raises(ServingError, match=r"models.config: .*'tiny' is a URL.*'gs://bucket/tiny'"):
        read_config(file)
