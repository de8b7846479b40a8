"""`mptrec serving config`, `promote` and `rollback`: what is printed, written and refused."""

import subprocess
import sys

import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

import mptrec_cli
from mptrec_cli.parser import build_parser
from mptrec_tf.serving.config.texts import Monitoring

CONFIG = "serving config"
UNCHECKED = "no --server was given: whether the version is available has not been checked\n"


def run(command, *arguments):
    """Runs `mptrec COMMAND FILE ARGUMENT...`."""
    return mptrec_cli.main([*command.split(), *map(str, arguments)])


def refused(command, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        run(command, *arguments)
    return exit_info.value.code


@pytest.fixture
def path(tmp_path, capsys):
    path = tmp_path / "models.config"
    added = ["--model", "census", "--base-path", "/models/census"]
    assert run(f"{CONFIG} add-model", path, *added, "--versions", 1, "--label", "stable=1") == 0
    capsys.readouterr()
    return path


def table(capsys):
    """The rows that were printed, below the header."""
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "base", "path", "versions", "labels"]
    return [row.split() for row in rows]


def test_a_promotion_step_by_step_and_the_way_back(path, capsys):
    census = ["--model", "census"]
    assert run(f"{CONFIG} add-version", path, *census, "--version", 2) == 0
    assert table(capsys) == [["census", "/models/census", "1", "2", "stable=1"]]
    assert run(f"{CONFIG} set-label", path, *census, "--version", 2) == 0
    assert capsys.readouterr().err == UNCHECKED
    assert run("serving rollback", path, *census, "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert run(f"{CONFIG} set-label", path, *census, "--version", 2) == 0
    assert run(f"{CONFIG} retire", path, *census, "--version", 1) == 0
    capsys.readouterr()
    assert run(f"{CONFIG} show", path) == 0
    assert table(capsys) == [["census", "/models/census", "2", "stable=2"]]
    [model] = text_format.Parse(path.read_text(), ModelServerConfig()).model_config_list.config
    assert list(model.model_version_policy.specific.versions) == [2]
    assert dict(model.version_labels) == {"stable": 2}


def test_several_models(path, capsys):
    added = ["--model", "ads", "--base-path", "gs://bucket/ads"]
    assert run(f"{CONFIG} add-model", path, *added) == 0
    assert table(capsys) == [
        ["census", "/models/census", "1", "stable=1"],
        ["ads", "gs://bucket/ads", "not", "listed", "-"],
    ]


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("config add-version", ["--model", "cencus", "--version", "2"], "did you mean 'census'?"),
        ("config set-label", ["--model", "census", "--version", "2"], "'stable' of 'census'"),
        ("config retire", ["--model", "census", "--version", "1"], "['stable']"),
        ("rollback", ["--model", "census"], "no version below 1"),
        ("rollback", ["--model", "census", "--server", "localhost"], "host:port"),
    ],
    ids=["add-version", "set-label", "retire", "rollback", "address"],
)
def test_what_the_file_does_not_allow(command, arguments, named, path, capsys):
    before = path.read_text()
    assert run(f"serving {command}", path, *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mptrec: error: ")
    assert named in error
    assert path.read_text() == before


def test_a_promotion_without_a_server_there(path, capsys):
    census = ["--model", "census", "--version", "2", "--server", "127.0.0.1:1", "--timeout", "0"]
    assert run("serving promote", path, *census) == 2
    reported, error = capsys.readouterr().err.splitlines()
    assert reported.startswith("version 2 of 'census' at 127.0.0.1:1: UNAVAILABLE")
    assert f"{path} is left with the label 'stable' where it was" in error
    assert "versions: 2" in path.read_text()


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("config show", ["absent.config"], "absent.config: no such file"),
        ("config add-model", ["a", "--model", "m", "--base-path", "/m", "--label", "s"], "LABEL=N"),
        ("config add-version", [__file__, "--model", "m", "--version", "two"], "'two'"),
        ("config retire", [__file__, "--model", "m"], "--version"),
        ("config batching", ["a", "--max-batch-size", "8"], "--num-batch-threads"),
        ("promote", [__file__, "--model", "m", "--version", "2"], "--server"),
        ("promote", [__file__, "--model", "m", "--timeout", "nan"], "nan"),
        ("rollback", [__file__], "--model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "arguments",
)
def test_wrong_arguments_are_named(command, arguments, named, capsys):
    assert refused(f"serving {command}", *arguments) == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_batching_and_monitoring(tmp_path, capsys):
    batching, monitoring = tmp_path / "batching.config", tmp_path / "monitoring.config"
    sizes = ["--max-batch-size", 32, "--num-batch-threads", 2, "--allowed-batch-sizes", 8, 32]
    assert run(f"{CONFIG} batching", batching, *sizes) == 0
    assert run(f"{CONFIG} monitoring", monitoring) == 0
    assert "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 1000 }" in (
        batching.read_text()
    )
    assert monitoring.read_text().endswith(Monitoring().text())
    assert run(f"{CONFIG} batching", batching, *sizes[:-1], 16) == 2
    assert "max_batch_size, 32. Received: [8, 16]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        *(
            f"config {name}"
            for name in (
                "add-model",
                "show",
                "add-version",
                "set-label",
                "retire",
                "batching",
                "monitoring",
            )
        ),
        "promote",
        "rollback",
    ],
)
def test_help_gives_an_example_that_can_be_parsed(command, tmp_path, monkeypatch, capsys):
    assert refused(f"serving {command}", "--help") == 0
    text = capsys.readouterr().out
    example = text.partition("example:\n  mptrec ")[2].partition("\n\n")[0].replace("\\\n", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.config").touch()
    args = build_parser().parse_args(example.split())
    assert example.startswith(f"serving {command} ")
    assert str(args.file).endswith(".config")


@pytest.mark.parametrize("command", ["config", "promote", "rollback"])
def test_help_needs_no_tensorflow(command):
    code = (
        "import sys, mptrec_cli\ntry: mptrec_cli.main(sys.argv[1:])\nfinally: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "serving", command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    loaded = done.stdout.splitlines()[-1].split()
    assert "mptrec_cli.serving.promotion" in loaded
    assert not {"tensorflow", "mptrec_tf", "grpc", "google.protobuf"} & set(loaded)


def test_without_the_extra_it_says_what_to_install(path):
    code = (
        "import sys, mptrec_cli\n"
        "sys.modules['tensorflow_serving'] = None\n"
        "sys.exit(mptrec_cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "serving", "config", "show", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install 'mptrec-tf[serving]'")
