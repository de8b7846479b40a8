"""Tables and files of results."""

import json
import warnings

import pytest

import mptrec_cli
from mptrec_cli.output import (
    UsageError,
    print_metrics,
    print_table,
    require_file,
    require_not_read,
    require_writable,
    warnings_in_a_line,
    write_json,
)


def test_a_table_is_aligned(capsys):
    print_table(["task", "rows", "note"], [["click", 1234567, "a"], ["purchase", 5, "long note"]])
    assert capsys.readouterr().out == (
        "task           rows  note\nclick     1,234,567  a\npurchase          5  long note\n"
    )


def test_a_table_without_rows_is_its_header(capsys):
    print_table(["task", "rows"], [])
    assert capsys.readouterr().out == "task  rows\n"


def test_metrics_that_a_task_does_not_have_are_dashes(capsys):
    print_metrics({"click": {"auc": 0.75, "rows": 10}, "price": {"rmse": 1.5, "rows": 9}})
    assert capsys.readouterr().out == (
        "task       auc  rows     rmse\n"
        "click  0.75000    10        -\n"
        "price        -     9  1.50000\n"
    )  # fmt: skip


def test_results_are_json_without_nan(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"model": tmp_path, "auc": [float("nan"), 0.5, -float("inf")], "name": "Ærø"})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "model": str(tmp_path),
        "auc": [None, 0.5, None],
        "name": "Ærø",
    }
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_made_and_left_empty(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_directory_is_no_file_to_write(tmp_path):
    (tmp_path / "scores.csv").mkdir()
    with pytest.raises(UsageError, match=r"scores\.csv: is a directory; name a file"):
        require_file(tmp_path / "scores.csv")
    require_file(tmp_path / "new" / "scores.csv")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UsageError, match="a: cannot be written to"):
        require_writable(tmp_path / "a")


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "--model", __file__, "--input", "rows.*", "--output"],
        ["data", "convert", "rows.parquet"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("output", ["rows.parquet", "{here}/rows.parquet", "link.parquet"])
def test_an_input_is_not_overwritten(command, output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.parquet").write_text("rows")
    (tmp_path / "link.parquet").symlink_to("rows.parquet")
    output = output.format(here=tmp_path)
    assert mptrec_cli.main([*command, output]) == 2
    expected = f"mptrec: error: {output}: would overwrite the input rows.parquet"
    assert capsys.readouterr().err.startswith(expected)
    assert (tmp_path / "rows.parquet").read_text() == "rows"


def test_a_file_beside_the_inputs_is_written_to(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x\n1\n")
    require_not_read(tmp_path / "b.csv", str(tmp_path / "a.*"))
    require_not_read(tmp_path / "c.csv", [tmp_path / "a.csv", tmp_path / "b.csv"])


def test_a_warning_for_the_user_is_a_line_and_one_of_a_library_has_its_place():
    usual = warnings.formatwarning
    with warnings_in_a_line():
        assert warnings.formatwarning("no label", UserWarning, "a.py", 3) == (
            "mptrec: warning: no label\n"
        )
        assert "a.py:3: RuntimeWarning: NaN" in warnings.formatwarning(
            "NaN", RuntimeWarning, "a.py", 3
        )
    assert warnings.formatwarning is usual
