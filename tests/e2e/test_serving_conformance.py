"""The same requests to the local server and to TensorFlow Serving, with the same answers.

For TensorFlow Serving:

    python tests/helpers/tiny_models.py /tmp/tiny
    tensorflow_model_server --model_name=tiny --model_base_path=/tmp/tiny \\
        --port=8500 --rest_api_port=8501
    MPTREC_TF_SERVING=localhost:8500,8501 pytest tests/e2e/test_serving_conformance.py
"""

import base64
import os
import pathlib

import grpc
import pytest
import requests
import tiny_models
import yaml
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from mptrec_tf.serving.local import LocalServer

CASES = yaml.safe_load(
    pathlib.Path(__file__).with_name("serving_conformance.yaml").read_text(encoding="utf-8")
)
ADDRESS = os.environ.get("MPTREC_TF_SERVING")
PREDICTION = prediction_service_pb2_grpc.PredictionServiceStub
CALLS = {
    "Predict": (PREDICTION, predict_pb2.PredictRequest),
    "Classify": (PREDICTION, classification_pb2.ClassificationRequest),
    "Regress": (PREDICTION, regression_pb2.RegressionRequest),
    "MultiInference": (PREDICTION, inference_pb2.MultiInferenceRequest),
    "GetModelMetadata": (PREDICTION, get_model_metadata_pb2.GetModelMetadataRequest),
    "GetModelStatus": (
        model_service_pb2_grpc.ModelServiceStub,
        get_model_status_pb2.GetModelStatusRequest,
    ),
}


@pytest.fixture(scope="module", params=["local", *(["tensorflow_serving"] if ADDRESS else [])])
def addresses(request, tmp_path_factory):
    """Address of gRPC, URL of REST."""
    if request.param == "tensorflow_serving":
        address, rest_port = ADDRESS.split(",")
        yield address, f"http://{address.rpartition(':')[0]}:{rest_port}"
        return
    base_path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_models.save(base_path, tiny_models.VERSION)
    with LocalServer(base_path) as server:
        yield server.grpc_address, server.rest_url


@pytest.mark.skipif(not ADDRESS, reason="not run here: set MPTREC_TF_SERVING=host:port,rest_port")
def test_tensorflow_serving_answers():
    """Stands in the report for the cases, which ran against the local server alone."""
    address, rest_port = ADDRESS.split(",")
    url = f"http://{address.rpartition(':')[0]}:{rest_port}/v1/models/tiny"
    assert requests.get(url, timeout=10).status_code == 200


def filled(value):
    """A request with its Examples in place."""
    if isinstance(value, dict) and "$example" in value:
        example = tiny_models.example(**value["$example"])
        return base64.b64encode(example.SerializeToString()).decode()
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    return [filled(item) for item in value] if isinstance(value, list) else value


def assert_has(actual, expected):
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_has(actual[key], value)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_has(one, other)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, abs=1e-6)
    else:
        assert actual == expected


@pytest.mark.parametrize("case", CASES["rest"], ids=lambda case: case["id"])
def test_rest(addresses, case):
    url = addresses[1]
    if "get" in case:
        response = requests.get(url + case["get"], timeout=10)
    elif "raw" in case:
        response = requests.post(url + case["post"], data=case["raw"].encode(), timeout=10)
    else:
        response = requests.post(url + case["post"], json=filled(case["body"]), timeout=10)
    assert response.status_code == case.get("error", 200), response.text
    assert response.headers["Content-Type"] == "application/json"
    if "expect" in case:
        assert_has(response.json(), case["expect"])
    if "error" in case:
        assert list(response.json()) == ["error"]
        assert case.get("says", "") in response.json()["error"]
    elif "says" in case:
        assert case["says"] in " ".join(response.text.split())


@pytest.mark.parametrize("case", CASES["grpc"], ids=lambda case: case["id"])
def test_grpc(addresses, case):
    stub, message = CALLS[case["call"]]
    request = json_format.ParseDict(filled(case["request"]), message())
    with grpc.insecure_channel(addresses[0]) as channel:
        call = getattr(stub(channel), case["call"])
        if "error" in case:
            with pytest.raises(grpc.RpcError) as raised:
                call(request, timeout=10)
            assert raised.value.code().name == case["error"]
            assert case.get("says", "") in raised.value.details()
            return
        response = call(request, timeout=10)
    answer = json_format.MessageToDict(response, preserving_proto_field_name=True)
    assert_has(answer, case["expect"])
    if "absent" in case:
        *path, last = case["absent"]
        for key in path:
            answer = answer[key]
        assert last not in answer
