"""Metrics of slices, against scikit-learn on the rows of each."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mptrec_tf import DataError
from mptrec_tf.evaluation import evaluate, metrics_by_slice, read_columns, score


def test_each_slice_is_measured_as_if_it_were_all_rows(model, rows):
    scored = score(model, rows)
    for task in ("click", "kind", "price"):
        found = metrics_by_slice(scored[task], read_columns(rows, ["city"]))
        assert set(found) == {"city = Lima", "city = Oslo", "city = Rome"}
        for name, metrics in found.items():
            alone = rows[rows["city"] == name.removeprefix("city = ")]
            assert metrics == pytest.approx(evaluate(model, alone)[task], rel=1e-5)


def test_columns_together_the_largest_first_and_no_more_than_asked_for(model, rows):
    columns = read_columns(rows, ["city", "has_price"])
    click = score(model, rows)["click"]
    found = metrics_by_slice(click, columns)
    assert len(found) == 6
    counts = rows["click"].notna().groupby([rows["city"], rows["has_price"]]).sum()
    city, price = counts.idxmax()
    first = f"city = {city}, has_price = {price}"
    assert next(iter(found)) == first
    assert list(metrics_by_slice(click, columns, most=1)) == [first]

    chosen = (rows["city"] == city) & (rows["has_price"] == price) & rows["click"].notna()
    expected = roc_auc_score(
        rows["click"][chosen], click.predictions[chosen], sample_weight=rows["weight"][chosen]
    )
    assert found[first]["auc"] == pytest.approx(expected)


def test_rows_without_a_value_are_a_slice_and_slices_without_a_label_are_none(model, rows):
    changed = rows.assign(city=rows["city"].where(rows["city"] != "Rome"))
    changed.loc[rows["city"] == "Oslo", "click"] = np.nan
    found = metrics_by_slice(score(model, changed)["click"], read_columns(changed, ["city"]))
    assert set(found) == {"city = ", "city = Lima"}


@pytest.mark.parametrize("empty", [None, np.nan, ""])
def test_an_empty_cell_is_a_value_of_its_own(model, rows, empty):
    click = score(model, rows)["click"]
    cities = rows["city"].to_numpy(object)
    expected = metrics_by_slice(click, {"city": cities})["city = Rome"]
    cities = np.where(cities == "Rome", empty, cities)
    found = metrics_by_slice(click, {"city": cities})
    assert set(found) == {"city = ", "city = Lima", "city = Oslo"}
    assert found["city = "] == expected
    old = np.where(rows["age"] > 40, 1.5, np.nan)
    assert {"old = 1.5", "old = "} == set(metrics_by_slice(click, {"old": old}))
    assert len(metrics_by_slice(click, {"city": cities, "old": old})) == 6


@pytest.mark.parametrize("count", [300, 302])
def test_a_column_of_other_rows_is_named(model, rows, count):
    click = score(model, rows)["click"]
    with pytest.raises(DataError, match=f"'city' must .* each of 301 rows. Received: {count}"):
        metrics_by_slice(click, {"city": np.full(count, "Rome")})


def test_a_column_that_is_not_there_is_named(rows, tmp_path):
    rows.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows.parquet: no column 'cty' \(did you mean 'city'"):
        read_columns(tmp_path / "rows.parquet", ["cty"])
    found = read_columns(tmp_path / "rows.parquet", ["city"])["city"]
    np.testing.assert_array_equal(found, rows["city"])
