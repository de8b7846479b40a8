"""What `mptrec evaluate` says before any work."""

import argparse
import importlib.util
import types

import pytest

from mptrec_cli.evaluation import _reliability_page, evaluate
from mptrec_cli.output import UsageError


def test_plots_without_the_extra_are_refused_before_anything_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    arguments = argparse.Namespace(json=None, reliability=tmp_path / "plots.html")
    with pytest.raises(UsageError, match=r"pip install 'mptrec-tf\[report\]'"):
        evaluate(arguments)


def test_two_outputs_in_one_file_are_refused(tmp_path):
    file = tmp_path / "both"
    with pytest.raises(UsageError, match="--json and --reliability are one file"):
        evaluate(argparse.Namespace(json=file, reliability=file))


def test_a_page_without_a_plot_is_refused():
    price = types.SimpleNamespace(task=types.SimpleNamespace(kind="regression"))
    with pytest.raises(UsageError, match="of binary tasks, and price are none"):
        _reliability_page({"price": price})
