"""A trial is what a run would train."""

import pathlib

import pytest
from matplotlib import image

from mptrec_tf import ModelError, SpecError, load_model
from mptrec_tf.training import fitting, pretrain, prompt_tune
from mptrec_tf.training.stages import stage1_data, stage1_model, stage2_data
from mptrec_tf.tuning import Stage1HyperModel, Stage2HyperModel, StageTuner, plot_trials


def best_value(trained):
    return max(epoch["val_mean_auc"] for epoch in trained.epochs)


@pytest.mark.long
def test_trials_of_stage_1_are_what_pretrain_trains(make_config, sources, data, tmp_path):
    config = make_config()
    tuner = StageTuner(Stage1HyperModel(config, data, seed=3), tmp_path / "search", trials=2)
    tuner.search()
    first, second = tuner.results()
    assert first.values["learning_rate"] != second.values["learning_rate"]
    assert first.objective == best_value(pretrain(config, sources, tmp_path / "a", seed=3))
    best = pretrain(tuner.best_config(), sources, tmp_path / "b", seed=3, verbose=0)
    assert tuner.best().objective == best_value(best)
    assert tuner.best().metrics["val_click_loss"] == best.epochs[best.best_epoch]["val_click_loss"]
    assert not list((tmp_path / "search").rglob("*.h5"))

    plot_trials(tuner, tmp_path / "trials.png")
    pixels = image.imread(tmp_path / "trials.png")
    assert pixels.shape[1] > 2 * pixels.shape[0]  # one row: by trial, and by two settings
    assert len({tuple(pixel) for pixel in pixels.reshape(-1, pixels.shape[2])[::7]}) > 10


@pytest.mark.long
def test_trials_of_stage_2_are_what_prompt_tune_trains(make_config, sources, tmp_path):
    config = make_config()
    pretrain(config, sources, tmp_path, verbose=0)
    file = tmp_path / "stage1.keras"
    before = file.read_bytes()
    data = stage2_data(config, load_model(file), "buy", sources)
    tuner = StageTuner(Stage2HyperModel(config, file, "buy", data), tmp_path / "search", trials=2)
    tuner.search()
    assert file.read_bytes() == before
    best = prompt_tune(
        tuner.best_config(), load_model(file), "buy", sources, tmp_path / "b", verbose=0
    )
    assert tuner.best().objective == best_value(best)


def test_representations_are_computed_once_for_all_trials(
    make_config, sources, monkeypatch, tmp_path
):
    config = make_config(stage2__cache="disk")
    pretrain(config, sources, tmp_path, verbose=0)
    file = tmp_path / "stage1.keras"
    data = stage2_data(config, load_model(file), "buy", sources)
    computed, real = [], fitting.cache_rows

    def count(*args, **kwargs):
        computed.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(fitting, "cache_rows", count)
    for trials in (2, 3):  # the second search goes on
        search = tmp_path / "search"
        StageTuner(Stage2HyperModel(config, file, "buy", data), search, trials=trials).search()
        assert len(computed) == (2 if trials == 2 else 4)  # training and validation rows
    files = [str(path.relative_to(search)) for path in search.rglob("*.npy")]
    expected = ["representations/train/00000.npy", "representations/validation/00000.npy"]
    assert sorted(files) == expected
    half = make_config(stage2__cache="disk", stage2__cache_dtype="float16")
    with pytest.raises(ModelError, match="another configuration"):
        StageTuner(Stage2HyperModel(half, file, "buy", data), search)


def test_a_trial_that_was_cut_off_goes_on_after_its_last_epoch(make_config, data, tmp_path):
    class CutOff(Stage1HyperModel):
        def fit(self, hp, model, *, directory, verbose=0):
            super().fit(hp, model, directory=directory, verbose=verbose)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StageTuner(CutOff(make_config(), data), tmp_path / "search", trials=1).search()
    (state,) = pathlib.Path(tmp_path / "search").rglob("training/state.json")
    done = state.read_text()
    again = StageTuner(Stage1HyperModel(make_config(), data), tmp_path / "search", trials=1)
    again.search()
    (result,) = again.results()
    assert str(result.objective) in done
    assert f"{result.metrics['epochs']:.0f}" == "2"


def test_a_model_that_has_the_task_is_refused_before_any_row_is_read(make_config, data):
    config = make_config()
    model = stage1_model(config, data.encoder)
    missing = ("absent.csv", "absent.csv", None)
    with pytest.raises(ModelError, match="already has a task 'click'"):
        stage2_data(config, model, "click", missing)


def test_a_metric_that_no_task_has_is_refused_before_any_row_is_read(make_config):
    config = make_config(stage1__training={"monitor": "buy_auc"})
    with pytest.raises(SpecError, match="buy_auc"):
        stage1_data(config, ("absent.csv", "absent.csv", None))
