"""Numbers of tables against SciPy's and ones computed by hand."""

import math

import numpy as np
import pytest
import small_experiments
from scipy import stats
from small_experiments import line

from mptrec_tf.experiments import tables
from mptrec_tf.experiments.tables import Lines, estimate, paired_p

A = {0: 0.80, 1: 0.82, 2: 0.81}
B = {0: 0.79, 1: 0.80, 2: 0.82}


def test_estimate():
    found = estimate(A)
    assert found.mean == pytest.approx(0.81)
    assert found.deviation == pytest.approx(0.01)  # sqrt((1 + 1 + 0) / 2) / 100
    values = list(A.values())
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_has_no_spread():
    found = estimate({3: 0.5})
    assert found.mean == 0.5
    assert all(map(math.isnan, found[2:]))
    assert tables.spread(found) == "0.5000"
    assert tables.interval(found) == "-"


def test_paired_p():
    # Differences 0.01, 0.02, -0.01: mean 0.02 / 3, sample variance 7 / 3e4, so t = 0.75593.
    t = (0.02 / 3) / math.sqrt(7 / 3e4 / 3)
    assert t == pytest.approx(0.75593, abs=1e-5)
    assert paired_p(A, B) == pytest.approx(2 * stats.t.sf(t, 2))


def test_pairs_are_by_seed():
    assert paired_p({2: 0.81, 1: 0.82, 0: 0.80, 7: 0.1}, B) == pytest.approx(paired_p(A, B))
    assert paired_p(A, {0: 0.8}) is None
    assert paired_p(A, A) == 1.0


@pytest.fixture(scope="module")
def lines():
    """Two ways to the task buy, three seeds."""
    experiment = small_experiments.experiment(
        "base.yaml",
        variants=[{"name": "a", "model": "mptrec"}, {"name": "b", "model": "mptrec"}],
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


def test_together(lines):
    table = tables.together_table(lines)
    assert table.header[:4] == ["variant", "click", "95 % interval", "p"]
    first, second = table.rows
    assert first[:2] == ["a (reference)", "0.8100 ± 0.0100"]
    assert first[3] == "-"
    assert second[:2] == ["b", "0.8033 ± 0.0153"]
    assert second[3] == f"{stats.ttest_rel(list(B.values()), list(A.values())).pvalue:.3f}"
    assert second[6] == "1.000"  # like is the same
    assert first[-3:] == ["1,000", "2.5", "11.0 ± 1.0"]


def test_new_task(lines):
    table = tables.new_task_table(lines, ("buy",))
    cells = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert cells[0]["change of click"] == "0, every bit"
    assert cells[0]["parameters trained"] == "250 (20.0%)"
    assert cells[1]["change of click"] == "-0.0100 ± 0.0000"
    assert cells[1]["change of like"] == "+0.0200 ± 0.0000"
    assert cells[1]["MFLOP a row"] == "-"


def test_steps(lines):
    table = tables.steps_table(lines, "a")
    assert [row[0] for row in table.rows] == ["old tasks", "+ buy"]
    assert table.rows[0][3] == "-"  # buy has not come yet
    assert table.rows[1][3] == "0.8100 ± 0.0100"


def test_markdown(lines):
    text = tables.new_task_table(lines, ("buy",)).markdown().splitlines()
    assert text[0].startswith("| variant | buy | 95 % interval | p |")
    assert text[1].startswith("| --- | ---: |")
    assert len(text) == 4


def test_variants_of_the_same_runs_are_shown_once():
    experiment = small_experiments.experiment(
        "base.yaml", variants=[{"name": n, "model": "mptrec"} for n in "ab"], new_tasks=["buy"]
    )
    stored = [line(n, 0, {"click": 0.8}, digest="same") for n in "ab"]
    assert Lines(experiment, stored).distinct(()) == ["a"]
