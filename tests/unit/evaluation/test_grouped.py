"""The AUC within groups, against scikit-learn group by group."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mptrec_tf import DataError, Task
from mptrec_tf.evaluation import Scored, evaluate, grouped_auc


def one_by_one(frame):
    areas, sizes, left_out = [], [], 0
    for _, rows in frame[frame["weight"] > 0].groupby("group"):
        if rows["label"].nunique() < 2:
            left_out += 1
            continue
        areas.append(roc_auc_score(rows["label"], rows["score"], sample_weight=rows["weight"]))
        sizes.append(rows["weight"].sum())
    return np.average(areas, weights=sizes), len(areas), left_out, 0


@pytest.mark.parametrize("weighted", [False, True])
def test_is_the_mean_of_the_groups(weighted):
    rng, count = np.random.default_rng(0), 2000
    frame = pd.DataFrame(
        {
            "group": rng.zipf(1.5, count).clip(max=300).astype(str),
            "label": rng.integers(0, 2, count),
            "score": rng.integers(0, 12, count) / 12,  # many ties
            "weight": rng.integers(0, 3, count) if weighted else np.ones(count),
        }
    )
    expected = one_by_one(frame)
    weights = frame["weight"].to_numpy() if weighted else None
    found = grouped_auc(*(frame[c].to_numpy() for c in ("label", "score", "group")), weights)
    assert found == pytest.approx(expected)
    assert found.left_out > 10


def test_one_group_is_the_plain_auc_and_order_of_rows_is_no_matter():
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 100), rng.random(100)
    found = grouped_auc(labels, scores, np.full(100, "u"))
    assert found == pytest.approx((roc_auc_score(labels, scores), 1, 0, 0))
    order = rng.permutation(100)
    assert grouped_auc(labels[order], scores[order], np.full(100, "u")) == pytest.approx(found)


def test_groups_of_one_class_only():
    found = grouped_auc(np.array([1, 1, 0]), np.array([0.1, 0.2, 0.3]), np.array(["u", "u", "v"]))
    assert np.isnan(found.auc)
    assert found[1:] == (0, 2, 0)


@pytest.mark.parametrize("empty", [None, np.nan, ""])
def test_rows_without_a_group_are_no_group_together(empty):
    rng = np.random.default_rng(2)
    labels, scores, weights = rng.integers(0, 2, 60), rng.random(60), rng.integers(0, 3, 60)
    groups = np.array(["u", "v", empty] * 20, object)
    there = np.isin(groups, ["u", "v"])
    found = grouped_auc(labels, scores, groups, weights)
    alone = grouped_auc(*(part[there] for part in (labels, scores, groups, weights)))
    assert found == alone._replace(rows_without_group=np.count_nonzero(weights[~there]))
    nobody = grouped_auc(labels, scores, np.full(60, empty, object))
    assert np.isnan(nobody.auc)
    assert nobody[1:] == (0, 0, 60)


def test_a_model_is_measured_within_the_values_of_a_column(model, rows):
    predictions = model.predict(model.encoder.encode(rows), verbose=0)["click"]
    known = rows["click"].notna()
    frame = pd.DataFrame(
        {
            "group": rows["city"],
            "label": rows["click"],
            "score": predictions.astype(float),
            "weight": rows["weight"],
        }
    )[known]
    found = evaluate(model, rows, group="city")
    names = ("grouped_auc", "groups", "groups_left_out", "rows_without_group")
    assert tuple(found["click"][name] for name in names) == pytest.approx(
        one_by_one(frame), rel=1e-5
    )
    assert not set(names) & set(found["kind"])


def test_rows_whose_cell_is_empty_are_counted(model, rows):
    changed = rows.assign(user=rows["city"].where(rows["city"] != "Rome"))
    click = evaluate(model, changed, group="user")["click"]
    assert click["groups"] == 2
    counted = rows["click"].notna() & (rows["weight"] > 0)
    assert click["rows_without_group"] == np.count_nonzero(counted & (rows["city"] == "Rome"))


def test_groups_that_are_not_one_for_each_row_are_refused():
    labels, predictions = np.float32([0, 1, 1]), np.float32([0.1, 0.8, 0.3])
    scored = Scored(Task("click", "click"), labels, predictions)
    assert scored.metrics(["u", "u", "v"])["groups_left_out"] == 1
    with pytest.raises(DataError, match=r"one for each of 3 rows. Received: .* shape \(2,\)"):
        scored.metrics(["u", "v"])
