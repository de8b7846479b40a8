"""The exported graph: what it answers, and what it computes for it."""

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import FeatureEncoder, MPTRec, NumericFeature, Task, make_dataset
from mptrec_tf.serving import export
from mptrec_tf.serving.exporting.samples import raw_rows, to_arrays, to_examples
from mptrec_tf.serving.layout import read_meta_graph, served_signatures

from .conftest import BUY, FEATURES

tf1 = tf.compat.v1


class Loaded:
    """A version in a session, called by signature."""

    def __init__(self, path):
        self.meta_graph = read_meta_graph(path)
        self.signatures = served_signatures(self.meta_graph)
        self.session = tf1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            tf1.saved_model.loader.load(self.session, ["serve"], str(path))

    def __call__(self, signature, **inputs):
        definition = self.signatures[signature]
        feeds = {definition.inputs[alias].name: value for alias, value in inputs.items()}
        fetches = {alias: tensor.name for alias, tensor in definition.outputs.items()}
        return self.session.run(fetches, feeds)


@pytest.fixture(scope="module")
def loaded(exported):
    return Loaded(exported[0] / "2")


@pytest.fixture(scope="module")
def examples(rows):
    return to_examples(FEATURES, raw_rows(FEATURES, rows))


def test_every_form_of_request_gets_the_scores_of_the_keras_model(
    loaded, exported, rows, examples, model
):
    expected = exported[1]
    columns = to_arrays(FEATURES, raw_rows(FEATURES, rows))
    encoded = model.encoder.encode(rows)
    for scores in (
        loaded("serving_default", examples=examples),
        loaded("columns", **columns),
        loaded("encoded", **encoded),
    ):
        assert set(scores) == {"click", "visits", "color", "buy"}
        for task, values in expected.items():
            np.testing.assert_allclose(scores[task], values, atol=1e-6)
    for task in ("click", "visits", "buy"):
        outputs = loaded(task, inputs=examples)["outputs"]
        np.testing.assert_allclose(outputs, expected[task], atol=1e-6)
    color = loaded("color", inputs=examples)
    np.testing.assert_allclose(color["scores"], expected["color"], atol=1e-6)
    assert color["classes"].tolist() == [[b"red", b"green", b"blue"]] * len(rows)


def test_older_tasks_answer_bit_for_bit_as_in_the_version_before(exported, loaded, examples):
    before = Loaded(exported[0] / "1")("serving_default", examples=examples)
    after = loaded("serving_default", examples=examples)
    assert set(after) - set(before) == {"buy"}
    for task, scores in before.items():
        np.testing.assert_array_equal(after[task], scores)


def test_a_second_added_task_changes_no_bit_of_the_first(make_model, rows, examples, tmp_path):
    model, answers = make_model(), []
    for task in (BUY, Task("share", "click")):
        model.add_task(task, tower_units=(4,))
        model.fit(make_dataset(rows, model.encoder, [task]), verbose=0)
        loaded = Loaded(export(model, tmp_path / "shop"))
        answers.append(loaded("serving_default", examples=examples))
    assert list(answers[1].keys() - answers[0].keys()) == ["share"]
    for task, scores in answers[0].items():
        np.testing.assert_array_equal(answers[1][task], scores)


def test_python_loads_it_too(exported, examples):
    signatures = tf.saved_model.load(str(exported[0] / "2")).signatures
    for name, alias, output in (
        ("serving_default", "examples", "buy"),
        ("buy", "inputs", "outputs"),
    ):
        scores = signatures[name](**{alias: tf.constant(examples)})[output]
        np.testing.assert_allclose(scores, exported[1]["buy"], atol=1e-6)


def test_absent_features_take_their_defaults(loaded):
    def example(**floats):
        example = tf.train.Example()
        for name, value in floats.items():
            example.features.feature[name].float_list.value.append(value)
        return example.SerializeToString()

    absent = loaded("serving_default", examples=[example(age=30.0)])
    explicit = loaded(
        "columns",
        **{"age": [30.0], "wage per hour": [-1.0], "city": ["?"], "device": [""], "tags": [[""]]},
    )
    for task, scores in absent.items():
        np.testing.assert_array_equal(scores, explicit[task])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"age.*is required"):
        loaded("serving_default", examples=[example()])


def test_a_missing_number_without_stand_in_is_refused_not_answered_with_nan(loaded):
    columns = {"wage per hour": [1.0], "city": ["Oslo"], "device": [""], "tags": [[""]]}
    for number in (np.nan, np.inf):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"no stand-in.*'age'"):
            loaded("columns", age=[number], **columns)


def operations(meta_graph, tensors):
    """Every operation that a run of these tensors needs, functions unrolled, with repetitions."""
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    functions = {f.signature.name: f for f in meta_graph.graph_def.library.function}
    needed, pending = set(), [tensor.partition(":")[0] for tensor in tensors]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += [i.lstrip("^").partition(":")[0] for i in nodes[name].input]

    def unroll(node):
        yield node
        if "f" in node.attr:
            for inner in functions[node.attr["f"].func.name].node_def:
                yield from unroll(inner)

    return [inner for name in needed for inner in unroll(nodes[name])]


def heads_of(loaded):
    definitions = loaded.signatures.values()
    return [d for d in definitions if not d.method_name.endswith("predict")]


def count(nodes, kind, of=""):
    return sum(node.op == kind and of in node.name for node in nodes)


def test_all_heads_take_one_parse_and_one_pass_of_the_backbone(loaded):
    heads = heads_of(loaded)
    assert len(heads) == 4
    tensors = [tensor.name for head in heads for tensor in head.outputs.values()]
    every = operations(loaded.meta_graph, tensors)
    predict = [t.name for t in loaded.signatures["serving_default"].outputs.values()]
    assert count(every, "ParseExampleV2") == 1
    # The embedding table is gathered once, each of the two expert layers is one product for all.
    assert count(every, "ResourceGather", of="embedding") == 1
    assert count(every, "MatMul", of="experts") == count(every, "Einsum", of="experts") == 1
    together = {node.name for node in operations(loaded.meta_graph, [*tensors, *predict])}
    assert together == {node.name for node in every}


def test_another_head_adds_no_pass_of_the_backbone(loaded, exported):
    before = Loaded(exported[0] / "1")

    def backbone(version):
        tensors = [t.name for head in heads_of(version) for t in head.outputs.values()]
        nodes = operations(version.meta_graph, tensors)
        return sorted(node.op for node in nodes if "backbone" in node.name)

    assert backbone(before)
    assert backbone(loaded) == backbone(before)


def test_only_the_features_of_the_model_are_parsed(loaded):
    nodes = operations(loaded.meta_graph, [loaded.signatures["click"].outputs["outputs"].name])
    keys = [
        value
        for node in nodes
        if node.op == "Const" and "ParseExample" in node.name and "_keys" in node.name
        for value in tf.make_ndarray(node.attr["value"].tensor).ravel()
    ]
    assert sorted(key.decode() for key in keys) == sorted(f.name for f in FEATURES)


def test_what_training_alone_needs_is_not_exported(exported):
    variables = tf.train.list_variables(str(exported[0] / "2" / "variables" / "variables"))
    shapes = [tuple(shape) for name, shape in variables if name.startswith("weights")]
    assert shapes
    assert not any("adversary" in name or "optimizer" in name for name, _ in variables)


def test_columns_may_be_named_as_they_like(tmp_path):
    names = ["class", "self", "Age", "age", "wage per hour", "wage_per_hour", "1st", "größe"]
    rows = {name: np.linspace(0, 1, 8) for name in names}
    encoder = FeatureEncoder([NumericFeature(name, missing=0.0) for name in names]).adapt(rows)
    model = MPTRec(
        encoder, [Task("buy", "bought"), Task("like", "liked")], expert_units=(4,), tower_units=(2,)
    )
    version = export(model, tmp_path / "m", warmup_batch_sizes=(1,))
    assert set(served_signatures(read_meta_graph(version))["columns"].inputs) == set(names)
