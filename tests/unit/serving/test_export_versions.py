"""Version directories and the manifest."""

import dataclasses
import json
import os
import shutil
import threading

import numpy as np
import pytest

from mptrec_tf import DataError, ServingError
from mptrec_tf.serving import Finding, Manifest, check, export, publish_version, write_version
from mptrec_tf.serving.exporting import exporter
from mptrec_tf.serving.exporting.versions import publish, staging, versions
from mptrec_tf.serving.layout import MANIFEST_FILE

from .conftest import TASKS


def names(directory):
    return sorted(child.name for child in directory.iterdir())


def test_each_stage_is_a_version(exported):
    assert versions(exported[0]) == [1, 2]
    assert names(exported[0]) == ["1", "2"]


def test_the_manifest_tells_where_a_version_comes_from(exported):
    first, second = (Manifest.read(exported[0] / str(version)) for version in (1, 2))
    assert (first.version, first.stage, first.parent_version) == (1, 1, None)
    assert (second.version, second.stage, second.parent_version) == (2, 2, 1)
    assert first.name == second.name == "shop"
    assert second.stage1_tasks == ["click", "visits", "color"]
    assert second.added_tasks == ["buy"]
    assert second.frozen_fingerprint == first.fingerprint != second.fingerprint
    assert first.metrics == {"click": {"auc": 0.5}}
    assert [task["name"] for task in second.spec["tasks"]] == ["click", "visits", "color", "buy"]
    assert len(second.spec["features"]) == 5
    assert set(second.libraries) == {"mptrec-tf", "tensorflow", "keras", "numpy", "python"}


def test_the_same_model_gives_the_same_bytes_of_variables(model, tmp_path):
    paths = [export(model, tmp_path / "m") for _ in range(2)]
    files = [sorted((path / "variables").iterdir()) for path in paths]
    assert len(files[0]) == 2
    for one, other in zip(*files, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()


def test_a_parent_is_recognized_by_its_weights_alone(make_model, rows, tmp_path):
    other = make_model(tasks=TASKS[:2])
    export(other, tmp_path / "m", 7)
    assert Manifest.read(tmp_path / "m" / "7").parent_version is None
    for version in (7, 0, -1, True, 1.0, 2**63):
        with pytest.raises(ServingError, match="version"):
            export(other, tmp_path / "m", version)


def test_metrics_are_plain_numbers_in_the_manifest(model, tmp_path):
    metrics = {"click": {"auc": np.float32(0.5), "grouped_auc": np.nan, "rows": np.int64(3)}}
    version = export(model, tmp_path / "m", metrics=metrics)
    assert "NaN" not in (version / MANIFEST_FILE).read_text()
    expected = {"click": {"auc": 0.5, "grouped_auc": None, "rows": 3}}
    assert Manifest.read(version).metrics == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": {"click": {"curve": np.zeros(3)}}}, r"metrics\['click'\]\['curve'\] should"),
        ({"warmup_batch_sizes": (8, 0)}, "warmup_batch_sizes: a size must be a whole number"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    arguments, message, model, tmp_path
):
    with pytest.raises(ServingError, match=message):
        export(model, tmp_path / "m", **arguments)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("base_path", ["gs://bucket/models/shop", "s3://bucket/shop"])
def test_remote_storage_is_refused(base_path, model):
    with pytest.raises(ServingError, match="copy the version"):
        export(model, base_path)


def test_a_file_in_the_way_is_named(model, tmp_path):
    (tmp_path / "shop").write_text("")
    with pytest.raises(ServingError, match="shop: expected a directory"):
        export(model, tmp_path / "shop")


def test_rows_that_do_not_fit_are_refused_before_anything_is_written(model, tmp_path):
    with pytest.raises(DataError, match="'age'"):
        export(model, tmp_path / "shop", rows={"city": ["Oslo"]})
    assert not (tmp_path / "shop").exists()


def stage(base_path, content):
    with staging(base_path) as directory:
        (directory / "content").write_text(content)
        return publish(directory, base_path, None, lambda number: None)


def test_only_whole_numbers_are_versions_and_a_number_in_use_is_not_taken(tmp_path):
    for name in ("3", "10", "010", "latest", "-4", "1.5", ".staging-x", str(2**63)):
        (tmp_path / name).mkdir()
    (tmp_path / "12").write_text("a file")
    assert versions(tmp_path) == [3, 10]
    assert stage(tmp_path, "new") == 13
    assert versions(tmp_path / "absent") == []


def test_the_largest_number_of_64_bits_is_the_last_version(tmp_path):
    (tmp_path / str(2**63 - 1)).mkdir()
    assert versions(tmp_path) == [2**63 - 1]
    with pytest.raises(ServingError, match=str(2**63)):
        stage(tmp_path, "new")
    assert names(tmp_path) == [str(2**63 - 1)]


def test_writers_at_once_get_a_version_each(tmp_path):
    results, barrier = {}, threading.Barrier(8)

    def write(content):
        barrier.wait()
        results[content] = stage(tmp_path, content)

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results.values()) == versions(tmp_path) == list(range(1, 9))
    for content, version in results.items():
        assert (tmp_path / str(version) / "content").read_text() == content


def test_a_version_that_another_writer_took_is_refused(tmp_path):
    with staging(tmp_path) as directory:
        (directory / "content").write_text("")
        (tmp_path / "4").mkdir()
        (tmp_path / "4" / "theirs").write_text("")
        with pytest.raises(ServingError, match="already has the version 4"):
            publish(directory, tmp_path, 4, lambda number: None)
    assert names(tmp_path / "4") == ["theirs"]
    assert names(tmp_path) == ["4"]


def test_the_number_is_known_before_the_rename(tmp_path):
    with staging(tmp_path) as directory:
        number = publish(
            directory, tmp_path, None, lambda n: (directory / "manifest").write_text(str(n))
        )
    assert json.loads((tmp_path / "1" / "manifest").read_text()) == number == 1


def test_what_a_crashed_writer_left_is_removed_after_a_day(tmp_path):
    for name, age in ((".staging-old", 25 * 3600), (".staging-new", 3600)):
        (tmp_path / name).mkdir()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    stage(tmp_path, "content")
    assert names(tmp_path) == [".staging-new", "1"]


def test_a_broken_manifest_is_named(tmp_path):
    with pytest.raises(ServingError, match=r"has no assets\.extra/manifest\.json"):
        Manifest.read(tmp_path)
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "manifest.json").write_text('{"name": "shop"}')
    with pytest.raises(ServingError, match=r"manifest\.json: broken"):
        Manifest.read(tmp_path)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    """A version without a number, and its manifest."""
    directory = tmp_path_factory.mktemp("written") / "Format-Serving"
    metrics = {"click": {"auc": float("nan")}}
    return directory, write_version(model, directory, name="shop", metrics=metrics)


def files(directory):
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def test_a_written_version_has_everything_but_a_number(written):
    directory, manifest = written
    assert Manifest.read(directory).is_same_export(manifest)
    assert (manifest.name, manifest.version, manifest.parent_version) == ("shop", 0, None)
    assert not [finding for finding in check(directory, ["session"]) if finding.problem]


def test_a_published_version_is_a_whole_copy_with_a_number(written, tmp_path):
    directory, _ = written
    before = files(directory)
    path = publish_version(directory, tmp_path / "shop")
    assert path == tmp_path / "shop" / "1"
    assert names(tmp_path / "shop") == ["1"]
    assert files(directory) == before
    copied = files(path)
    assert copied.pop(MANIFEST_FILE) == before.pop(MANIFEST_FILE).replace(
        b'"version": 0', b'"version": 1'
    )
    assert copied == before


def test_publishing_again_gives_the_version_that_is_there(written, tmp_path):
    directory, _ = written
    assert [publish_version(directory, tmp_path).name for _ in range(2)] == ["1", "1"]
    assert publish_version(directory, tmp_path, 1).name == "1"
    (tmp_path / "2").mkdir()  # something else, published meanwhile: the newest is another one
    assert publish_version(directory, tmp_path).name == "3"
    with pytest.raises(ServingError, match="already has the version 2"):
        publish_version(directory, tmp_path, 2)
    assert versions(tmp_path) == [1, 2, 3]


def test_a_version_may_be_written_to_remote_storage(model, tmp_path):
    remote = f"file://{tmp_path}/written"  # a URI, as of a bucket
    manifest = write_version(model, remote, name="shop")
    assert Manifest.read(remote) == manifest
    path = publish_version(remote, tmp_path / "shop")
    assert path == tmp_path / "shop" / "1"
    assert not [finding for finding in check(path, ["c_api"]) if finding.problem]
    written, published = files(tmp_path / "written"), files(path)
    assert written.pop(MANIFEST_FILE) != published.pop(MANIFEST_FILE)
    assert written == published


def test_a_later_export_of_the_same_weights_is_another_version(written, tmp_path):
    directory, manifest = written
    other = tmp_path / "other"
    shutil.copytree(directory, other)
    dataclasses.replace(manifest, created="2020-01-01T00:00:00+00:00").write(other)
    assert [publish_version(d, tmp_path / "m").name for d in (directory, other)] == ["1", "2"]


def test_a_published_version_knows_its_parent(exported, tmp_path):
    first, second = (exported[0] / version for version in "12")
    publish_version(first, tmp_path, 4)
    assert publish_version(second, tmp_path) == tmp_path / "5"
    assert Manifest.read(tmp_path / "5").parent_version == 4


def test_what_is_not_a_complete_export_is_not_published(written, tmp_path):
    directory = tmp_path / "half"
    shutil.copytree(written[0], directory)
    (directory / MANIFEST_FILE).unlink()
    with pytest.raises(ServingError, match=r"half has no assets\.extra/manifest\.json"):
        publish_version(directory, tmp_path / "shop")
    for source, target in ((directory, "gs://bucket/shop"), ("gs://bucket/model", tmp_path)):
        with pytest.raises(ServingError, match="gs://bucket"):
            publish_version(source, target)
    assert names(tmp_path) == ["half"]


def test_a_version_that_fails_its_check_gets_no_manifest(written, model, tmp_path, monkeypatch):
    directory = tmp_path / "again"
    shutil.copytree(written[0], directory)
    failed = [Finding("scores", "differ")]
    monkeypatch.setattr(exporter, "check_without_manifest", lambda *_: failed)
    with pytest.raises(ServingError, match="shop: the export does not pass its check"):
        write_version(model, directory, name="shop")
    assert not (directory / MANIFEST_FILE).exists()
