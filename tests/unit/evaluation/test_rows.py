"""What measures of a binary task refuse, and what they give for no rows."""

import re

import numpy as np
import pytest

from mptrec_tf import DataError, ModelError, Task
from mptrec_tf.evaluation import Scored, grouped_auc, reliability

ROWS = {
    "labels": np.array([0.0, 1.0, 1.0]),
    "predictions": np.array([0.2, 0.9, 0.4]),
    "weights": np.array([1.0, 0.0, 2.0]),
}
GROUPS = np.array(["u", "u", "u"])
NONE = dict.fromkeys(ROWS, np.array([]))


def in_groups(labels, predictions, weights=None):
    return grouped_auc(labels, predictions, GROUPS[: len(labels)], weights)


@pytest.fixture(params=[in_groups, reliability])
def measure(request):
    return request.param


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("labels", 2, "0 or 1"),
        ("labels", np.nan, "0 or 1"),
        ("predictions", np.nan, "finite numbers"),
        ("predictions", np.inf, "finite numbers"),
        ("weights", -1, "finite numbers, 0 or more"),
        ("weights", np.nan, "finite numbers, 0 or more"),
        ("weights", np.inf, "finite numbers, 0 or more"),
    ],
)
def test_a_wrong_value_is_named(measure, name, value, expected):
    wrong = ROWS[name].copy()
    wrong[1] = value
    with pytest.raises(DataError, match=f"^{name} must be {expected}. Received: {value:g}$"):
        measure(**{**ROWS, name: wrong})
    with pytest.raises(DataError, match=f"^{name} must be numbers: .*'x'"):
        measure(**{**ROWS, name: ["x", 0, 1]})


@pytest.mark.parametrize("name", ROWS)
def test_arrays_of_other_shapes_are_named(measure, name):
    for wrong in (ROWS[name][:2], ROWS[name][:, None]):
        with pytest.raises(DataError, match=re.escape(f"'{name}': {wrong.shape}")):
            measure(**{**ROWS, name: wrong})
    with pytest.raises(DataError, match=r"groups must have one shape.*'groups': \(2,\)"):
        grouped_auc(ROWS["labels"], ROWS["predictions"], GROUPS[:2])


@pytest.mark.parametrize("bins", [0, -1, 2.5])
def test_there_are_as_many_bins_as_can_be(bins):
    with pytest.raises(ValueError, match=f"^bins must be .*1 or more. Received: {bins}$"):
        reliability(**ROWS, bins=bins)


@pytest.mark.parametrize("rows", [NONE, {**ROWS, "weights": np.zeros(3)}])
def test_rows_that_are_not_there_or_weigh_nothing_give_nan(rows):
    found = in_groups(**rows)
    assert np.isnan(found.auc)
    assert found[1:] == (0, 0, 0)
    bins = reliability(**rows)
    assert [len(part) for part in bins] == [0, 0, 0]
    assert np.isnan(bins.error)


def test_lists_of_whole_numbers_are_rows_too():
    assert in_groups([0, 1, 1], [1, 2, 2]).auc == 1
    assert reliability([0, 1, 1], [0, 1, 1], [1, 1, 1]).error == 0


@pytest.mark.parametrize("ask", [Scored.metrics, Scored.reliability])
def test_a_task_without_a_label_is_not_one_whose_weights_are_0(ask):
    scored = Scored(Task("click", "click"), ROWS["labels"], ROWS["predictions"])
    with pytest.raises(DataError, match=r"^no row has a label of the task 'click'$"):
        ask(scored._replace(labels=np.full(3, np.nan)))
    for labels, weights in ((ROWS["labels"], [0, 0, 0]), (np.array([0, 1, np.nan]), [0, 0, 1])):
        with pytest.raises(DataError, match="weights of the task 'click' are all 0"):
            ask(scored._replace(labels=labels, weights=np.array(weights)))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_predictions_that_are_no_numbers_name_the_task(wrong):
    labels = np.array([0, 1, 2, np.nan])
    kind = Task("kind", "kind", kind="multiclass", classes=("u", "v", "w"))
    for task, shape in (
        (Task("click", "click"), 4),
        (Task("price", "price", kind="regression"), 4),
        (kind, (4, 3)),
    ):
        predictions = np.full(shape, 1 / 3, np.float32)
        predictions[3:] = wrong  # of a row without a label: no matter
        scored = Scored(task, np.minimum(labels, task.num_outputs), predictions)
        assert scored.metrics()["rows"] == 3
        predictions[:2] = wrong
        with pytest.raises(ModelError, match=f"^2 of 3 rows .* task '{task.name}' .* no finite"):
            scored.metrics()


def test_reliability_is_of_binary_tasks():
    task = Task("price", "price", kind="regression")
    with pytest.raises(DataError, match="'price' is regression"):
        Scored(task, ROWS["labels"], ROWS["predictions"]).reliability()
