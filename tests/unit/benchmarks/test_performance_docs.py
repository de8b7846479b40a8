"""docs/performance.md says what was measured."""

import json
import sys

import pytest

import performance_docs

JOINT = {
    "joint_over_prompt_tuning": {"median": 12.5, "min": 11.0, "max": 14.0},
    "runs": [
        {
            "seed": 3,
            "prompt_tuning": {"seconds": 4.0, "epochs": 7, "auc": 0.8712},
            "joint": {"seconds": 50.0, "epochs": 11, "auc": 0.8655, "reached": False},
        }
    ],
}
SERVING = [
    {"batch": 1, "added": added, "p50_ms": ms, "ratio": ms, "ratio_min": ms, "ratio_max": ms}
    for added, ms in ((0, 1.0), (4, 1.2))
]
MANY = {
    "labels": ["education"],
    "rows": 1000,
    "batch": 512,
    "training": [
        {
            "tasks": 2,
            "microseconds_an_example": 31.4,
            "ratio": {"median": 1.0, "min": 1.0, "max": 1.0},
        }
    ],
    "serving": SERVING,
}


def run(monkeypatch, results, docs):
    arguments = ["performance_docs.py", "--results", str(results), "--docs", str(docs)]
    monkeypatch.setattr(sys, "argv", arguments)
    performance_docs.main()


def test_every_measured_part_is_on_the_page(tmp_path, monkeypatch):
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    (results / "joint_retraining.json").write_text(json.dumps(JOINT))
    run(monkeypatch, results, docs)
    (results / "joint_retraining.json").unlink()
    (results / "many_tasks.json").write_text(json.dumps(MANY))
    run(monkeypatch, results, docs)
    text = (docs / "performance.md").read_text()
    assert "12.50 (11.00 to 14.00)" in text  # of the earlier run
    assert "| 3 | 4.0, 7, 0.8712 | 50.0, 11, 0.8655 | no |" in text
    assert "| 2 | 31.4 | 1.00 (1.00 to 1.00) |" in text
    assert "| 1 | 4 | 1.20 | 1.20 (1.20 to 1.20) | 50 |" in text
    assert (docs / "performance_tasks.svg").read_text().count("<svg") == 1


def test_without_results_nothing_is_written(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"holds none of .*results\.json"):
        run(monkeypatch, tmp_path, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_a_form_tried_in_one_stage_leaves_the_other_cell_empty():
    lines = performance_docs.forms_table({"eager": 30446, "compiled": 50951}, {"eager": 71823})
    assert lines[2:] == ["| `eager` | 30,446 | 71,823 |", "| `compiled` | 50,951 |  |"]
