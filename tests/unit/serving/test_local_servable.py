"""A loaded version: its answers, who uses it, its warm-up."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
import tiny_models
from tensorflow_serving.apis import prediction_log_pb2

from mptrec_tf.serving.layout import WARMUP_FILE
from mptrec_tf.serving.local.errors import RequestError
from mptrec_tf.serving.local.servable import Servable
from mptrec_tf.serving.local.warmup import warm_up

ROWS = [(1.0, ["a"]), (64.0, [])]


@pytest.fixture
def path(tmp_path):
    return tiny_models.save(tmp_path / "tiny", 3)


@pytest.fixture
def servable(path):
    return Servable("tiny", 3, path)


def run(servable, outputs=("click", "visits", "color")):
    signature = servable.signatures["serving_default"]
    examples = np.array([tiny_models.example(*row).SerializeToString() for row in ROWS], object)
    names = [signature.outputs[alias].name for alias in outputs]
    fetched = servable.run({signature.inputs["examples"].name: examples}, names)
    return {alias: fetched[name].tolist() for alias, name in zip(outputs, names, strict=True)}


def log_of(kind, **request):
    return prediction_log_pb2.PredictionLog(**{f"{kind}_log": {"request": request}})


def predict_log():
    tensor = tf.make_tensor_proto([tiny_models.example(1.0).SerializeToString()])
    return log_of("predict", model_spec={"name": "any"}, inputs={"examples": tensor})


def example_log(kind, signature):
    spec = {"name": "any", "signature_name": signature}
    examples = {"example_list": {"examples": [tiny_models.example(1.0)]}}
    return log_of(kind, model_spec=spec, input=examples)


def multi_log():
    task = {
        "model_spec": {"name": "any", "signature_name": "click"},
        "method_name": "tensorflow/serving/regress",
    }
    examples = {"example_list": {"examples": [tiny_models.example(1.0)]}}
    return log_of("multi_inference", tasks=[task], input=examples)


def write_warmup(path, records):
    file = path / WARMUP_FILE
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())
    return file


def test_it_answers_as_the_model_does(servable):
    answers = run(servable)
    for number, row in enumerate(ROWS):
        expected = tiny_models.answer(3, *row)
        assert {alias: values[number] for alias, values in answers.items()} == expected


def test_the_fetched_outputs_can_be_chosen(servable):
    whole = run(servable)
    for chosen in (["click"], ["color", "click"]):
        assert run(servable, chosen) == {alias: whole[alias] for alias in chosen}


def test_an_error_of_the_graph_has_its_status(servable):
    signature = servable.signatures["serving_default"]
    with pytest.raises(RequestError, match="Could not parse example") as raised:
        servable.run(
            {signature.inputs["examples"].name: np.array([b"no example"], object)},
            [signature.outputs["click"].name],
        )
    assert raised.value.code.name == "INVALID_ARGUMENT"


def test_it_is_closed_when_its_last_user_has_gone(servable):
    closed = []
    servable.acquire()
    servable.acquire()
    servable.retire(lambda: closed.append(True))
    servable.release()
    assert not closed
    assert run(servable)["click"] == [3 + 1 / 64, 4.0]
    servable.release()
    assert closed == [True]


def test_without_users_it_is_closed_at_once_and_its_graph_is_freed(servable):
    operation = weakref.ref(servable._session.graph.get_operations()[0])
    closed = []
    gc.disable()
    try:
        servable.retire(lambda: closed.append(True))
        assert closed == [True]
        assert operation() is None
    finally:
        gc.enable()


def test_a_directory_without_a_model_is_no_servable(tmp_path):
    with pytest.raises(OSError, match="SavedModel file does not exist"):
        Servable("tiny", 3, tmp_path)


def test_warm_up_replays_all_kinds(servable, path, monkeypatch):
    write_warmup(
        path,
        [
            predict_log(),
            example_log("regress", "click"),
            example_log("classify", "color"),
            multi_log(),
            prediction_log_pb2.PredictionLog(),
        ],
    )
    fetches = []
    real = servable.run
    monkeypatch.setattr(
        servable, "run", lambda feeds, names: fetches.append(len(set(names))) or real(feeds, names)
    )
    warm_up(servable, path)
    assert fetches == [3, 1, 2, 1]


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([predict_log(), log_of("predict")], "warmup record 2 of .*: input size does not match"),
        ([example_log("regress", "color")], "warmup record 1 of .*: Expected one output Tensor"),
        ([b"\xff"], "Failed to parse warmup record 1 of"),
        (
            [prediction_log_pb2.PredictionLog(session_run_log={})],
            "Unsupported log_type for warmup: session_run_log",
        ),
        ([prediction_log_pb2.PredictionLog()] * 1001, "exceeds the maximum"),
    ],
    ids=["failing", "wrong kind", "no record", "session run", "too many"],
)
def test_warm_up_that_fails_fails_the_load(servable, path, records, says):
    write_warmup(path, records)
    with pytest.raises(RequestError, match=says):
        warm_up(servable, path)


def test_a_thousand_records_are_not_too_many(servable, path):
    write_warmup(path, [prediction_log_pb2.PredictionLog()] * 1000)
    warm_up(servable, path)


def test_a_broken_warm_up_file_is_named(servable, path):
    file = write_warmup(path, [predict_log()])
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(RequestError, match="verify your warmup data is in TFRecord format") as one:
        warm_up(servable, path)
    assert one.value.code.name == "DATA_LOSS"
