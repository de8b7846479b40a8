"""What tables say of stored results, against figures computed by hand."""

import math

import pytest
import small_experiments
from scipy import stats
from small_experiments import line

from mptrec_tf.errors import ModelError
from mptrec_tf.experiments import tables
from mptrec_tf.experiments.lines import Lines

A = {0: 0.80, 1: 0.82, 2: 0.81}
B = {0: 0.79, 1: 0.80, 2: 0.82}
TWO = [{"name": "a", "model": "mptrec"}, {"name": "b", "model": "mptrec"}]


@pytest.fixture(scope="module")
def lines():
    """Two ways to the task buy, three seeds."""
    experiment = small_experiments.experiment(
        "base.yaml",
        variants=TWO,
        new_tasks=["buy"],
    )
    stored = []
    for seed in range(3):
        old = {"click": A[seed], "like": 0.7}
        stored += [line("a", seed, old), line("b", seed, {**old, "click": B[seed]})]
        stored.append(
            line("a", seed, {**old, "buy": A[seed]}, ("buy",), old_tasks_identical=True,
                 trained_parameters=250, parameters=1250)
        )  # fmt: skip
        worse = {"click": B[seed] - 0.01, "like": 0.72, "buy": B[seed]}
        stored.append(line("b", seed, worse, ("buy",), flops=None))
    stored.append(line("gone", 0, {"click": 0.5}))
    return Lines(experiment, stored)


def cells(table):
    """The rows of a table, by what each is of."""
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def test_together(lines):
    found = cells(tables.together_table(lines))
    first, second = found["a (reference)"], found["b"]
    assert (first["seeds"], first["click"]) == ("3", "0.81000 ± 0.01000")
    assert first["click: difference"] == "-"
    assert second["click"] == "0.80333 ± 0.01528"
    p = stats.ttest_rel(list(B.values()), list(A.values())).pvalue
    assert second["click: difference"] == f"-0.00667 (p {p:.3f})"
    assert second["like: difference"] == "+0.00000 (p 1.000)"
    assert second["mean AUC"] == "0.75167 ± 0.00764"
    assert list(first.values())[-4:] == ["1,000", "2.5", "0.8", "11.0 ± 1.0"]


def test_new_task(lines):
    found = cells(tables.new_task_table(lines, ("buy",)))
    first, second = found["a (reference)"], found["b"]
    assert first["change of click"] == "0, every bit"
    assert first["parameters trained"] == "250 (20.0%)"
    assert second["change of click"] == "-0.01000 ± 0.00000"
    assert second["change of like"] == "+0.02000 ± 0.00000"
    assert second["MFLOP to train"] == "-"


def test_variants_are_compared_over_the_seeds_that_both_have():
    experiment = small_experiments.experiment("base.yaml", variants=TWO)
    areas = {"a": [0.90, 0.91, 0.94, 0.95, 0.96], "b": [0.914, 0.926]}
    stored = [line(v, seed, {"click": x}) for v, xs in areas.items() for seed, x in enumerate(xs)]
    stored += [line("gone", 0, {"click": 0.5}), line("a", 77, {"click": 0.1})]
    lines = Lines(experiment, stored)
    found = cells(tables.together_table(lines))
    assert found["a (reference)"]["click"].startswith("0.93200 ± ")
    assert found["b"]["seeds"] == "2"
    assert found["b"]["click: difference"].startswith("+0.01500 (p ")
    assert lines.missing() == {"b": (3, 5)}
    assert lines.seeds == [0, 1, 2, 3, 4]


def test_a_mean_is_of_areas_only():
    experiment = small_experiments.experiment("base.yaml", variants=TWO)
    price = {"price": {"rmse": 7.0, "rows": 100}}
    stored = line("a", 0, {"click": 0.8, "like": 0.7})
    stored["test"] = stored["test"] | price
    stored["tasks"] = [*stored["tasks"], "price"]
    lines = Lines(experiment, [stored])
    qualities = {quality.name: quality for quality in lines.qualities(lines.old_tasks)}
    assert qualities["mean AUC"].value(stored) == pytest.approx(0.75)
    assert (qualities["price"].metric, qualities["price"].sign) == ("RMSE of price", -1)


def test_steps(lines):
    (row, _) = cells(tables.steps_table(lines, "click")).values()
    assert row["at first"] == row["+ buy"] == "0.81000 ± 0.01000"
    assert row["change"] == "0, every bit"
    (_, row) = cells(tables.steps_table(lines, "click")).values()
    assert row["change"] == "-0.01000 ± 0.00000"
    (_, row) = cells(tables.steps_table(lines, "buy")).values()
    assert row["+ buy"] == "0.80333 ± 0.01528"
    assert row["difference at the end"].startswith("-0.00667 (p ")
    assert "at first" not in row
    (row, _) = cells(tables.steps_costs_table(lines)).values()
    assert row["+ buy"] == "250 (20.0%), 11.0 ± 1.0 s"


def test_steps_are_over_the_same_seeds():
    experiment = small_experiments.experiment(
        "base.yaml", variants=TWO, new_tasks=["buy"], one_after_another=True
    )
    stored = [line("a", seed, {"click": area}) for seed, area in ((0, 0.7), (1, 0.8))]
    stored.append(line("a", 1, {"click": 0.8, "buy": 0.6}, new_tasks=["buy"]))
    lines = Lines(experiment, stored)
    (row,) = cells(tables.steps_table(lines, "click")).values()
    assert row["at first"] == row["+ buy"] == "0.80000"
    assert row["seeds"] == "1"


def test_verdict():
    experiment = small_experiments.experiment(
        "base.yaml", variants=[*TWO, {"name": "c", "model": "mmoe"}]
    )
    stored = []
    for seed in range(5):
        noise = seed % 2 / 1000
        areas = {"a": 0.8, "b": 0.82 + noise, "c": 0.79 - noise}
        stored += [line(variant, seed, {"click": area}) for variant, area in areas.items()]
    lines = Lines(experiment, stored)
    (click,) = lines.qualities(["click"])
    assert tables.verdict(lines, (), click) == (
        "Best AUC of click: b, 0.82040. Against a, with p below 0.05, better: b; worse: c."
    )
    one = Lines(experiment, stored[:3])
    assert tables.verdict(one, (), click) == "Best AUC of click: b, 0.82000."


def test_figures_of_other_rows_are_not_compared():
    experiment = small_experiments.experiment("base.yaml", variants=TWO)
    stored = []
    for seed in range(3):
        stored.append(line("a", seed, {"click": 0.8, "like": 0.7}))
        whole = {"click": {"auc": 0.8, "rows": 100}, "like": {"auc": 0.9, "rows": 250}}
        stored.append(line("b", seed, {"click": 0.8, "like": 0.9}, test=whole))
    lines = Lines(experiment, stored)
    assert lines.other_rows("b", ()) == {"like": (250, 100)}
    assert not lines.other_rows("a", ())
    row = cells(tables.together_table(lines))["b"]
    assert (row["like"], row["like: difference"]) == ("0.90000 ± 0.00000", "-")
    assert row["click: difference"] == row["mean AUC: difference"] == "-"
    assert tables.verdict(lines, (), lines.quality("like")) == ""


def test_an_undefined_figure_is_none():
    experiment = small_experiments.experiment("base.yaml", variants=TWO)
    areas = {("a", 0): math.nan, ("a", 1): 0.8, ("b", 0): 0.7, ("b", 1): 0.7}
    stored = [line(variant, seed, {"click": area}) for (variant, seed), area in areas.items()]
    lines = Lines(experiment, stored)
    row = cells(tables.together_table(lines))["a (reference)"]
    assert row["click"] == "0.80000"
    text = "Best AUC of click, over the 1 seed that all have: a, 0.80000."
    assert tables.verdict(lines, (), lines.quality("click")).startswith(text)


def test_the_best_is_of_the_seeds_that_all_have():
    experiment = small_experiments.experiment("base.yaml", variants=TWO)
    areas = {("a", 0): 0.94, ("a", 1): 0.96, ("b", 1): 0.955}
    stored = [line(variant, seed, {"click": area}) for (variant, seed), area in areas.items()]
    lines = Lines(experiment, stored)
    (click,) = lines.qualities(["click"])
    text = "Best AUC of click, over the 1 seed that all have: a, 0.96000."
    assert tables.verdict(lines, (), click) == text
    apart = Lines(experiment, [stored[0], stored[2]])
    assert tables.verdict(apart, (), click).startswith("No best AUC of click: no seed")


def test_identical_hides_no_change():
    experiment = small_experiments.experiment("base.yaml", variants=TWO, new_tasks=["buy"])
    elsewhere = line("a", 0, {"click": 0.8, "buy": 0.7}, ("buy",), old_tasks_identical=True)
    lines = Lines(experiment, [line("a", 0, {"click": 0.7}), elsewhere])
    (row,) = cells(tables.new_task_table(lines, ("buy",))).values()
    assert row["change of click"] == "+0.10000"


def test_a_result_that_is_there_twice_is_refused():
    experiment = small_experiments.experiment("base.yaml", variants=TWO, new_tasks=["buy"])
    stored = [line("a", 1, {"buy": area}, ("buy",), digest=str(area)) for area in (0.7, 0.8)]
    with pytest.raises(ModelError, match=r"tiny.jsonl: 'a' after buy with seed 1 is there twice"):
        Lines(experiment, stored)


def test_markdown(lines):
    text = tables.new_task_table(lines, ("buy",)).markdown().splitlines()
    assert text[0].startswith("| variant | seeds | buy | buy: difference |")
    assert text[1].startswith("| --- | ---: | ---: |")
    assert len(text) == 4


def test_variants_of_the_same_runs_are_shown_once_also_where_one_has_fewer_seeds():
    experiment = small_experiments.experiment("base.yaml", variants=TWO, new_tasks=["buy"])
    stored = [line(n, 0, {"click": 0.8}, digest="same") for n in "ab"]
    stored.append(line("a", 1, {"click": 0.9}, digest="another seed"))
    lines = Lines(experiment, stored)
    assert lines.distinct(()) == {"a and 1 more": "a"}
    second = small_experiments.experiment("base.yaml", variants=TWO, reference="b")
    assert Lines(second, stored[:2]).distinct(()) == {"b and 1 more": "b"}
    assert cells(tables.together_table(lines))["a and 1 more (reference)"]["seeds"] == "2"


def test_a_bar_in_a_name_begins_no_cell():
    table = tables.Table(["variant", "n"], [["A|B", "1"]])
    assert table.markdown().splitlines()[-1] == r"| A\|B | 1 |"
