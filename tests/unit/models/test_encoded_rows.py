"""Models refuse rows that are not encoded, or by another encoder."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    ModelError,
    MPTRec,
    MultiValuedFeature,
    NumericFeature,
    SpecError,
    load_model,
    make_dataset,
)
from mptrec_tf.evaluation import evaluate, score
from mptrec_tf.models import ProbeModule, save_model

STAGE1 = ("click", "like")


@pytest.fixture
def model(make_model):
    return make_model(*STAGE1, compile_with={"jit_compile": False})


@pytest.fixture
def frame(rows):
    return pd.DataFrame(rows)


@pytest.fixture
def other(encoder, frame):
    """Rows whose commonest city is another one, and their own encoder."""
    later = pd.concat([frame, *[frame[frame.city == frame.city.iloc[0]]] * 9])
    later = later[later.city != encoder.vocabulary("city")[0]]
    return later, FeatureEncoder(encoder.features).adapt(later)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call", ["fit", "validation", "evaluate", "predict", "cache"])
def test_rows_by_another_encoder_are_refused(
    call, stream, model, pretrained, copy_of, tasks, other
):
    later, encoder = other
    click = [tasks[name] for name in STAGE1]

    def rows_by(encoder, tasks=click):
        return make_dataset(later, encoder, tasks, stream=stream)

    with pytest.raises(ModelError, match=r"another encoder than the model's: .*'city'.*model\.enc"):
        if call == "fit":
            model.fit(rows_by(encoder), verbose=0)
        elif call == "validation":
            model.fit(rows_by(model.encoder), validation_data=rows_by(encoder), verbose=0)
        elif call == "cache":
            second = copy_of(pretrained)
            second.add_task(tasks["buy"])
            second.fit(rows_by(encoder, [tasks["buy"]]), cache="memory", verbose=0)
        else:
            getattr(model, call)(rows_by(encoder), verbose=0)


def test_an_encoder_that_encodes_alike_is_none_other(model, encoder, frame, tasks, tmp_path):
    twins = [
        encoder,
        encoder.copy(),
        FeatureEncoder.from_json(encoder.to_json()),
        FeatureEncoder(encoder.features).adapt(frame),
    ]
    save_model(model, tmp_path / "model.keras")
    models = [model, load_model(tmp_path / "model.keras"), keras.models.clone_model(model)]
    for one in models:
        for twin in twins:
            assert twin.differences(one.encoder) == one.encoder.differences(twin) == []
            one.predict(make_dataset(frame, twin, [tasks["click"]]), verbose=0)


def test_the_dataset_remembers_what_encoded_it(encoder, frame, tasks, other, model):
    later, _ = other
    mine = FeatureEncoder(encoder.features).adapt(frame)
    dataset = make_dataset(frame, mine, [tasks[name] for name in STAGE1])
    mine.adapt(later)
    model.fit(dataset, verbose=0)


def test_encoders_differ_in_what_they_give(encoder, frame):
    def differences(features, rows=frame):
        return FeatureEncoder(features).adapt(rows).differences(encoder)

    age, city, tags, gain = encoder.features
    assert differences([city, age, tags, gain]) == ["city", "age", "tags", "gain"]
    assert differences([age, city, tags]) == ["age", "city", "tags"]
    assert differences([NumericFeature("age", missing=0), city, tags, gain]) == ["age"]
    assert differences([age, city, MultiValuedFeature("tags", max_length=2), gain]) == ["tags"]
    # What a model makes of numbers and ids is its own.
    wide = CategoricalFeature("city", embedding_dim=16)
    assert differences([NumericFeature("age", bins=9), wide, tags, gain]) == []
    assert differences(encoder.features, frame.assign(age=frame.age + 1)) == []
    assert differences(encoder.features, frame.assign(city=frame.city + "!")) == ["city"]


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_rows_that_are_not_encoded_are_refused(call, model, frame):
    raw = {"age": np.array([31, 45]), "city": np.array(["Rome", "Oslo"])}
    for x in (frame, raw, np.ones((2, 3)), tf.data.Dataset.from_tensors((raw, {}))):
        with pytest.raises(ModelError, match=r"reads encoded rows.*model\.encoder\.encode"):
            getattr(model, call)(x, verbose=0)


def test_after_a_fit_that_was_refused_another_one_trains(model, dataset, tmp_path):
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False)
    with pytest.raises(ModelError, match=r"\['like'\] are missing"):
        model.fit(dataset("click"), verbose=0)
    model.fit(dataset(*STAGE1), verbose=0)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    for left, right in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(left, right)
    assert any(np.any(v.numpy()) for v in loaded.optimizer.variables[2:])


def test_names_and_single_tasks_in_the_place_of_lists(model, encoder, frame, tasks, pretrained):
    for given in ("click", ["click"], tasks["click"]):
        with pytest.raises(SpecError, match=r"such as .*Task\('click', label='click'\)"):
            make_dataset(frame, encoder, given)
        with pytest.raises(SpecError, match=r"such as .*Task\('click', label='click'\)"):
            MPTRec(encoder, given)
    with pytest.raises(SpecError, match="a task must be a Task"):
        pretrained.add_task("buy")
    with pytest.raises(ModelError, match=r"such as PromptModule\(\)"):
        pretrained.add_task(tasks["buy"], module=ProbeModule)
    with pytest.raises(ModelError, match=r"needs an encoder.*Received: tuple"):
        MPTRec(encoder.features, [tasks["click"]])
    with pytest.raises(SpecError, match="features must be a list of features"):
        FeatureEncoder(encoder.features[0])


def test_tasks_are_scored_by_name(model, frame, tasks):
    assert evaluate(model, frame, ["like"]) == evaluate(model, frame, [tasks["like"]])
    with pytest.raises(ModelError, match="no task 'lik'"):
        score(model, frame, ["lik"])
    for one in ("like", tasks["like"]):
        with pytest.raises(SpecError, match="a list of tasks or of their names"):
            score(model, frame, one)


def test_an_attribute_of_another_kind_is_no_encoder(model, arrays):
    class Batches(keras.utils.PyDataset):
        encoder = "of something else"

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return arrays(*STAGE1)

    model.fit(Batches(), verbose=0)
