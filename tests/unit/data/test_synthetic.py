"""The truth behind synthetic rows, from the written files alone."""

import collections
import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from mptrec_tf import DataError
from mptrec_tf.data import byte_rec, synthetic
from mptrec_tf.data.synthetic import writing
from mptrec_tf.data.synthetic.truth import Truth, Zipf, mixed

ROWS = 60_000


def byte_rec_rows(directory, rows=ROWS, **arguments):
    (path,) = synthetic.generate_byte_rec(directory, rows, progress=False, **arguments)
    return pd.read_csv(path, sep="\t", header=None, names=byte_rec.COLUMNS)


def expected_together(rates, correlation, signal):
    """How often two labels are both 1, if their logits are normal: integrated numerically."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    first_bias, second_bias = (
        brentq(lambda bias, rate=rate: weights @ expit(bias + signal * points) - rate, -30, 30)
        for rate in rates
    )
    one, other = points[:, None], points[None, :]
    first = expit(first_bias + signal * one)
    mixture = correlation * one + np.sqrt(1 - correlation**2) * other
    second = expit(second_bias + signal * mixture)
    return float(weights @ (first * second) @ weights)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_labels_occur_as_often_alone_and_together_as_the_arguments_say(tmp_path, correlation):
    rates = {"finish": 0.4, "like": 0.2, "long": 0.5}
    rows = byte_rec_rows(
        tmp_path, signal=2.0, correlation=correlation, rates=rates, zipf=0.5, seed=4
    )
    labels = {
        "finish": rows["finish"],
        "like": rows["like"],
        "long": (rows["duration_time"] > 10).astype(int),
    }
    for task, rate in rates.items():
        assert labels[task].mean() == pytest.approx(rate, abs=0.01)
    together = (labels["finish"] * labels["like"]).mean()
    assert together == pytest.approx(expected_together([0.4, 0.2], correlation, 2.0), abs=0.01)
    third = (labels["finish"] * labels["long"]).mean()
    assert third == pytest.approx(expected_together([0.4, 0.5], correlation, 2.0), abs=0.013)


def scores_of(rows, label, columns):
    """Predictions for the second half by a linear model of the ids, learned from the first."""
    half = len(rows) // 2
    ids = OneHotEncoder(handle_unknown="ignore").fit_transform(rows[columns])
    model = LogisticRegression(C=0.3, max_iter=300).fit(ids[:half], rows[label][:half])
    return model.predict_proba(ids[half:])[:, 1]


def test_specific_signal_is_of_no_use_to_another_task_and_shared_signal_is(tmp_path):
    columns = ["item_city", "user_city", "channel", "music_id"]
    found = {}
    for correlation in (0.0, 1.0):
        rows = byte_rec_rows(
            tmp_path / str(correlation), users=400, items=400, signal=3.0,
            correlation=correlation, rates={"finish": 0.5, "like": 0.5}, zipf=0.3, seed=1,
        )  # fmt: skip
        scores = scores_of(rows, "finish", columns)
        tested = rows[len(rows) // 2 :]
        found[correlation] = [roc_auc_score(tested[label], scores) for label in ("finish", "like")]
    assert found[0.0][0] > 0.6
    assert abs(found[0.0][1] - 0.5) < 0.03
    assert found[1.0][0] > 0.6
    assert abs(found[1.0][0] - found[1.0][1]) < 0.02


def test_the_best_auc_is_that_of_the_true_probabilities(tmp_path):
    rows = byte_rec_rows(tmp_path, signal=1.5, seed=7)
    said = json.loads((tmp_path / writing.TRUTH_FILE).read_text())
    assert said["synthetic"] is True
    blind = byte_rec_rows(tmp_path / "no signal", signal=0.0, seed=7)
    silent = json.loads((tmp_path / "no signal" / writing.TRUTH_FILE).read_text())
    assert len(blind) == len(rows)
    for task in ("finish", "like", "long"):
        assert silent["best_auc"][task] == pytest.approx(0.5, abs=0.02)
        assert 0.75 < said["best_auc"][task] < 0.9
    # With normal logits of standard deviation 1.5 and half of the rows positive.
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.standard_normal(400_000)
    best = roc_auc_score(rng.random(400_000) < expit(logits), logits)
    assert said["best_auc"]["long"] == pytest.approx(best, abs=0.015)


@pytest.mark.parametrize("exponent", [0.7, 1.2])
def test_ids_follow_zipfs_law(tmp_path, exponent):
    rows = byte_rec_rows(tmp_path, users=300, items=1000, zipf=exponent)
    for name in ("uid", "item_id"):
        counts = np.bincount(rows[name])[:60]
        slope = np.polyfit(np.log(np.arange(1, 61)), np.log(counts), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.06)
    attributes = rows.groupby("item_id")[["author_id", "music_id", "item_city"]].nunique()
    assert attributes.to_numpy().max() == 1


def test_zipf_of_exponent_0_is_uniform_and_stays_within():
    drawn = Zipf(5, 0.0).draw(np.random.default_rng(0), 50_000)
    np.testing.assert_allclose(np.bincount(drawn) / 50_000, 0.2, atol=0.01)


def read_ali_ccp(directory, name):
    """Samples and common features, split as the format says."""
    samples = []
    for line in (directory / f"synthetic_sample_skeleton_{name}.csv").open(newline="\n"):
        number, click, conversion, index, count, text = line.rstrip("\n").split(",")
        features = [f.replace("\x03", "\x02").split("\x02") for f in text.split("\x01")]
        assert all(len(feature) == 3 and float(feature[2]) > 0 for feature in features)
        assert len(features) == int(count)
        fields = collections.defaultdict(list)
        for field, value, _ in features:
            fields[field].append(value)
        samples.append((int(number), int(click), int(conversion), index, dict(fields)))
    common = {}
    for line in (directory / f"synthetic_common_features_{name}.csv").open(newline="\n"):
        index, count, text = line.rstrip("\n").split(",")
        assert len(text.split("\x01")) == int(count)
        common[index] = text
    return samples, common


def test_ali_ccp_has_the_format_and_the_funnel_that_was_asked_for(tmp_path):
    rates = {"click": 0.2, "conversion": 0.3, "scenario": 0.4}
    synthetic.generate_ali_ccp(
        tmp_path, 40_000, test_rows=500, users=700, items=2000, history=3, rates=rates,
        signal=1.5, progress=False,
    )  # fmt: skip
    samples, common = read_ali_ccp(tmp_path, "train")
    assert len(samples) == 40_000
    assert len({number for number, *_ in samples}) == 40_000
    assert len(common) == 700
    assert {index for _, _, _, index, _ in samples} <= set(common)
    assert all(len(index) == 32 for index in common)
    clicks = np.array([click for _, click, *_ in samples])
    conversions = np.array([conversion for _, _, conversion, *_ in samples])
    assert not np.any(conversions > clicks)
    assert clicks.mean() == pytest.approx(0.2, abs=0.01)
    assert conversions.sum() / clicks.sum() == pytest.approx(0.3, abs=0.025)
    scenarios = collections.Counter(fields["301"][0] for *_, fields in samples)
    assert set(scenarios) == {"1", "2", "3"}
    assert 1 - scenarios["2"] / 40_000 == pytest.approx(0.4, abs=0.012)
    assert {len(fields["205"]) for *_, fields in samples} == {1}
    assert {len(fields["210"]) for *_, fields in samples} == {1, 2, 3}
    texts = " ".join(common.values())
    for field in ("101", "121", "129", "109_14", "110_14", "127_14", "150_14"):
        assert f"{field}\x02" in texts
    lengths = [text.count("109_14\x02") for text in common.values()]
    assert np.mean(lengths) == pytest.approx(3, abs=0.25)
    ids_by_field = collections.defaultdict(set)
    for *_, fields in samples:
        for field, values in fields.items():
            ids_by_field[field].update(values)
    assert not ids_by_field["205"] & ids_by_field["206"]
    tested, others = read_ali_ccp(tmp_path, "test")
    assert len(tested) == 500
    assert others == common
    assert {row[0] for row in tested}.isdisjoint(row[0] for row in samples)


def test_the_seed_decides_everything_and_chunks_nothing_but_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK_ROWS", 1000)
    for name, rows, seed in (("a", 3000, 5), ("b", 3000, 5), ("c", 2000, 5), ("d", 3000, 6)):
        sizes = {"users": 100, "items": 100, "test_rows": 100}
        synthetic.generate_ali_ccp(tmp_path / name, rows, seed=seed, progress=False, **sizes)
    contents = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abcd"
    }
    assert contents["a"] == contents["b"]
    assert contents["a"][:4] != contents["d"][:4]
    skeleton = "synthetic_sample_skeleton_train.csv"
    long, short = ((tmp_path / name / skeleton).read_bytes() for name in "ac")
    assert long.startswith(short)
    assert not list(tmp_path.rglob("*partial*"))
    assert all(path.name.startswith("synthetic_") for path in (tmp_path / "a").iterdir())


def test_scores_of_new_rows_have_variance_1_and_no_correlation():
    rng = np.random.default_rng(0)
    ids = {name: rng.integers(0, 3000, 200_000) for name in "abcdef"}
    half = {name: values[:100_000] for name, values in ids.items()}
    truth = Truth.of(
        half, seed=1, rates={"x": 0.3, "y": 0.1}, after={}, correlation=0.7, signal=2.0
    )
    rest = {name: values[100_000:] for name, values in ids.items()}
    np.testing.assert_allclose(np.cov(truth.scores(rest), rowvar=False), np.eye(3), atol=0.03)
    logits = truth.logits(rest)
    assert np.corrcoef(logits, rowvar=False)[0, 1] == pytest.approx(0.7, abs=0.02)
    np.testing.assert_allclose(logits.std(axis=0), 2.0, rtol=0.02)
    np.testing.assert_allclose(expit(logits).mean(axis=0), [0.3, 0.1], atol=0.005)


def test_mixed_numbers_look_random():
    found = mixed(3, np.arange(4)[:, None], np.arange(50_000))
    assert found.shape == (4, 50_000)
    assert len(np.unique(found)) == found.size
    uniform = found / 2.0**64
    assert np.abs(np.corrcoef(uniform) - np.eye(4)).max() < 0.02
    np.testing.assert_allclose(uniform.mean(axis=1), 0.5, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows is 0, expected 1 or more"),
        ({"users": -1}, "users is -1, expected 1 or more"),
        ({"rates": {"buy": 0.1}}, r"no task 'buy'; the tasks are \['finish', 'like', 'long'\]"),
        ({"rates": {"like": 1.0}}, "the rate of 'like' is 1.0, expected more than 0 and less"),
        ({"correlation": 1.5}, "the correlation is 1.5, expected 0 to 1"),
        ({"signal": -1.0}, "the signal is -1.0, expected 0 to 10"),
    ],
)
def test_arguments_that_cannot_be(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        synthetic.generate_byte_rec(tmp_path, **{"rows": 10, **arguments})
