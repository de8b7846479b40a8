"""Predict and metadata on one loaded version, with TensorFlow Serving's checks and messages."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import grpc
import numpy as np
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from mptrec_tf.serving.layout import SERVING_DEFAULT
from mptrec_tf.serving.local.errors import RequestError, invalid
from mptrec_tf.serving.local.servable import Servable, Signature
from mptrec_tf.serving.local.tensors import to_array, to_proto

SIGNATURES_FIELD = "signature_def"


def predict(servable: Servable, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Answers Predict.

    Args:
        servable: The version that the request asks for.
        request: Tensors by the aliases of the signature's inputs; `output_filter` chooses outputs.

    Returns:
        The outputs by alias.

    Raises:
        RequestError: If the request does not fit the signature, or the graph fails.
    """
    name = request.model_spec.signature_name or SERVING_DEFAULT
    signature = servable.signatures.get(name)
    if signature is None:
        raise RequestError(
            grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
        )
    _check_aliases(signature, request.inputs)
    arrays = {
        alias: to_array(request.inputs[alias], spec, alias)
        for alias, spec in signature.inputs.items()
    }
    outputs = run(servable, signature, arrays, request.output_filter)
    return predict_pb2.PredictResponse(
        model_spec=model_spec(servable, name),
        outputs={
            alias: to_proto(array, signature.outputs[alias].dtype)
            for alias, array in outputs.items()
        },
    )


def run(
    servable: Servable,
    signature: Signature,
    arrays: Mapping[str, np.ndarray],
    output_filter: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Runs a signature.

    Args:
        servable: The version.
        signature: One of its signatures.
        arrays: All of its inputs, by alias.
        output_filter: Aliases of outputs. Defaults to `()`: all.

    Returns:
        The outputs by alias.

    Raises:
        RequestError: If an alias is wrong or named twice, or the graph fails.
    """
    wanted = set(output_filter)
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {_set(signature.outputs)}."
            )
        if alias not in wanted:
            raise invalid(f"duplicate output tensor alias: {alias}")
        wanted.remove(alias)
    aliases = [alias for alias in signature.outputs if not output_filter or alias in output_filter]
    feeds = {signature.inputs[alias].name: array for alias, array in arrays.items()}
    fetched = servable.run(feeds, {signature.outputs[alias].name for alias in aliases})
    return {alias: fetched[signature.outputs[alias].name] for alias in aliases}


def metadata(
    servable: Servable, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Answers GetModelMetadata: the signatures, which are all that TensorFlow Serving has.

    Args:
        servable: The version that the request asks for.
        request: Its `metadata_field` is `["signature_def"]`.

    Returns:
        The signatures of the version.

    Raises:
        RequestError: If no field, or another one, is asked for.
    """
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != SIGNATURES_FIELD:
            raise invalid(f"Metadata field {field} is not supported")
    signatures = get_model_metadata_pb2.SignatureDefMap(
        signature_def={key: value.definition for key, value in servable.signatures.items()}
    )
    response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=model_spec(servable))
    response.metadata[SIGNATURES_FIELD].Pack(signatures)
    return response


def model_spec(servable: Servable, signature_name: str = "") -> model_pb2.ModelSpec:
    """Who answered: name and version of the model, and the signature."""
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature_name)
    spec.version.value = servable.version
    return spec


def _check_aliases(signature: Signature, given: Collection[str]) -> None:
    if given == signature.inputs.keys():
        return
    expected = signature.inputs.keys()
    if len(given) != len(expected):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(expected)} "
            f"len({_set(given)}) != len({_set(expected)}). Sent extra: "
            f"{_set(set(given) - expected)}. Missing but required: {_set(expected - set(given))}."
        )
    for alias in signature.inputs:
        if alias not in given:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not "
                f"found in request and no default value provided. Inputs expected to be in the "
                f"request {_set(given)}, or default input alias set: "
            )


def _set(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"
