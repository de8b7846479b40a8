"""The arguments of `mptrec`: help, exit codes, and no TensorFlow before it is needed."""

import subprocess
import sys

import pytest

import mptrec_cli
import mptrec_tf
from mptrec_cli.parser import build_parser

COMMANDS = [
    ["data", "get"],
    ["data", "prepare"],
    ["data", "generate"],
    ["data", "convert"],
    ["train"],
    ["add-task"],
    ["tune"],
    ["evaluate"],
    ["predict"],
    ["show"],
    ["serving", "export"],
    ["serving", "check"],
    ["serving", "config", "add-model"],
    ["serving", "config", "show"],
    ["serving", "config", "add-version"],
    ["serving", "config", "set-label"],
    ["serving", "config", "retire"],
    ["serving", "config", "batching"],
    ["serving", "config", "monitoring"],
    ["serving", "promote"],
    ["serving", "rollback"],
    ["serving", "run"],
    ["serving", "request"],
    ["pipeline", "run"],
    ["pipeline", "status"],
    ["pipeline", "lineage"],
    ["pipeline", "compile"],
    ["bench", "run"],
    ["bench", "report"],
]
PREPARE = ["data", "prepare", "ali-ccp", "--source", "raw", "--output", "out"]
RUN = ["pipeline", "run", "--config", __file__, "--output", "out", "--stage"]
COMPILE = ["pipeline", "compile", "--config", __file__, "--output", "p.json", "--stage"]

LOADED = """\
import sys, mptrec_cli
try:
    code = mptrec_cli.main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
print("loaded:", sorted({"tensorflow", "keras", "mptrec_tf", "numpy"} & set(sys.modules)))
sys.exit(code)
"""


def exit_code(*arguments):
    with pytest.raises(SystemExit) as exit_info:
        mptrec_cli.main(arguments)
    return exit_info.value.code


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_tells_what_is_written_and_gives_an_example(command, capsys):
    assert exit_code(*command, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: mptrec {' '.join(command)}")
    assert f"example:\n  mptrec {' '.join(command)} " in text
    assert "--quiet" in text


def test_help_lists_the_commands_and_exit_codes(capsys):
    assert exit_code("--help") == 0
    text = capsys.readouterr().out
    assert all(f"\n    {command[0]} " in text for command in COMMANDS)
    assert "exit codes:" in text


@pytest.mark.parametrize("command", ["train", "add-task"])
def test_help_shows_defaults(command, capsys):
    exit_code(command, "--help")
    assert "(default: 0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["train", "--help"], 0),
        ([], 2),
        (["tarin"], 2),
        (["train", "--config", "absent.yaml", "--output", "out"], 2),
        (["train", "--config", __file__, "--output", f"{__file__}/out"], 2),
        (["train", "--config", __file__, "--output", "out", "--train", "a.csv"], 2),
        (["tune", "--config", __file__, "--output", "out", "--stage", "stage2"], 2),
        (["tune", "--config", __file__, "--output", "out", "--task", "buy"], 2),
        (["tune", "--config", __file__, "--output", "out", "--trials", "0"], 2),
        (["predict", "--model", __file__, "--input", "a.csv", "--output", "p.xlsx"], 2),
        ([*RUN, "prompt_tune"], 2),
        ([*RUN, "pretrain", "--task", "buy"], 2),
        ([*RUN, "pretrain", "--base", "1"], 2),
        ([*COMPILE, "prompt_tune"], 2),
        ([*COMPILE, "prompt_tune", "--task", "buy"], 2),
        (["pipeline", "status", "--output", "absent"], 2),
    ],
)
def test_answers_without_tensorflow(arguments, expected, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == expected
    assert done.stdout.endswith("loaded: []\n")


def test_version_is_that_of_the_library(capsys):
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"mptrec {mptrec_tf.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "offender"),
    [
        ([], "COMMAND"),
        (["data"], "COMMAND"),
        (["data", "get", "iris"], "iris"),
        (["data", "convert", "a.csv"], "DESTINATION"),
        (["data", "convert", "a.csv", "b.csv"], "b.csv"),
        (["train", "--output", "out"], "--config"),
        (["train", "--config", "absent.yaml", "--output", "out"], "absent.yaml"),
        (["train", "--config", __file__, "--output", "out", "--seed", "x"], "'x'"),
        (["train", "--config", __file__, "--output", "out", "--seed=-1"], "0 to 4294967295"),
        (
            ["data", "prepare", "ali-ccp", "--output", "out", "--seed=-1"],
            "got '-1'",
        ),
        ([*PREPARE, "--max-bad-lines", "-1"], "--max-bad-lines: must be 0 or more, got -1"),
        ([*PREPARE, "--min-count=-3"], "--min-count: must be 0 or more, got -3"),
        ([*PREPARE, "--min-count", "1.5"], "--min-count: must be 0 or more, got 1.5"),
        (["train", "--config", __file__, "--out", "out"], "--output"),
        (["add-task", "--config", __file__, "--model", "m.keras", "--task", "a"], "m.keras"),
        (["evaluate", "--config", __file__], "--model"),
        (["predict", "--model", __file__, "--input", "a.csv", "--output", "p.txt"], "p.txt"),
        (["pipeline"], "COMMAND"),
        ([*RUN, "finetune"], "finetune"),
        ([*COMPILE, "pretrain", "--orchestrator", "airflow"], "airflow"),
        ([*COMPILE, "pretrain", "--output", "p.txt"], "p.txt"),
        (["pipeline", "status", "--output", "absent"], "absent: no such directory"),
        (["pipeline", "lineage", "--output", ".", "--picture", "a.jpg"], "a.jpg"),
        (
            [*RUN, "pretrain", "--output", "gs://bucket/out"],
            "gs://bucket/out: expected a path on this machine",
        ),
        (
            [*COMPILE, "pretrain", "--output", "gs://bucket/p.json"],
            "gs://bucket/p.json: expected a path on this machine",
        ),
        (
            ["pipeline", "lineage", "--output", ".", "--version", "1", "--artifact", "2"],
            "--version",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, offender, capsys):
    assert exit_code(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert offender in captured.err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config", __file__, "--output", f"{__file__}/out"],
        ["add-task", "--config", __file__, "--model", __file__, "--task", "a"]
        + ["--output", f"{__file__}/out"],
        ["tune", "--config", __file__, "--output", f"{__file__}/out"],
        ["evaluate", "--config", __file__, "--model", __file__, "--json", f"{__file__}/out/e.json"],
        ["predict", "--model", __file__, "--input", "a.csv", "--output", f"{__file__}/out/p.csv"],
        ["data", "convert", "a.csv", f"{__file__}/out/b.parquet"],
        [*RUN, "pretrain", "--output", f"{__file__}/out"],
        [*COMPILE, "pretrain", "--output", f"{__file__}/out/p.json"],
        ["pipeline", "lineage", "--output", ".", "--picture", f"{__file__}/out/p.svg"],
    ],
    ids=lambda arguments: " ".join(arguments[: 2 if arguments[0] == "pipeline" else 1]),
)
def test_a_place_that_cannot_be_written_to_is_refused_first(arguments, capsys):
    assert mptrec_cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mptrec: error: {__file__}/out: cannot be written to")


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "mptrec_cli", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"mptrec {mptrec_tf.__version__}\n"


def test_train_and_validation_rows_come_together(tmp_path, capsys):
    arguments = ["train", "--config", __file__, "--output", str(tmp_path), "--train", "a.csv"]
    assert mptrec_cli.main(arguments) == 2
    assert "--validation" in capsys.readouterr().err


def test_several_files_are_taken():
    arguments = ["data", "convert", "a.csv", "b.csv", "c.parquet"]
    args = build_parser().parse_args(arguments)
    assert (args.source, str(args.destination)) == (["a.csv", "b.csv"], "c.parquet")


def test_an_interrupt_is_no_traceback(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("mptrec_cli.data.get", interrupted)
    assert mptrec_cli.main(["data", "get", "census-income"]) == 130
    assert capsys.readouterr().err == "mptrec: interrupted\n"


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError])
def test_what_is_unexpected_is_not_hidden(error, monkeypatch):
    def broken(args):
        raise error("a fault")

    monkeypatch.setattr("mptrec_cli.data.get", broken)
    with pytest.raises(error, match="a fault"):
        mptrec_cli.main(["data", "get", "census-income"])
