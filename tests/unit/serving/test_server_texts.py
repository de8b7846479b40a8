"""Batching and monitoring texts, read with the messages that TensorFlow Serving has for them."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as wrappers

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.config.texts import Batching, Monitoring

FIELD = descriptor_pb2.FieldDescriptorProto
INT64 = f".{wrappers.Int64Value.DESCRIPTOR.full_name}"

BATCHING = {
    # Names, numbers and types as in session_bundle_config.proto of TensorFlow Serving 2.20.
    "max_batch_size": (1, INT64),
    "batch_timeout_micros": (2, INT64),
    "max_enqueued_batches": (3, INT64),
    "num_batch_threads": (4, INT64),
    "thread_pool_name": (5, f".{wrappers.StringValue.DESCRIPTOR.full_name}"),
    "allowed_batch_sizes": (6, FIELD.TYPE_INT64),
    "pad_variable_length_inputs": (7, FIELD.TYPE_BOOL),
    "enable_large_batch_splitting": (8, f".{wrappers.BoolValue.DESCRIPTOR.full_name}"),
    "max_execution_batch_size": (9, INT64),
}
PROMETHEUS = {"enable": (1, FIELD.TYPE_BOOL), "path": (2, FIELD.TYPE_STRING)}
MONITORING = {"prometheus_config": (1, ".mptrec.PrometheusConfig")}


@pytest.fixture(scope="module")
def messages():
    file = descriptor_pb2.FileDescriptorProto(
        name="mptrec_server_texts.proto",
        package="mptrec",
        syntax="proto3",
        dependency=[wrappers.DESCRIPTOR.name],
    )
    for name, fields in (
        ("BatchingParameters", BATCHING),
        ("PrometheusConfig", PROMETHEUS),
        ("MonitoringConfig", MONITORING),
    ):
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated = field == "allowed_batch_sizes"
            message.field.add(
                name=field,
                number=number,
                label=FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL,
                **({"type_name": kind} if isinstance(kind, str) else {"type": kind}),
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"mptrec.{name}"))
        for name in ("BatchingParameters", "MonitoringConfig")
    }


def test_batching(messages):
    parameters = Batching(
        max_batch_size=64,
        num_batch_threads=4,
        batch_timeout_micros=0,
        max_enqueued_batches=7,
        allowed_batch_sizes=(8, 32, 64),
    )
    read = text_format.Parse(parameters.text(), messages["BatchingParameters"]())
    assert read.max_batch_size.value == 64
    assert read.num_batch_threads.value == 4
    assert read.HasField("batch_timeout_micros")
    assert read.batch_timeout_micros.value == 0
    assert read.max_enqueued_batches.value == 7
    assert list(read.allowed_batch_sizes) == [8, 32, 64]
    assert len(read.ListFields()) == 5


def test_monitoring(messages):
    read = text_format.Parse(Monitoring().text(), messages["MonitoringConfig"]())
    assert read.prometheus_config.enable is True
    assert read.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_the_messages_of_this_test_refuse_what_they_do_not_have(messages):
    for text in ("max_batch_size: 64", "batch_size { value: 64 }"):
        with pytest.raises(text_format.ParseError):
            text_format.Parse(text, messages["BatchingParameters"]())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"max_batch_size": 64.0}, "64.0"),
        ({"num_batch_threads": 0}, "num_batch_threads"),
        ({"num_batch_threads": True}, "True"),
        ({"batch_timeout_micros": -1}, "batch_timeout_micros must be a whole number from 0"),
        ({"max_enqueued_batches": 0}, "max_enqueued_batches"),
        ({"allowed_batch_sizes": [8, 32]}, "max_batch_size, 64. Received: [8, 32]"),
        ({"allowed_batch_sizes": [32, 8, 64]}, "ascend. Received: [32, 8, 64]"),
        ({"allowed_batch_sizes": [8, 8, 64]}, "ascend"),
        ({"allowed_batch_sizes": [0, 64]}, "allowed_batch_sizes"),
    ],
    ids=str,
)
def test_batching_that_a_server_would_refuse(change, named):
    with pytest.raises(ServingError) as error:
        Batching(**{"max_batch_size": 64, "num_batch_threads": 4, **change})
    assert named in str(error.value)


@pytest.mark.parametrize("path", ["", "metrics", "/a b", '/a"', "/v1/metrics", "/a\n/b", "/"])
def test_a_path_of_metrics_that_cannot_be(path):
    with pytest.raises(ServingError, match="path"):
        Monitoring(path)
