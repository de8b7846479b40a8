"""The check finds what is wrong with a version, each time by its own means."""

import ast
import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DT_INT64
from tensorflow.core.protobuf import saved_model_pb2

import mptrec_tf.serving
from mptrec_tf import ServingError, Task
from mptrec_tf.serving import check, export
from mptrec_tf.serving.cases import read_cases
from mptrec_tf.serving.checking import lint

LOADERS = pathlib.Path(mptrec_tf.serving.__file__).parent / "checking" / "loaders"


@pytest.fixture
def version(exported, tmp_path):
    """A copy that a test may break."""
    return pathlib.Path(shutil.copytree(exported[0] / "2", tmp_path / "2"))


def problems(path, loaders=("c_api",)):
    return [finding.problem for finding in check(path, loaders) if finding.problem]


def edit(path, change):
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    change(saved.meta_graphs[0])
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())


def test_a_good_version_passes_in_both_processes(version):
    findings = check(version)
    assert not [finding for finding in findings if finding.problem]
    tried = [finding.what for finding in findings]
    for case in ("columns", "task buy", "unknown categories", "malformed Example", "empty Example"):
        assert sum(what.endswith(f": {case}") for what in tried) == 2
    assert sum("16 warm-up requests" in what for what in tried) == 2


@pytest.mark.parametrize("program", ["c_api", "session"])
def test_the_processes_import_none_of_our_code(program, version):
    script = (
        "import json, runpy, sys\n"
        f"runpy.run_path({str(LOADERS / program)!r} + '.py', run_name='__main__')\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        input=json.dumps({"path": str(version), "runs": []}),
        capture_output=True,
        text=True,
        check=True,
    )
    modules = json.loads(done.stdout)
    assert not {"mptrec_tf", "mptrec_cli", "mptrec_client"} & set(modules)
    assert ("tensorflow" in modules) == (program == "session")


def test_the_stored_scores_are_those_of_the_keras_model(exported):
    case = read_cases(exported[0] / "1")[0]
    scores = case.outputs["click"]["values"]
    assert scores == pytest.approx(exported[1]["click"][: len(scores)].tolist(), abs=1e-6)


def test_each_file_is_read_once(version, monkeypatch):
    read = collections.Counter()

    def counted(function):
        def call(file, *arguments):
            read[pathlib.Path(file).name] += 1
            return function(file, *arguments)

        return call

    monkeypatch.setattr(pathlib.Path, "read_bytes", counted(pathlib.Path.read_bytes))
    monkeypatch.setattr(tf.data, "TFRecordDataset", counted(tf.data.TFRecordDataset))
    assert not problems(version, loaders=())
    assert (read["saved_model.pb"], read["tf_serving_warmup_requests"]) == (1, 1)


def test_changed_weights_are_found(version):
    (data,) = (version / "variables").glob("variables.data-*")
    content = bytearray(data.read_bytes())
    content[100] ^= 0xFF
    data.write_bytes(content)
    # TensorFlow's own checksum refuses it before any score is compared.
    assert "hecksum" in problems(version)[0]


def test_other_expected_scores_are_found(version):
    file = version / "assets.extra" / "cases.json"
    cases = json.loads(file.read_text())
    cases[0]["outputs"]["click"]["values"][3] += 2e-5
    file.write_text(json.dumps(cases))
    (problem,) = problems(version)
    assert problem.startswith("'click' differs from the Keras model's score by up to 2e-05")


@pytest.fixture(scope="module")
def large_scores(make_model, rows, tmp_path_factory):
    """A version whose task `gain` has predictions around 0 with a deviation of 100."""
    model = make_model([Task("gain", "visits", kind="regression"), Task("click", "click")])
    gain = model.predict(model.encoder.encode(rows), verbose=0)["gain"]
    scale = np.array([100 / gain.std(), 1])
    *_, kernel, bias = (weight for weight in model.weights if "towers" in weight.path)
    kernel.assign(kernel * scale[:, None, None])
    bias.assign((bias - [[gain.mean()], [0]]) * scale[:, None])
    return export(model, tmp_path_factory.mktemp("serving") / "large", rows=rows)


@pytest.mark.parametrize(
    ("task", "change", "is_found"),
    [("gain", 5e-5, False), ("gain", 5e-2, True), ("click", 5e-5, True)],
)
def test_a_score_near_0_is_compared_by_the_scale_of_its_task(task, change, is_found, large_scores):
    file = large_scores / "assets.extra" / "cases.json"
    content = file.read_text()
    cases = json.loads(content)
    scores = np.array(cases[0]["outputs"][task]["values"])
    if task == "gain":
        assert scores.min() < -50 < 50 < scores.max()
    cases[0]["outputs"][task]["values"][int(np.abs(scores).argmin())] += change
    file.write_text(json.dumps(cases))
    found = problems(large_scores)
    file.write_text(content)
    assert [f"'{task}' differs" in problem for problem in found] == [True] * is_found


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("variables/variables.index", "variables.index is missing"),
        ("variables/variables.data-00000-of-00001", "the data of variables/ are missing"),
        ("assets.extra/cases.json", "no answers to compare with"),
    ],
)
def test_missing_files_are_named(name, problem, version):
    (version / name).unlink()
    assert problem in problems(version)[0]


def test_a_broken_warmup_file_is_named(version):
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.write_bytes(file.read_bytes()[:-3])
    assert "warm-up requests cannot be read" in problems(version)[0]


@pytest.mark.parametrize("damage", ["half", "empty", "gone"])
def test_a_damaged_manifest_is_named(damage, version):
    file = version / "assets.extra" / "manifest.json"
    if damage == "gone":
        file.unlink()
    else:
        file.write_text("" if damage == "empty" else file.read_text()[:100])
    (problem,) = problems(version)
    assert "manifest" in problem


def test_lost_warmup_requests_are_found(version):
    (version / "assets.extra" / "tf_serving_warmup_requests").unlink()
    assert problems(version) == ["there are 0 warm-up requests, and were 16"]


def test_damaged_answers_are_refused_by_name(version):
    file = version / "assets.extra" / "cases.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(ServingError, match=r"cases\.json: broken"):
        check(version)


def test_a_version_is_checked_where_tensorflow_is_on_the_path_only(version):
    script = (
        "from mptrec_tf.serving import check\n"
        f"print([finding.problem for finding in check({str(version)!r}, ['c_api'])])"
    )
    done = subprocess.run(
        [sys._base_executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(ast.literal_eval(done.stdout)) == {None}


def rename_input(meta_graph):
    head = meta_graph.signature_def["click"]
    head.inputs["examples"].CopyFrom(head.inputs.pop("inputs"))


def double_output(meta_graph):
    outputs = meta_graph.signature_def["click"].outputs
    outputs["more"].CopyFrom(outputs["outputs"])


def drop_default(meta_graph):
    meta_graph.signature_def.pop("serving_default")


def other_method(meta_graph):
    meta_graph.signature_def["click"].method_name = "predict"


def other_tensor(meta_graph):
    meta_graph.signature_def["click"].outputs["outputs"].name = "nowhere:0"


def other_placeholder(meta_graph):
    heads = meta_graph.signature_def
    heads["click"].inputs["inputs"].name = heads["columns"].inputs["city"].name


def other_shape(meta_graph):
    output = meta_graph.signature_def["click"].outputs["outputs"]
    output.tensor_shape.dim.add(size=3)


def call_python(meta_graph):
    meta_graph.graph_def.node.add(name="python", op="EagerPyFunc")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (rename_input, "'click': inputs ['examples'], expected exactly 'inputs'"),
        (double_output, "'click': outputs ['more', 'outputs'], expected ['outputs'] only"),
        (drop_default, "no signature 'serving_default'"),
        (other_method, "'click': method 'predict', expected one of"),
        (other_tensor, "'outputs' is the tensor 'nowhere:0', which is not in the graph"),
        (other_placeholder, "MultiInference cannot run them together"),
        (other_shape, "'outputs' has the shape [-1, 3], expected (B,) or (B, 1)"),
        (call_python, "EagerPyFunc calls Python"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signatures_that_a_server_would_fail_on_are_named(change, problem, version):
    edit(version, change)
    assert problem in problems(version)[0]


def test_problems_are_named_in_alphabetical_order(version, monkeypatch):
    names = [f"output{number}" for number in range(8)]
    monkeypatch.setitem(lint.OUTPUTS, "tensorflow/serving/regress", dict.fromkeys(names, DT_INT64))

    def many_outputs(meta_graph):
        outputs = meta_graph.signature_def["click"].outputs
        output = outputs.pop("outputs")
        for name in names:
            outputs[name].CopyFrom(output)

    edit(version, many_outputs)
    found = re.findall(r"output '(\w+)' is float32", problems(version)[0])
    assert found == names


def test_what_is_no_saved_model_is_refused(tmp_path):
    with pytest.raises(ServingError, match="not a SavedModel"):
        check(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(ServingError, match="broken"):
        check(tmp_path)


def test_an_export_that_fails_its_check_is_not_published(model, tmp_path, monkeypatch):
    def spoiled(model, rows):
        cases = mptrec_tf.serving.exporting.cases.make_cases(model, rows)
        cases[0].outputs["click"]["values"][0] += 1.0
        return cases

    monkeypatch.setattr("mptrec_tf.serving.exporting.exporter.make_cases", spoiled)
    with pytest.raises(
        ServingError, match=r"does not pass its check:\n.*examples: 'click' differs"
    ):
        export(model, tmp_path / "shop")
    assert list((tmp_path / "shop").iterdir()) == []


def test_too_many_warmup_requests_are_refused(model, tmp_path):
    with pytest.raises(ServingError, match=r"1050 warm-up requests \(150 batch sizes, 3 tasks"):
        export(model, tmp_path / "shop", warmup_batch_sizes=[1] * 150)
