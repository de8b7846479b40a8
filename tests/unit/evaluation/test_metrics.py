import numpy as np
import pytest
from sklearn import metrics

from mptrec_tf import DataError, ModelError, Task
from mptrec_tf.evaluation import Scored, evaluate, reliability, score


@pytest.fixture(scope="module")
def predictions(model, rows):
    return model.predict(model.encoder.encode(rows), verbose=0)


def test_a_binary_task_is_measured_with_its_weights(model, rows, predictions):
    known = rows["click"].notna()
    labels, weights = rows["click"][known], rows["weight"][known]
    predicted = predictions["click"][known].astype(float)
    assert evaluate(model, rows)["click"] == pytest.approx(
        {
            "auc": metrics.roc_auc_score(labels, predicted, sample_weight=weights),
            "log_loss": metrics.log_loss(labels, predicted, sample_weight=weights),
            "calibration_error": reliability(labels, predicted, weights).error,
            "rows": known.sum(),
            "positives": labels.sum(),
        },
        rel=1e-5,
    )


def test_a_multiclass_task_is_measured(model, rows, predictions):
    known = rows["kind"].notna()
    labels = rows["kind"][known].map({"u": 0, "v": 1, "w": 2})
    predicted = predictions["kind"][known]
    assert evaluate(model, rows)["kind"] == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(labels, predicted.argmax(axis=1)),
            "log_loss": metrics.log_loss(labels, predicted),
            "rows": known.sum(),
        },
        rel=1e-5,
    )


def test_a_regression_task_is_measured_where_its_mask_is_1(model, rows, predictions):
    known = rows["has_price"] == 1
    labels, predicted = rows["price"][known], predictions["price"][known]
    assert evaluate(model, rows)["price"] == pytest.approx(
        {
            "rmse": metrics.mean_squared_error(labels, predicted) ** 0.5,
            "mae": metrics.mean_absolute_error(labels, predicted),
            "rows": known.sum(),
        },
        rel=1e-5,
    )


def test_positives_are_counted_beyond_what_the_type_of_the_labels_holds():
    """Float16 has no 2049, as float32 has no 16,777,217."""
    labels = np.ones(2050, np.float16)
    labels[0] = 0
    scored = Scored(Task("click", "click"), labels, np.full(2050, 0.5, np.float32))
    assert scored.metrics()["positives"] == 2049


def test_files_and_small_batches_give_what_a_frame_gives(model, rows, tmp_path):
    rows[:100].to_parquet(tmp_path / "rows-0.parquet")
    rows[100:].to_parquet(tmp_path / "rows-1.parquet")
    expected = evaluate(model, rows)
    streamed = evaluate(model, tmp_path / "rows-*.parquet", batch_size=7)
    for name in expected:
        assert streamed[name] == pytest.approx(expected[name], rel=1e-5)


def test_only_the_tasks_whose_label_columns_the_data_have_are_measured(model, rows):
    assert list(evaluate(model, rows.drop(columns=["kind", "price"]))) == ["click"]
    with pytest.raises(DataError, match="no column 'has_price'"):
        evaluate(model, rows.drop(columns="has_price"))
    with pytest.raises(DataError, match="no column 'click'"):
        evaluate(model, rows[["age", "city"]])


def test_a_task_can_be_given_with_another_label_column(model, rows):
    renamed = rows.rename(columns={"click": "clicked"}).drop(columns="weight")
    found = evaluate(model, renamed, [Task("click", "clicked")])
    assert found == evaluate(model, rows, [Task("click", "click")])


def test_an_unknown_task_and_a_task_without_a_label_are_refused(model, rows):
    with pytest.raises(ModelError, match="no task 'buy'"):
        evaluate(model, rows, [Task("buy", "buy")])
    with pytest.raises(DataError, match="no row has a label of the task 'click'"):
        evaluate(model, rows.assign(click=np.nan))


def test_a_rule_that_matches_no_row_is_warned_of(model, rows, recwarn):
    evaluate(model, rows, [Task("click", "kind", positive="u")])
    assert not [warning for warning in recwarn if "no label" in str(warning.message)]
    message = "the data: no label of the task 'click' in column 'kind' is positive='U'"
    with pytest.warns(UserWarning, match=message):
        evaluate(model, rows, [Task("click", "kind", positive="U")])


def test_labels_that_are_all_the_same_are_warned_of(model, rows):
    with pytest.warns(
        UserWarning, match="the data: all labels of .*'click' in column 'click' are 1"
    ):
        evaluate(model, rows.assign(click=1))


def test_a_task_that_contradicts_the_models_is_refused(model, rows):
    classes = {"kind": "multiclass", "classes": ("w", "v", "u")}
    with pytest.raises(ModelError, match=r"'kind'.*\['w', 'v', 'u'\].*\['u', 'v', 'w'\]"):
        evaluate(model, rows, [Task("kind", "kind", **classes)])
    with pytest.raises(ModelError, match=r"'click' was given as regression.* model's is binary;"):
        score(model, rows, [Task("click", "click", kind="regression")])
    # The label may come by another rule, under another mask.
    found = score(model, rows, [Task("click", "age", above=40, mask="has_price")])["click"]
    expected = np.where(rows["has_price"] == 1, rows["age"] > 40, np.nan)
    np.testing.assert_array_equal(found.labels, expected)


def test_scores_keep_the_rows_without_a_label_in_their_place(model, rows, predictions):
    scored = score(model, rows)["click"]
    np.testing.assert_array_equal(scored.labels, rows["click"])
    np.testing.assert_allclose(scored.predictions, predictions["click"], rtol=1e-5)
    np.testing.assert_array_equal(scored.weights, rows["weight"])


def test_the_auc_of_one_class_is_nan():
    labels, predictions = np.array([1.0, 1.0, np.nan]), np.array([0.5, 0.25, 0.1])
    found = Scored(Task("click", "click"), labels, predictions).metrics()
    assert np.isnan(found.pop("auc"))
    assert found == {
        "log_loss": pytest.approx(1.5 * np.log(2)),
        "calibration_error": pytest.approx((0.5 + 0.75) / 2),
        "rows": 2,
        "positives": 2,
    }


def test_a_class_whose_rows_weigh_nothing_is_not_there():
    labels, predictions = np.array([1.0, 1.0, 0.0]), np.array([0.5, 0.25, 0.1])
    weighted = Scored(Task("click", "click"), labels, predictions, np.array([1.0, 2.0, 0.0]))
    assert np.isnan(weighted.metrics()["auc"])
    with pytest.raises(DataError, match="weights of the task 'click' are all 0"):
        weighted._replace(weights=np.zeros(3)).metrics()


def test_the_log_loss_of_float32_sees_what_is_below_its_epsilon():
    labels, predictions = np.float32([1, 0]), np.float32([1e-12, 1e-12])
    found = Scored(Task("click", "click"), labels, predictions).metrics()
    assert found["log_loss"] == pytest.approx(12 * np.log(10) / 2, rel=1e-6)

    task = Task("kind", "kind", kind="multiclass", classes=tuple("abc"))
    predictions = np.float32([[1e-12, 0.5, 0.5], [0.25, 0.5, 0.25]])
    found = Scored(task, np.float32([0, 1]), predictions).metrics()
    assert found["log_loss"] == pytest.approx((12 * np.log(10) + np.log(2)) / 2, rel=1e-6)


@pytest.mark.filterwarnings("error")
def test_float32_probabilities_are_not_warned_of():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (500, 40)).astype(np.float32)
    predictions = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(predictions.sum(axis=1, dtype=np.float64) - 1).max() > 3e-8
    labels = rng.integers(0, 40, 500)
    task = Task("kind", "kind", kind="multiclass", classes=tuple(map(str, range(40))))
    expected = -np.log(predictions[np.arange(500), labels].astype(np.float64)).mean()
    found = Scored(task, labels.astype(np.float32), predictions).metrics()
    assert found["log_loss"] == pytest.approx(expected, rel=1e-7)
    with pytest.warns(UserWarning, match="do not sum to one"):
        Scored(task, labels.astype(np.float32), predictions / 2).metrics()


def test_a_multiclass_task_need_not_show_every_class():
    task = Task("kind", "kind", kind="multiclass", classes=("u", "v", "w"))
    predictions = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    found = Scored(task, np.array([0.0, 2.0]), predictions).metrics()
    assert found == {"accuracy": 0.5, "log_loss": pytest.approx(1.5 * np.log(2)), "rows": 2}
