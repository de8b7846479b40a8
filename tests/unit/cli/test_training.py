"""`mptrec add-task` in the directory of its model."""

import itertools
import json
import shutil

import pytest
import small_runs

import mptrec_cli
from mptrec_cli import models
from mptrec_tf.models.saving import saved_tasks
from mptrec_tf.training import stages


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with a configuration and the model of stage 1."""
    directory = tmp_path_factory.mktemp("run")
    small_runs.write_rows(directory)
    config = small_runs.write_config(directory / "config.yaml", directory)
    command = ["train", "--config", str(config), "--output", str(directory), "--quiet"]
    assert mptrec_cli.main(command) == 0
    return directory


@pytest.fixture
def run(trained, tmp_path):
    """A copy in which the model has the name of those of stage 2, and a command on it."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "stage1.keras").rename(tmp_path / "model.keras")
    files = ["--config", tmp_path / "config.yaml", "--model", tmp_path / "model.keras"]
    command = ["add-task", *files, "--task", "buy", "--output", tmp_path, "--quiet"]
    return tmp_path, [*map(str, command)]


def test_a_command_that_was_cut_off_while_it_replaced_the_model_can_be_given_again(
    run, monkeypatch
):
    def cut_off(*_):
        raise KeyboardInterrupt

    directory, command = run
    with monkeypatch.context() as patch:
        patch.setattr(stages, "save_model", cut_off)
        assert mptrec_cli.main(command) == 130
    assert saved_tasks(directory / "model.keras") == ["click", "like"]
    assert mptrec_cli.main(command) == 0
    assert saved_tasks(directory / "model.keras") == ["click", "like", "buy"]
    results = json.loads((directory / "buy-results.json").read_text())
    assert results["old_tasks_identical"] is True


def test_the_model_stays_where_the_older_tasks_would_change(run, monkeypatch):
    directory, command = run
    numbers = itertools.count()
    monkeypatch.setattr(models, "prediction_digests", lambda *_: {"click": str(next(numbers))})
    with pytest.raises(RuntimeError, match=r"the older tasks .* have changed"):
        mptrec_cli.main(command)
    assert saved_tasks(directory / "model.keras") == ["click", "like"]
    results = json.loads((directory / "buy-results.json").read_text())
    assert results["old_tasks_identical"] is False
