"""A new model begins with what an earlier one learned."""

import numpy as np
import pytest

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    ModelError,
    MPTRec,
    MultiValuedFeature,
    NumericFeature,
    Task,
    load_model,
    make_dataset,
)
from mptrec_tf.training import keep_bins, pretrain, warm_start

SETTINGS = {"embedding_dim": 3, "expert_units": (6, 4), "tower_units": (5, 3)}
CLICK, LIKE, BUY = (Task(name, name) for name in ("click", "like", "buy"))
KIND = Task("kind", "kind", kind="multiclass", classes=("u", "v", "w"))
FEATURES = (
    NumericFeature("age", bins=4),
    NumericFeature("gain", encoding="standardize"),
    CategoricalFeature("city"),
    CategoricalFeature("device", hash_buckets=5),
    MultiValuedFeature("tags", max_length=3, embedding_dim=2),
)
ROWS = {
    "age": [18, 25, 33, 41, 60, 77],
    "gain": [0.0, 1.0, 5.0, 2.0, 2.0, 9.0],
    "city": ["Oslo", "Rome", "Oslo", "Lima", "Oslo", "Rome"],
    "device": ["phone", "tablet", "phone", "tv", "", "phone"],
    "tags": ["a|b", "b", "", "c|b|a", "b", "c"],
}
# Other frequencies: "Bern" and "Rome" come before "Oslo", "d" before the others.
LATER = {
    **ROWS,
    "city": ["Bern", "Rome", "Rome", "Lima", "Bern", "Oslo"],
    "tags": ["d|d", "d", "b|a", "d|c|a", "e", ""],
}


def model_of(rows, features=FEATURES, tasks=(CLICK, LIKE, KIND), seed=0, bins_of=None, **settings):
    """A model all of whose weights are random, the biases too, as if it had learned something."""
    encoder = FeatureEncoder(features).adapt(rows)
    if bins_of is not None:
        encoder = keep_bins(encoder, bins_of.encoder)
    model = MPTRec(encoder, tasks, **{**SETTINGS, **settings})
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0.1, 0.6, size=weight.shape))
    return model


def rows_of(model, name):
    """The rows of a feature's table that embed the categories, by text; ids 0 and 1 too."""
    table = model.backbone.embedding.tables[-1].numpy()  # that of width 3
    names = [feature.name for feature in model.encoder.categorical_features]
    sizes = [model.encoder.vocabulary_size(other) for other in names]
    start = sum(sizes[: names.index(name)])
    return dict(zip(["missing", "unknown", *model.encoder.vocabulary(name)], table[start:]))  # noqa: B905


def probe(model, rows):
    return model.predict(model.encoder.encode(rows), verbose=0)


def assert_same_predictions(model, earlier, rows):
    predictions = probe(model, rows)
    for task, expected in probe(earlier, rows).items():
        spread = float(np.ptp(expected))
        assert spread > 1e-4
        np.testing.assert_allclose(predictions[task], expected, rtol=0, atol=spread / 100)


def test_a_grown_model_in_another_order_predicts_as_the_earlier_one():
    earlier = model_of(ROWS)
    model = model_of(LATER, FEATURES[::-1], (KIND, LIKE, CLICK), seed=1)
    before = {name: rows_of(model, name) for name in ("city", "device")}
    report = warm_start(model, earlier)
    assert not report.left
    assert report.taken["feature 'city'"] == "3 categories; 1 new"
    assert report.taken["feature 'tags'"] == "3 categories; 2 new"
    assert report.taken["feature 'age'"] == "3 inputs"
    # Of rows with categories that both know, that are missing and that neither knows.
    probed = {**ROWS, "city": ["Oslo", "Rome", "", "Lima", "Atlantis", "Rome"]}
    assert_same_predictions(model, earlier, probed)
    old, new = rows_of(earlier, "city"), rows_of(model, "city")
    for text in ("missing", "unknown", "Oslo", "Rome", "Lima"):
        np.testing.assert_array_equal(new[text], old[text])
    np.testing.assert_array_equal(new["Bern"], before["city"]["Bern"])


def test_the_earlier_model_is_read_from_its_file_and_stays_as_it_is(tmp_path):
    earlier = model_of(ROWS)
    earlier.save(tmp_path / "earlier.keras")
    fingerprint = earlier.fingerprint()
    models = [model_of(LATER, seed=1) for _ in range(2)]
    reports = [warm_start(models[0], earlier), warm_start(models[1], tmp_path / "earlier.keras")]
    assert reports[0] == reports[1]
    assert models[0].fingerprint() == models[1].fingerprint() != fingerprint
    assert earlier.fingerprint() == fingerprint


def test_what_is_new_or_gone_is_named_and_stays_as_it_was_initialized():
    earlier = model_of(ROWS, FEATURES, (LIKE, CLICK))
    features = (CategoricalFeature("country"), *FEATURES[2:], NumericFeature("hours", bins=2))
    rows = {**LATER, "country": ["no", "it", "no", "pe", "ch", "ch"], "hours": range(6)}
    model = model_of(rows, features, (BUY, CLICK), seed=1)
    old = [kernel.numpy() for kernel in (earlier.backbone.experts.kernels[0], earlier.gates.kernel)]
    new = [kernel.numpy() for kernel in (model.backbone.experts.kernels[0], model.gates.kernel)]
    biases = model.backbone.experts.biases[1].numpy()
    tower = model.towers.hidden.kernels[1].numpy()
    report = warm_start(model, earlier)
    assert report.left == {
        "feature 'country'": "new",
        "feature 'hours'": "new",
        "feature 'age'": "gone",
        "feature 'gain'": "gone",
        "task 'buy'": "new",
        "task 'like'": "gone",
    }
    assert list(report.taken)[:4] == [
        "shared expert", "feature 'city'", "feature 'device'", "feature 'tags'"
    ]  # fmt: skip
    # Inputs of the earlier model: 3 of age, 1 of gain, 3 of city, 3 of device, 2 of tags.
    # Of the new one: 2 of hours, 3 of country, 3 of city, 3 of device, 2 of tags.
    expected = new[0].copy()
    expected[5:, 0] = old[0][4:, 0]  # the shared expert
    expected[5:, 2] = old[0][4:, 2]  # click: the last task of both
    np.testing.assert_array_equal(model.backbone.experts.kernels[0], expected)
    expected = new[1].copy()
    expected[5:, 2:] = old[1][4:, 2:]
    np.testing.assert_array_equal(model.gates.kernel, expected)
    expected = earlier.backbone.experts.biases[1].numpy()
    np.testing.assert_array_equal(
        model.backbone.experts.biases[1], [expected[0], biases[1], expected[2]]
    )
    np.testing.assert_array_equal(
        model.towers.hidden.kernels[1], [tower[0], earlier.towers.hidden.kernels[1].numpy()[1]]
    )
    np.testing.assert_array_equal(model.prompts.prompts[1], earlier.prompts.prompts[1])
    np.testing.assert_array_equal(
        model.adversary.classifier.kernel[:, 1], earlier.adversary.classifier.kernel[:, 1]
    )


def test_moved_bins_are_named_and_not_taken_for_the_earlier_ones():
    rows = {**ROWS, "age": [19, 26, 34, 42, 61, 78], "gain": [0.0, 1.0, 5.0, 2.0, 2.0, 3.0]}
    earlier, model = model_of(ROWS), model_of(rows, seed=1)
    before = model.backbone.experts.kernels[0].numpy()[:4]
    report = warm_start(model, earlier)
    age = "its bins have the edges [19, 34, 61, 78], had [18, 33, 60, 77]"
    assert report.left["feature 'age'"] == age
    assert "mean and deviation [2.16667," in report.left["feature 'gain'"]
    np.testing.assert_array_equal(model.backbone.experts.kernels[0][:4], before)
    assert "not:\n  feature 'age': its bins" in str(report)


def test_kept_bins_let_numeric_features_go_on():
    rows = {**LATER, "age": [19, 26, 34, 42, 61, 78], "gain": [0.0, 1.0, 5.0, 2.0, 2.0, 3.0]}
    earlier = model_of(ROWS)
    model = model_of(rows, seed=1, bins_of=earlier)
    assert model.encoder.vocabulary("city")[0] == "Bern"
    assert not warm_start(model, earlier).left
    assert_same_predictions(model, earlier, ROWS)


def test_bins_are_kept_only_of_features_defined_alike():
    earlier = FeatureEncoder([NumericFeature("age", bins=2)]).adapt({"age": [1, 2, 3]})
    for feature in (NumericFeature("age", bins=1), NumericFeature("age", encoding="standardize")):
        encoder = FeatureEncoder([feature]).adapt({"age": [2, 4, 6]})
        assert keep_bins(encoder, earlier).to_json() == encoder.to_json()


def test_bins_are_kept_without_making_the_vocabularies_anew():
    features = [NumericFeature("age", bins=2), CategoricalFeature("city")]
    earlier = FeatureEncoder(features).adapt({"age": [1, 2, 3], "city": ["Rome"] * 3})
    encoder = FeatureEncoder(features).adapt({"age": [2, 4, 6], "city": ["Oslo"] * 3})
    before = encoder.to_json()
    kept = keep_bins(encoder, earlier)
    assert kept.numeric_state == {"age": [1.0, 2.0, 3.0]}
    assert kept.vocabulary("city") == ["Oslo"]
    assert kept.tables["city"] is encoder.tables["city"]
    assert encoder.to_json() == before


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"hash_buckets": 5}, {"hash_buckets": 6}, "hash_buckets 6, was 5"),
        ({"hash_buckets": 5}, {}, "hash_buckets None, was 5"),
        ({"embedding_dim": 2}, {"embedding_dim": 4}, "embedding_dim 4, was 2"),
        ({}, {"quotient_remainder": 2}, "quotient_remainder 2, was None"),
        ({"quotient_remainder": 2}, {"quotient_remainder": 3}, "quotient_remainder 3, was 2"),
        (
            {"hash_buckets": 5},
            {"hash_buckets": 5, "quotient_remainder": 2},
            "quotient_remainder 2, was None",
        ),
    ],
)
def test_embeddings_that_mean_something_else_are_named_and_not_taken(old, new, reason):
    earlier, model = (
        model_of(ROWS, [FEATURES[0], CategoricalFeature("city", **settings)], seed=seed)
        for seed, settings in enumerate([old, new])
    )
    before = [table.numpy() for table in model.backbone.embedding.tables]
    assert warm_start(model, earlier).left == {"feature 'city'": reason}
    np.testing.assert_array_equal(model.backbone.embedding.tables[0], before[0])


def test_a_feature_of_another_kind_is_not_taken():
    earlier = model_of(ROWS, [CategoricalFeature("city"), CategoricalFeature("age")])
    model = model_of(ROWS, [MultiValuedFeature("city"), NumericFeature("age")])
    assert warm_start(model, earlier).left == {
        "feature 'city'": "multivalued, was categorical",
        "feature 'age'": "numeric, was categorical",
    }


def test_a_compressed_vocabulary_grows_where_its_ids_stay():
    def compressed(*vocabulary, seed=0):
        feature = CategoricalFeature("city", vocabulary=vocabulary, quotient_remainder=3)
        return model_of(ROWS, [feature], seed=seed)

    earlier = compressed("Oslo", "Rome", "Lima")
    model = compressed("Oslo", "Rome", "Lima", "Bern", "Kyiv", seed=1)
    last = model.backbone.embedding.tables[0].numpy()[-1]
    report = warm_start(model, earlier)
    assert report.taken["feature 'city'"] == "3 categories; 2 new"
    assert_same_predictions(model, earlier, ROWS)
    np.testing.assert_array_equal(model.backbone.embedding.tables[0][-1], last)
    model = compressed("Rome", "Oslo", "Lima", seed=1)
    reason = "compressed, and the earlier categories no longer have the same ids"
    assert warm_start(model, earlier).left == {"feature 'city'": reason}


def test_a_vocabulary_that_grows_beyond_its_divisor_keeps_what_was_learned():
    def divided(*vocabulary, seed=0):
        feature = CategoricalFeature("city", vocabulary=vocabulary, quotient_remainder=4)
        return model_of(ROWS, [feature], seed=seed)

    earlier, model = divided("Oslo", "Rome"), divided("Oslo", "Rome", "Lima", seed=1)
    assert (
        earlier.backbone.embedding.applied_divisors[0],
        model.backbone.embedding.applied_divisors[0],
    ) == (None, 4)
    assert warm_start(model, earlier).taken["feature 'city'"] == "2 categories; 1 new"
    ids = {"categorical": np.arange(4, dtype=np.int32)[:, None]}
    np.testing.assert_array_equal(model.represent(ids).x, earlier.represent(ids).x)


def test_truth_values_are_the_same_however_they_are_spelled():
    def of(*spellings, seed=0):
        feature = CategoricalFeature("member")
        return model_of({**ROWS, "member": [*spellings, *spellings]}, [feature], seed=seed)

    earlier, model = of(True, False, True), of("false", "true", "false", seed=1)
    assert warm_start(model, earlier).taken["feature 'member'"] == "2 categories"
    assert_same_predictions(model, earlier, {"member": ["true", "false", ""]})


def test_settings_that_change_what_a_feature_or_task_reads_are_named():
    earlier = model_of(ROWS, [FEATURES[2], FEATURES[4]], [CLICK])
    tags = MultiValuedFeature("tags", max_length=3, embedding_dim=2, pooling="sum")
    model = model_of(ROWS, [FEATURES[2], tags], [Task("click", "click2", above=1)])
    taken = warm_start(model, earlier).taken
    assert taken["feature 'tags'"] == "3 categories; pooling 'sum', was 'mean'"
    assert taken["task 'click'"].endswith("; label 'click2', was 'click'; above 1.0, was None")


def test_a_task_with_other_classes_keeps_all_but_its_last_layer():
    earlier = model_of(ROWS, tasks=[KIND, CLICK])
    kind = Task("kind", "kind", kind="multiclass", classes=("v", "u", "w"))
    model = model_of(ROWS, tasks=[kind, CLICK], seed=1)
    heads = [head.kernels[0].numpy() for head in model.towers.heads]  # of 1 and of 3 outputs
    report = warm_start(model, earlier)
    assert report.left == {
        "task 'kind'": "last layer of its tower; classes ('v', 'u', 'w'), was ('u', 'v', 'w')"
    }
    np.testing.assert_array_equal(model.towers.heads[1].kernels[0], heads[1])
    np.testing.assert_array_equal(
        model.towers.heads[0].kernels[0], earlier.towers.heads[0].kernels[0]
    )
    np.testing.assert_array_equal(model.towers.hidden.kernels[0], earlier.towers.hidden.kernels[0])


def test_tasks_of_stage_2_are_named():
    earlier = model_of(ROWS, tasks=[CLICK])
    labels = {name: [0, 1, 0, 1, 1, 0] for name in ("click", "like", "buy")}
    earlier.compile("sgd", run_eagerly=True)
    earlier.fit(make_dataset(ROWS | labels, earlier.encoder, [CLICK]), verbose=0)
    for task in (LIKE, BUY):
        earlier.add_task(task, tower_units=(2,))
    model = model_of(ROWS, tasks=[CLICK, LIKE], seed=1)
    assert warm_start(model, earlier).left == {
        "task 'like'": "added in stage 2 of the earlier model, now of stage 1",
        "task 'buy'": "added in stage 2 of the earlier model",
    }
    with pytest.raises(ModelError, match="trained for 1 epochs"):
        warm_start(earlier, model)


@pytest.mark.parametrize("forms", [("assigned", "representations"), (None, "assigned")])
def test_another_form_of_the_adversary_is_named(forms):
    earlier, model = (model_of(ROWS, adversarial=form) for form in forms)
    report = warm_start(model, earlier)
    assert report.left == {"adversary": f"adversarial {forms[1]!r}, was {forms[0]!r}"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("embedding_dim", 4), ("expert_units", (6, 5)), ("tower_units", (5,)), ("activation", "gelu")],
)
def test_another_architecture_is_refused_with_the_setting(key, value):
    earlier, model = model_of(ROWS), model_of(ROWS, **{key: value})
    before = model.fingerprint()
    with pytest.raises(ModelError, match=rf"{key} is .+ and was "):
        warm_start(model, earlier)
    assert model.fingerprint() == before


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "earlier.keras").write_text("-")
    with pytest.raises(ModelError, match=r"earlier\.keras: not a \.keras model file"):
        warm_start(model_of(ROWS), tmp_path / "earlier.keras")


@pytest.fixture
def later(frame, tmp_path):
    """The rows of another day: a new city, other ages."""
    rows = frame.copy()
    rows["age"] += 1
    rows.loc[::2, "city"] = "Bern"
    rows.to_csv(tmp_path / "later.csv", index=False)
    return str(tmp_path / "later.csv")


@pytest.mark.long
def test_a_daily_retraining_goes_on_from_the_day_before(
    make_config, sources, later, tmp_path, capsys
):
    config = make_config(training={"epochs": 8})
    first = pretrain(config, sources, tmp_path / "monday", verbose=0)
    assert first.warm_start is None
    earlier, tuesday = tmp_path / "monday" / "stage1.keras", tmp_path / "tuesday"
    short = make_config(training={"epochs": 1})
    sources = sources._replace(train=later)
    cold = pretrain(short, sources, tmp_path / "cold", verbose=0)
    capsys.readouterr()
    warm = pretrain(short, sources, tuesday, earlier=earlier, verbose=2)
    assert str(warm.warm_start) in capsys.readouterr().out
    assert warm.warm_start.taken["feature 'city'"] == "3 categories; 1 new"
    assert not warm.warm_start.left
    encoder = load_model(tuesday / "stage1.keras").encoder
    assert "Bern" in encoder.vocabulary("city")
    assert encoder.numeric_state == first.model.encoder.numeric_state
    assert warm.epochs[0]["val_mean_auc"] > cold.epochs[0]["val_mean_auc"] + 0.05
    again = pretrain(short, sources, tuesday, earlier=earlier, verbose=0)
    assert again.epochs == warm.epochs
    for other in (None, tmp_path / "cold" / "stage1.keras"):
        with pytest.raises(ModelError, match="another configuration"):
            pretrain(short, sources, tuesday, earlier=other, verbose=0)


def test_another_architecture_is_refused_before_the_rows_are_read(make_config, sources, tmp_path):
    earlier = pretrain(make_config(), sources, tmp_path / "first", verbose=0).model
    absent = sources._replace(train=str(tmp_path / "absent.csv"))
    with pytest.raises(ModelError, match=r"tower_units is \(5,\) and was \(4,\)"):
        pretrain(make_config({"tower_units": [5]}), absent, tmp_path, earlier=earlier, verbose=0)
