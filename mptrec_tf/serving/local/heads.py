"""Classify, Regress and MultiInference on one loaded version: the APIs that take Examples.

Checks and messages are TensorFlow Serving's.
"""

import dataclasses
from collections.abc import Callable, Mapping

import grpc
import numpy as np
from google.protobuf.message import Message
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    regression_pb2,
)

from mptrec_tf.serving.layout import METHODS, SERVING_DEFAULT
from mptrec_tf.serving.local.errors import RequestError, invalid
from mptrec_tf.serving.local.predict import model_spec
from mptrec_tf.serving.local.servable import Servable, Signature
from mptrec_tf.serving.local.tensors import type_name

CLASSIFY, REGRESS = METHODS["classify"], METHODS["regress"]


@dataclasses.dataclass(frozen=True)
class _Head:
    """A signature with one input, `inputs`, and what a method reads of its outputs."""

    name: str
    input: str
    outputs: Mapping[str, str]
    result: Callable[[Mapping[str, np.ndarray], int], Message]

    def read(self, fetched: Mapping[str, np.ndarray], rows: int) -> Message:
        return self.result({key: fetched[name] for key, name in self.outputs.items()}, rows)


def classify(
    servable: Servable, request: classification_pb2.ClassificationRequest
) -> classification_pb2.ClassificationResponse:
    """Answers Classify: for each Example the labels and scores of the classes.

    Args:
        servable: The version that the request asks for.
        request: Examples.

    Returns:
        A result for each Example.

    Raises:
        RequestError: If the signature is not of this kind, there are no Examples, or the graph
            fails.
    """
    head = _head(servable, request.model_spec, CLASSIFY, "No signature was found with the name: ")
    return classification_pb2.ClassificationResponse(
        model_spec=model_spec(servable, head.name),
        result=_infer(servable, request.input, [head])[0],
    )


def regress(
    servable: Servable, request: regression_pb2.RegressionRequest
) -> regression_pb2.RegressionResponse:
    """Answers Regress: a number for each Example; arguments and errors as `classify`."""
    head = _head(servable, request.model_spec, REGRESS, "No signature was found with the name: ")
    return regression_pb2.RegressionResponse(
        model_spec=model_spec(servable, head.name),
        result=_infer(servable, request.input, [head])[0],
    )


def multi_inference(
    servable: Servable, request: inference_pb2.MultiInferenceRequest
) -> inference_pb2.MultiInferenceResponse:
    """Answers MultiInference: Classify and Regress of several heads in one run of the graph.

    Args:
        servable: The version that the first task asks for.
        request: Examples and tasks.

    Returns:
        A result for each task, in the order of the tasks.

    Raises:
        RequestError: If tasks name different models or a signature twice, or as in `classify`.
    """
    heads: dict[str, _Head] = {}
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or SERVING_DEFAULT
        if name in heads:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        heads[name] = _head(
            servable,
            task.model_spec,
            task.method_name,
            "Requested signature not found in model graph: ",
        )
    response = inference_pb2.MultiInferenceResponse()
    for head, result in zip(
        heads.values(), _infer(servable, request.input, list(heads.values())), strict=True
    ):
        answer = response.results.add(model_spec=model_spec(servable, head.name))
        if isinstance(result, regression_pb2.RegressionResult):
            answer.regression_result.CopyFrom(result)
        else:
            answer.classification_result.CopyFrom(result)
    return response


def _infer(servable: Servable, given: input_pb2.Input, heads: list[_Head]) -> list[Message]:
    """Runs all heads at once; heads that do not share their placeholder are fed the same."""
    examples = _examples(given)
    fetched = servable.run(
        {head.input: examples for head in heads},
        {name for head in heads for name in head.outputs.values()},
    )
    return [head.read(fetched, len(examples)) for head in heads]


def _examples(given: input_pb2.Input) -> np.ndarray:
    """Serialized Examples (B,); those after a context are merged with it, as bytes are."""
    if given.WhichOneof("kind") == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        found = given.example_list_with_context.examples
    else:
        context = b""
        found = given.example_list.examples
    if not found:
        raise invalid("Input is empty.")
    examples = np.empty(len(found), object)
    examples[:] = [context + example.SerializeToString() for example in found]
    return examples


def _head(servable: Servable, spec: model_pb2.ModelSpec, method: str, not_found: str) -> _Head:
    name = spec.signature_name or SERVING_DEFAULT
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(not_found + name)
    if method not in _METHODS:
        raise RequestError(
            grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {method}"
        )
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    check, result = _METHODS[method]
    outputs = check(signature)
    kind = "classification" if method == CLASSIFY else "regression"
    if "inputs" not in signature.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {signature.definition}")
    placeholder = signature.inputs["inputs"]
    if placeholder.dtype != types_pb2.DT_STRING:
        raise invalid(
            f"input 'inputs' of the signature {name!r} has the type "
            f"{type_name(placeholder.dtype)}, {kind} feeds strings"
        )
    return _Head(name, placeholder.name, outputs, result)


def _classify_outputs(signature: Signature) -> dict[str, str]:
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    outputs = {
        key: signature.outputs[key].name
        for key in ("classes", "scores")
        if key in signature.outputs
    }
    if not outputs:
        raise invalid(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {signature.definition}'
        )
    return outputs


def _regress_outputs(signature: Signature) -> dict[str, str]:
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "outputs" not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature.definition}")
    return {"outputs": signature.outputs["outputs"].name}


def _classifications(
    outputs: Mapping[str, np.ndarray], rows: int
) -> classification_pb2.ClassificationResult:
    for key, array in outputs.items():
        if array.ndim != 2:
            raise invalid(
                f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}"
            )
        if (array.dtype.kind, key) not in (("O", "classes"), ("f", "scores")):
            wanted = "DT_STRING" if key == "classes" else "DT_FLOAT"
            raise invalid(f"Expected {key} Tensor of {wanted}. Got: {array.dtype}")
        if len(array) != rows:
            raise invalid(f"Expected {key} output batch size of {rows}. Got: {len(array)}")
    if len({array.shape for array in outputs.values()}) > 1:
        sizes = " vs. ".join(str(array.shape[1]) for array in outputs.values())
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {sizes}")
    columns = {
        field: outputs[key].tolist()
        for field, key in (("label", "classes"), ("score", "scores"))
        if key in outputs
    }
    result = classification_pb2.ClassificationResult()
    for row in zip(*columns.values(), strict=True):
        classes = result.classifications.add().classes
        for cells in zip(*row, strict=True):
            classes.add(**dict(zip(columns, cells, strict=True)))
    return result


def _regressions(outputs: Mapping[str, np.ndarray], rows: int) -> regression_pb2.RegressionResult:
    array = outputs["outputs"]
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(array)}"
        )
    if len(array) != rows:
        raise invalid(f"Input batch size did not match output batch size: {rows} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {array.dtype}")
    result = regression_pb2.RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _shape(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"


_METHODS = {
    CLASSIFY: (_classify_outputs, _classifications),
    REGRESS: (_regress_outputs, _regressions),
}
