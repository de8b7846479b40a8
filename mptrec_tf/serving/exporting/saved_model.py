"""Writing the SavedModel itself, with signatures as TensorFlow Serving wants them."""

import pathlib

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from mptrec_tf.serving.exporting.signatures import ServingGraph
from mptrec_tf.serving.layout import (
    COLUMNS,
    ENCODED,
    EXAMPLES,
    GRAPH_FILE,
    HEADS,
    INPUTS,
    METHODS,
    SERVING_DEFAULT,
)


def write_saved_model(served: ServingGraph, directory: pathlib.Path) -> None:
    """Writes a SavedModel whose signatures share one graph.

    Args:
        served: What is served.
        directory: Where to; made if it is not there.
    """
    tf.saved_model.save(served.module, str(directory), signatures=served.signatures)
    file = directory / GRAPH_FILE
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (meta_graph,) = saved.meta_graphs
    _share_heads(meta_graph.signature_def, served)
    _name_columns(meta_graph.signature_def[COLUMNS], served)
    file.write_bytes(saved.SerializeToString(deterministic=True))
    (directory / "fingerprint.pb").unlink()  # it told of the graph as it was before


def _share_heads(signatures: dict[str, meta_graph_pb2.SignatureDef], served: ServingGraph) -> None:
    """Points `serving_default` and the tasks at one graph.

    Each saved signature calls the model on an input of its own. A server that is asked for several
    tasks at once (MultiInference) would run the model for each.
    """
    heads = signatures.pop(HEADS)
    examples = heads.inputs[INPUTS]
    signatures[SERVING_DEFAULT].inputs[EXAMPLES].CopyFrom(examples)
    for task in served.tasks:
        head = signatures[task.name]
        head.inputs[INPUTS].CopyFrom(examples)
        for output in head.outputs:
            head.outputs[output].CopyFrom(heads.outputs[f"{task.name}/{output}"])
        head.method_name = METHODS["regress" if task.classes is None else "classify"]
        score = head.outputs["outputs" if task.classes is None else "scores"]
        signatures[SERVING_DEFAULT].outputs[task.name].CopyFrom(score)
    for name in (SERVING_DEFAULT, COLUMNS, ENCODED):
        signatures[name].method_name = METHODS["predict"]


def _name_columns(signature: meta_graph_pb2.SignatureDef, served: ServingGraph) -> None:
    """Gives the inputs the columns' names, which need not be names that TensorFlow allows."""
    inputs = {column: signature.inputs[alias] for column, alias in served.aliases.items()}
    named = meta_graph_pb2.SignatureDef()
    for column, tensor in inputs.items():
        named.inputs[column].CopyFrom(tensor)
    signature.ClearField("inputs")
    signature.MergeFrom(named)
