import copy
import math
import sys

import pytest

from mptrec_tf.evaluation import plots, results_table, write_report

EPOCHS = [
    {
        f"{prefix}{task}_{metric}": 0.5 + 0.1 * epoch
        for prefix in ("", "val_")
        for task in ("income", "<b>like", "education")
        for metric in ("loss", "auc")
    }
    for epoch in range(3)
]
RESULTS = {
    "seed": 0,
    "stage1": {
        "tasks": ["income", "<b>like"],
        "validation": {"income": {"auc": 0.91}, "<b>like": {"auc": 0.92}},
        "test": {"income": {"auc": 0.93}, "<b>like": {"auc": 0.94}},
        "epochs": EPOCHS,
        "best_epoch": 2,
    },
    "stage2": {
        "task": "education",
        "validation": {
            "income": {"auc": 0.91},
            "<b>like": {"auc": 0.92},
            "education": {"auc": 0.81},
        },
        "test": {"income": {"auc": 0.93}, "<b>like": {"auc": 0.94}, "education": {"auc": 0.83}},
        "trainable_parameters": 1250,
        "total_parameters": 10000,
        "old_tasks_identical": True,
        "epochs": EPOCHS,
        "best_epoch": 1,
    },
    "old_tasks": {
        "identical": True,
        "rows": 1234,
        "differing_rows": {"income": 0, "<b>like": 0},
        "weights_before": "abc",
        "weights_after": "abc",
    },
    "gate_weights": {
        "edges": [0.0, 0.5, 1.0],
        "means": {"income": 0.3, "<b>like": 0.4, "education": 0.5},
        "counts": {"income": [1, 2], "<b>like": [3, 0], "education": [1, 1]},
    },
    "prompt_weights": {
        "education": {
            "edges": [0.4, 0.5, 0.6],
            "means": {"income": 0.45, "<b>like": 0.55},
            "counts": {"income": [3, 0], "<b>like": [0, 3]},
        }
    },
    "seconds": {"stage1": 100.0, "stage2": 50.0},
    "rows": {"train": 1000, "validation": 617, "test": 617},
    "settings": {
        "stage1": {"model": {"adversarial": None}},
        "stage2": {},
        "data": {},
        "tasks": [],
        "features": [{"kind": "numeric", "name": "age"}],
    },
    "versions": {"python": "3.11"},
}


@pytest.fixture
def page(tmp_path):
    """Writes a report and returns its text."""

    def write(results=RESULTS, **arguments):
        write_report(results, tmp_path / "report.html", **arguments)
        return (tmp_path / "report.html").read_text()

    return write


def test_the_headline_shows_the_new_task_and_the_parameters(page):
    text = page(title="A <run>")
    assert "<h1>A &lt;run&gt;</h1>" in text
    assert "<b>0.8300</b>" in text
    assert "<b>12.5 %</b>" in text
    assert "<b>2 min 30 s</b>" in text


def test_names_of_tasks_are_escaped_everywhere(page):
    assert "<b>like" not in page()


def test_a_change_of_an_old_task_is_shown_as_such(page):
    results = copy.deepcopy(RESULTS)
    results["old_tasks"] |= {"identical": False, "weights_after": "xyz"}
    results["old_tasks"]["differing_rows"]["income"] = 7
    text = page(results)
    assert '<b class="bad">changed</b>' in text
    assert "7 rows differ" in text
    assert text.count("identical, bit for bit") == 1
    assert "<code>abc</code> before and <code>xyz</code> after" in text
    table = results_table(results)
    assert "7 rows differ" in table
    assert "CHANGED" in table


def test_without_test_rows_validation_stands_in(page):
    results = copy.deepcopy(RESULTS)
    for stage in ("stage1", "stage2"):
        del results[stage]["test"]
    text = page(results)
    assert "<b>0.8100</b>" in text
    assert "validation AUC of education" in text


def test_a_missing_package_is_named_with_the_way_to_get_it(page, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"jinja2.*pip install 'mptrec-tf\[report\]'"):
        page()


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_curve_leaves_out_epochs_without_a_number(missing):
    """As the AUC of validation rows whose labels are all alike."""

    def drawn(*values):
        epochs = [{"auc": value, "val_auc": value} for value in values]
        return plots.curves("click", epochs, 0, ["auc"], plots.INK)

    for values in ((0.5, 0.7, missing), (0.5, missing, 0.7)):
        assert ">0.50<" in drawn(*values)
        assert ">0.70<" in drawn(*values)
    assert ">validation<" in drawn(missing, missing)
