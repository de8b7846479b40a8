"""The model config file: what is in it, what is refused, and that a reader sees it whole."""

import os
import stat
import threading

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.files import edit_models, read_models, write_text
from mptrec_tf.serving.config.models import ServedModels
from mptrec_tf.serving.local.config import read_config

WRITTEN_BY_HAND = """\
# Two models, as an engineer would write them.
model_config_list {
  config {
    name: 'census' base_path: '/models/census' model_platform: 'tensorflow'
    model_version_policy { specific { versions: 3 versions: 1 } }
    version_labels { key: 'stable' value: 1 }
    version_labels { key: 'canary' value: 3 }
    logging_config { sampling_config { sampling_rate: 0.5 } }
  }
  config {
    name: 'ads' base_path: 'gs://bucket/ads' model_platform: 'tensorflow'
    model_version_policy { all {} }
    version_labels { key: 'old' value: 9 }
  }
}
"""


def census(versions=(1,), labels=None):
    served = ServedModels()
    served.add_model("census", "/models/census", versions, labels)
    return served


def parsed(served):
    """What a server would see."""
    return text_format.Parse(served.text(), ModelServerConfig()).model_config_list.config


def test_a_model_with_versions_and_labels():
    [model] = parsed(census([2, 1], {"stable": 1, "canary": 2}))
    assert model.name == "census"
    assert model.base_path == "/models/census"
    assert model.model_platform == "tensorflow"
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


def test_without_versions_the_highest_is_served():
    [model] = parsed(census([]))
    assert model.model_version_policy.WhichOneof("policy_choice") == "latest"
    assert model.model_version_policy.latest.num_versions == 1


def test_a_change_keeps_everything_else():
    served = ServedModels.parse(WRITTEN_BY_HAND)
    served.add_version("census", 2)
    before = text_format.Parse(WRITTEN_BY_HAND, ModelServerConfig()).model_config_list.config
    before[0].model_version_policy.specific.versions[:] = [1, 2, 3]
    assert parsed(served) == before


def test_both_steps_of_a_promotion_and_the_way_back():
    served = census([1], {"stable": 1})
    served.add_version("census", 2)
    assert (served.versions("census"), served.labels("census")) == ([1, 2], {"stable": 1})
    served.set_label("census", "stable", 2)
    assert (served.versions("census"), served.labels("census")) == ([1, 2], {"stable": 2})
    assert served.version_before("census", "stable") == 1
    served.retire("census", 1)
    assert (served.versions("census"), served.labels("census")) == ([2], {"stable": 2})


def test_a_rollback_leads_to_the_highest_version_below():
    assert census([1, 3, 5, 9], {"stable": 5}).version_before("census", "stable") == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.add_model("census", "/models/other"), "'census' is there already"),
        (lambda s: s.add_model("a/b", "/models/a"), "'a/b'"),
        (lambda s: s.add_model("..", "/models/a"), "'..'"),
        (lambda s: s.add_model("a:b", "/models/a"), "'a:b'"),
        (lambda s: s.add_model("", "/models/a"), "''"),
        (lambda s: s.add_model("ads", "models/ads"), "'models/ads'"),
        (lambda s: s.add_model("ads", "./ads"), "absolute path or a URL"),
        (lambda s: s.add_model("ads", "/ads", [0]), "whole number from 1. Received: 0"),
        (lambda s: s.add_model("ads", "/ads", [1.0]), "1.0"),
        (lambda s: s.add_model("ads", "/ads", [2**63]), str(2**63)),
        (lambda s: s.add_model("ads", "/ads", [1], {"stable": 2}), "[1]"),
        (lambda s: s.add_model("ads", "/ads", [], {"stable": 2}), "`specific`"),
        (lambda s: s.add_model("ads", "/ads", [1], {"a/b": 1}), "'a/b'"),
        (lambda s: s.add_version("cencus", 3), "did you mean 'census'?"),
        (lambda s: s.add_version("zzz", 3), "there are ['census', 'latest']"),
        (lambda s: s.add_version("census", 2), "serves version 2 already"),
        (lambda s: s.add_version("census", -1), "-1"),
        (lambda s: s.add_version("census", True), "True"),
        (lambda s: s.add_version("latest", 3), "`specific`"),
        (lambda s: s.set_label("census", "stable", 3), "version 3: it is not among"),
        (lambda s: s.set_label("census", "sta ble", 2), "'sta ble'"),
        (lambda s: s.version_before("census", "stabel"), "['stable']"),
        (lambda s: s.version_before("census", "stable"), "no version below 1"),
        (lambda s: s.retire("census", 1), "['stable']"),
        (lambda s: s.retire("census", 3), "does not serve version 3; it serves [1, 2]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "change",
)
def test_what_is_refused_changes_nothing(change, named):
    served = census([1, 2], {"stable": 1})
    served.add_model("latest", "s3://bucket/latest")
    before = served.text()
    with pytest.raises(ServingError) as error:
        change(served)
    assert named in str(error.value)
    assert served.text() == before


def test_the_last_version_stays():
    with pytest.raises(ServingError, match="version 1 is the last"):
        census([1]).retire("census", 1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model_config_list {", '1:19 : Expected "}"'),
        ("model_config_list { config { nme: 'a' } }", "nme"),
        (WRITTEN_BY_HAND.replace("/models/census", "census"), "'census' is resolved by the server"),
        (WRITTEN_BY_HAND.replace("'ads'", "'census'"), "'census' is there more than once"),
        (WRITTEN_BY_HAND.replace("'ads'", "'../ads'"), "'../ads'"),
        (WRITTEN_BY_HAND.replace("'tensorflow'", "'tensorfow'"), "of 'census' is 'tensorfow'"),
        (WRITTEN_BY_HAND.replace("model_platform: 'tensorflow'", ""), "of 'census' is ''"),
        (WRITTEN_BY_HAND.replace("name:", "model_type: TENSORFLOW name:"), "of 'census' is"),
        (WRITTEN_BY_HAND.replace("value: 1", "value: 2"), "'stable' of 'census'"),
        ("custom_model_config { type_url: 'x' }", "custom_model_config"),
    ],
    ids=[
        *("half", "unknown field", "relative", "twice", "path", "platform", "no platform"),
        *("platform twice", "label of nothing", "custom"),
    ],
)
@pytest.mark.parametrize("read", [read_models, read_config])
def test_a_file_that_a_server_would_refuse_is_refused(read, text, named, tmp_path):
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(ServingError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert named in str(error.value)


@pytest.mark.parametrize("read", [lambda path: read_models(path).config, read_config])
@pytest.mark.parametrize(
    "text",
    [
        "",
        WRITTEN_BY_HAND.replace("gs://bucket", "/models"),
        "model_config_list { config { name: 'a' base_path: '/a' model_type: TENSORFLOW } }",
    ],
    ids=["empty", "by hand", "older"],
)
def test_a_file_that_a_server_would_take_is_taken(read, text, tmp_path):
    path = tmp_path / "models.config"
    path.write_text(text)
    assert read(path) == text_format.Parse(text, ModelServerConfig())


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ServingError, match="No such file"), edit_models(tmp_path / "models.config"):
        pass
    with pytest.raises(ServingError, match="absent"), edit_models(tmp_path / "absent" / "a"):
        pass


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(WRITTEN_BY_HAND)
    with pytest.raises(ServingError, match=str(path)), edit_models(path) as served:
        served.add_version("census", 2)
        served.retire("census", 1)
    assert path.read_text() == WRITTEN_BY_HAND
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_says_what_wrote_it_and_can_be_read_by_the_server(tmp_path):
    path = tmp_path / "models.config"
    with edit_models(path, create=True) as served:
        served.add_model("census", "/models/census", [1])
    assert path.read_text().startswith("# Written by `mptrec serving config`")
    assert read_models(path).versions("census") == [1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_replaced_file_keeps_its_permissions_and_its_links(tmp_path):
    path, link = tmp_path / "models.config", tmp_path / "link"
    path.write_text(WRITTEN_BY_HAND)
    path.chmod(0o640)
    link.symlink_to(path)
    with edit_models(link) as served:
        served.add_version("census", 2)
    assert link.is_symlink()
    assert read_models(path).versions("census") == [1, 2, 3]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "models.config"
    texts = [census(range(1, n)).text() for n in (2, 5000)]
    write_text(path, texts[0])
    done = threading.Event()

    def write():
        for turn in range(200):
            write_text(path, texts[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_text().partition("\n")[2])
    writer.join()
    assert seen <= set(texts)


def add(path, versions):
    for version in versions:
        with edit_models(path) as served:
            served.add_version("census", version)


def test_two_writers_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "models.config"
    write_text(path, census([1]).text())
    writers = [threading.Thread(target=add, args=(path, range(start, 100, 2))) for start in (2, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert read_models(path).versions("census") == list(range(1, 100))
