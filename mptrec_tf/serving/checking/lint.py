"""What TensorFlow Serving requires of a SavedModel, read from its files."""

from collections.abc import Iterator

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from mptrec_tf.serving.checking.files import VersionFiles
from mptrec_tf.serving.layout import INPUTS, MAX_RECORDS, METHODS, SERVING_DEFAULT

PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}

OUTPUTS = {
    METHODS["regress"]: {"outputs": types_pb2.DT_FLOAT},
    METHODS["classify"]: {"classes": types_pb2.DT_STRING, "scores": types_pb2.DT_FLOAT},
}
"""The only outputs, with their types, of signatures that are called through Regress, Classify."""


def lint(files: VersionFiles) -> list[str]:
    """Looks for what a server would refuse, or load and then fail on.

    Args:
        files: Those of the SavedModel.

    Returns:
        The problems; none if all is well.

    Raises:
        ServingError: If there is no graph to look at.
    """
    signatures = files.signatures
    problems = [*_files(files), *_operations(files.meta_graph)]
    if SERVING_DEFAULT not in signatures:
        problems.append(f"no signature {SERVING_DEFAULT!r}; there are {sorted(signatures)}")
    nodes = {node.name for node in files.meta_graph.graph_def.node}
    for name, signature in sorted(signatures.items()):
        problems += [f"signature {name!r}: {problem}" for problem in _signature(signature, nodes)]
    heads = [s for s in signatures.values() if s.method_name in OUTPUTS]
    if len({head.inputs[INPUTS].name for head in heads if INPUTS in head.inputs}) > 1:
        problems.append(
            "the signatures for Regress and Classify read different tensors, so that "
            "MultiInference cannot run them together"
        )
    return problems


def _files(files: VersionFiles) -> Iterator[str]:
    variables = files.directory / "variables"
    if not (variables / "variables.index").is_file():
        yield "variables/variables.index is missing: a server would load the graph and then fail"
    elif not list(variables.glob("variables.data-*")):
        yield "the data of variables/ are missing"
    try:
        records = len(files.warmup)
    except (DecodeError, tf.errors.DataLossError) as error:
        yield f"the warm-up requests cannot be read: {error}"
    else:
        if records > MAX_RECORDS:
            yield f"{records} warm-up requests; a server refuses more than {MAX_RECORDS}"


def _operations(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[str]:
    graph = meta_graph.graph_def
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    for operation in sorted(PYTHON_OPS & {node.op for node in nodes}):
        yield f"the operation {operation} calls Python, which a server does not have"


def _signature(signature: meta_graph_pb2.SignatureDef, nodes: set[str]) -> Iterator[str]:
    if not signature.inputs or not signature.outputs:
        yield "needs at least one input and one output"
    for alias, tensor in [*signature.inputs.items(), *signature.outputs.items()]:
        if tensor.name.partition(":")[0] not in nodes:
            yield f"{alias!r} is the tensor {tensor.name!r}, which is not in the graph"
    if signature.method_name not in METHODS.values():
        yield f"method {signature.method_name!r}, expected one of {sorted(METHODS.values())}"
    expected = OUTPUTS.get(signature.method_name)
    if expected is None:
        return
    if list(signature.inputs) != [INPUTS]:
        yield f"inputs {sorted(signature.inputs)}, expected exactly {INPUTS!r}"
    elif signature.inputs[INPUTS].dtype != types_pb2.DT_STRING:
        yield f"input {INPUTS!r} is {_dtype(signature.inputs[INPUTS])}, expected string"
    if not set(signature.outputs) <= set(expected):
        yield f"outputs {sorted(signature.outputs)}, expected {sorted(expected)} only"
    for alias in sorted(set(signature.outputs) & set(expected)):
        tensor = signature.outputs[alias]
        if tensor.dtype != expected[alias]:
            yield f"output {alias!r} is {_dtype(tensor)}, expected {_name(expected[alias])}"
        shape = [dimension.size for dimension in tensor.tensor_shape.dim]
        if alias == "outputs" and len(shape) != 1 and shape[1:] != [1]:
            yield f"output {alias!r} has the shape {shape}, expected (B,) or (B, 1)"
        if alias != "outputs" and len(shape) != 2:
            yield f"output {alias!r} has the shape {shape}, expected (B, C)"


def _dtype(tensor: meta_graph_pb2.TensorInfo) -> str:
    return _name(tensor.dtype)


def _name(dtype: int) -> str:
    return tf.dtypes.as_dtype(dtype).name
