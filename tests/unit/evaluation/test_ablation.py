import math

import pytest

from mptrec_tf.evaluation import ablation_table
from mptrec_tf.evaluation.ablation import summarize

STORED = {
    "command": "python ablation.py",
    "seeds": [0, 1],
    "forms": {
        "none": {
            "validation": {"income": [0.90, 0.92], "education": [0.80, 0.80]},
            "test": {"income": [0.95, 0.97], "education": [0.85, 0.85]},
        },
        "representations": {
            "validation": {"income": [0.92, 0.94], "education": [0.80, 0.80]},
            "test": {"income": [0.91, 0.91], "education": [0.81, 0.83]},
        },
    },
}


def test_the_best_form_on_validation_comes_first_whatever_test_says():
    best, other = summarize(STORED)
    assert (best.name, other.name) == ("representations", "none")
    assert best.mean_validation == pytest.approx(0.865)
    assert other.test["income"] == pytest.approx((0.96, 0.02 / math.sqrt(2)))
    assert other.validation["education"] == pytest.approx((0.80, 0.0), abs=1e-12)


def test_one_seed_has_no_deviation():
    form = {"validation": {"income": [0.9]}, "test": {"income": [0.8]}}
    (only,) = summarize({"forms": {"none": form}})
    assert only.test["income"].mean == 0.8
    assert math.isnan(only.test["income"].deviation)


def test_the_table_marks_the_best_form_and_the_one_in_use():
    lines = ablation_table(STORED, used="none").splitlines()
    assert "python ablation.py" in lines[0]
    assert lines[2].startswith("representations")
    assert lines[2].endswith("best on validation")
    assert lines[3].startswith("none")
    assert "0.9600 ± 0.0141" in lines[3]
    assert lines[3].endswith("used here")
