"""Embedding tables of models that were saved by TensorFlow Recommenders or Keras 2.

Their files are read, not run: neither TensorFlow Recommenders nor Keras 2 is imported, and no
custom operation needs to be there.
"""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from mptrec_tf.data.encoding import FIRST_ID, MISSING_ID, UNKNOWN_ID
from mptrec_tf.errors import ModelError
from mptrec_tf.models import MPTRec
from mptrec_tf.spec import CategoricalFeature
from mptrec_tf.training.matching import columns_of
from mptrec_tf.training.warm_start import WarmStart

UNKNOWN = ("[UNK]", -1)
"""What `get_vocabulary` of `StringLookup` and `IntegerLookup` call what is outside of it."""

WHOLE_LINE, LINE_NUMBER = -2, -1


class SavedEmbeddings(NamedTuple):
    """An embedding table and what its rows mean.

    Attributes:
        layer: Where it is in its model, such as `"user_model/layer_with_weights-0"`.
        table: float32 (rows, dim).
        row_of: By text or whole number of a category, its row.
        unknown: Row of a text outside the vocabulary, or `None`.

    Example:

    >>> saved = SavedEmbeddings("user_model", np.zeros((2, 8), "float32"), {"Oslo": 1}, unknown=0)
    >>> saved.table[saved.row_of["Oslo"]].shape
    (8,)
    """

    layer: str
    table: np.ndarray
    row_of: Mapping[str, int] | Mapping[int, int]
    unknown: int | None


def embeddings_from_saved_model(
    path: str | os.PathLike[str],
    layer: str | None = None,
    vocabulary: Sequence[str] | Sequence[int] | None = None,
) -> SavedEmbeddings:
    """Reads an embedding table, and the vocabulary of the lookup layer before it.

    Made for what models of TensorFlow Recommenders have:
    `Sequential([StringLookup(...), Embedding(...)])`, anywhere in the model.

    Args:
        path: A SavedModel (such as an index for retrieval, or a tower saved by itself), or the
            prefix of a checkpoint (as `save_weights` and `tf.train.Checkpoint` take it).
        layer: Part of the place of the embedding layer, such as `"user_model"`, where there are
            several. Defaults to `None`.
        vocabulary: The text or whole number of each row, as `get_vocabulary()` of the lookup layer
            gives it, if its `oov_token` is the usual one. Defaults to `None`: that of the only
            lookup layer beside the embedding layer. A checkpoint holds none.

    Returns:
        The table with its vocabulary.

    Raises:
        ModelError: If there is no such file, no such layer or several, or no vocabulary.

    Example:

    ```python
    saved = embeddings_from_saved_model("exports/retrieval/1", layer="query_model")
    print(take_embeddings(model, "user_id", saved))
    ```
    """
    path = pathlib.Path(path)
    is_saved_model = (path / "saved_model.pb").is_file()
    prefix = path / "variables" / "variables" if is_saved_model else path
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    except (ValueError, tf.errors.OpError) as error:
        raise ModelError(f"{path}: neither a SavedModel nor a checkpoint: {error}") from error
    found = {
        "/".join(names): (names, key)
        for names, key in _embedding_layers(graph)
        if layer is None or layer in "/".join(names)
    }
    if len(found) != 1:
        places = sorted({"/".join(names) for names, _ in _embedding_layers(graph)})
        raise ModelError(
            f"{path}: layer must name one of the embedding layers {places}. Received: {layer!r}"
        )
    ((place, (names, key)),) = found.items()
    table = np.asarray(reader.get_tensor(key), np.float32)
    if vocabulary is not None:
        row_of = {str(text): row for row, text in enumerate(vocabulary) if text not in UNKNOWN}
        unknown = max((i for i, text in enumerate(vocabulary) if text in UNKNOWN), default=None)
    else:
        looked_up = _vocabulary(path, names) if is_saved_model else None
        if not looked_up:
            raise ModelError(
                f"{path}: there is not exactly one vocabulary beside the embedding layer "
                f"{place!r}; give it as vocabulary, as StringLookup.get_vocabulary() does"
            )
        row_of = looked_up
        # The rows before those of the vocabulary: for a mask, if any, then for unknown texts.
        unknown = min(row_of.values()) - 1 if min(row_of.values()) else None
    if max(row_of.values(), default=0) >= len(table):
        raise ModelError(
            f"{path}: the vocabulary needs {max(row_of.values()) + 1} rows, but the table of "
            f"{place!r} has {len(table)}"
        )
    return SavedEmbeddings(place, table, row_of, unknown)


def take_embeddings(model: MPTRec, feature: str, saved: SavedEmbeddings) -> WarmStart:
    """Gives a feature's categories the embeddings that they have elsewhere, in place.

    Categories that the table lacks stay as they were initialized, and so does a missing value.

    Args:
        model: A new model that was not trained yet.
        feature: A feature with a vocabulary.
        saved: The table.

    Returns:
        What was taken.

    Raises:
        ModelError: If the model was trained already, the feature has no vocabulary or a row for
            several ids, the width is another, or no category is in both.

    Example:

    >>> feature = CategoricalFeature("city", vocabulary=("Oslo", "Rome"), embedding_dim=2)
    >>> encoder = FeatureEncoder([feature])
    >>> model = MPTRec(encoder, [Task("click", "click")], expert_units=(4,), tower_units=(2,))
    >>> saved = SavedEmbeddings("user_model", np.float32([[1, 2]]), {"Oslo": 0}, unknown=None)
    >>> print(take_embeddings(model, "city", saved))
    taken from the earlier model:
      feature 'city': 1 of 2 categories from 'user_model'
    """
    if model.trained_epochs:
        raise ModelError(
            f"the model was trained for {model.trained_epochs} epochs, which new embeddings would "
            "undo; give a new model"
        )
    columns = columns_of(model)
    if feature not in columns:
        raise ModelError(f"the model has no categorical feature {feature!r}; it has {[*columns]}")
    column = columns[feature]
    (definition,) = (f for f in model.encoder.features if f.name == feature)
    for setting in ("hash_buckets", "quotient_remainder"):
        if isinstance(definition, CategoricalFeature) and getattr(definition, setting) is not None:
            raise ModelError(f"feature {feature!r}: with {setting}, no row belongs to one category")
    width, theirs = column.table.shape[1], saved.table.shape[1]
    if width != theirs:
        raise ModelError(
            f"feature {feature!r}: its embeddings have the width {width}, those of "
            f"{saved.layer!r} {theirs}; give the feature embedding_dim: {theirs}"
        )
    row_of = {str(text): row for text, row in saved.row_of.items()}
    rows = {i: row_of.get(text) for i, text in enumerate(column.vocabulary, FIRST_ID)}
    known = {i: row for i, row in rows.items() if row is not None}
    if not known:
        raise ModelError(
            f"feature {feature!r}: none of its {len(rows)} categories is in the vocabulary of "
            f"{saved.layer!r}, which begins with {list(row_of)[:3]}"
        )
    text = f"{len(known):,} of {len(rows):,} categories from {saved.layer!r}"
    known |= {UNKNOWN_ID: saved.unknown} if saved.unknown is not None else {}
    known |= {MISSING_ID: row_of[""]} if "" in row_of else {}
    table = column.table.copy()
    table[list(known)] = saved.table[list(known.values())]
    model.backbone.embedding.assign_column_tables({column.number: table})  # type: ignore[union-attr]
    return WarmStart({f"feature {feature!r}": text})


def _embedding_layers(graph: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Places of the embedding layers in a checkpoint, and the keys of their tables."""
    seen = {0}
    waiting: list[tuple[tuple[str, ...], int]] = [((), 0)]
    for names, number in waiting:  # the list grows: breadth first, so that places are short
        for child in graph.nodes[number].children:
            if child.local_name == "embeddings":
                for attribute in graph.nodes[child.node_id].attributes:
                    yield names, attribute.checkpoint_key
            elif child.node_id not in seen and child.local_name != "keras_api":
                seen.add(child.node_id)
                waiting.append(((*names, child.local_name), child.node_id))


def _vocabulary(path: pathlib.Path, names: Sequence[str]) -> dict[str, int] | None:
    """Rows by text of the only lookup layer beside a layer of a SavedModel, if there is one."""
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((path / "saved_model.pb").read_bytes())
    meta_graph = saved_model.meta_graphs[0]
    nodes = meta_graph.object_graph_def.nodes
    number = 0
    for name in names[:-1]:
        number = _children(nodes[number])[name]
    tables = {
        _children(nodes[child])["lookup_table"]
        for child in _children(nodes[number]).values()
        if "lookup_table" in _children(nodes[child])
    }
    if len(tables) != 1:
        return None
    return _table_content(path, meta_graph, _children(nodes[tables.pop()]).get("_initialize"))


def _table_content(
    path: pathlib.Path, meta_graph: Any, initializer: int | None
) -> dict[str, int] | None:
    """Values by key of a lookup table, from the constants or the file that it begins with."""
    graph = meta_graph.object_graph_def
    if initializer is None:
        return None
    (name,) = graph.nodes[initializer].function.concrete_functions
    (function,) = (f for f in meta_graph.graph_def.library.function if f.signature.name == name)
    arguments = [argument.name for argument in function.signature.input_arg]
    captured = dict(zip(arguments, graph.concrete_functions[name].bound_inputs, strict=True))
    for operation in function.node_def:
        inputs = [graph.nodes[captured[i]] for i in operation.input if i in captured]
        if operation.op == "LookupTableImportV2":
            constants = {node.name: node for node in meta_graph.graph_def.node}
            keys, values = (
                tf.make_ndarray(constants[node.constant.operation].attr["value"].tensor)
                for node in inputs[1:]
            )
            return {_text(k): int(v) for k, v in zip(keys, values, strict=True)}
        if operation.op == "InitializeTableFromTextFileV2":
            indices = (operation.attr["key_index"].i, operation.attr["value_index"].i)
            if indices != (WHOLE_LINE, LINE_NUMBER):
                return None
            asset = meta_graph.asset_file_def[inputs[1].asset.asset_file_def_index]
            lines = _lines(path / "assets" / asset.filename)
            return {text: i for i, text in enumerate(lines, operation.attr["offset"].i)}
    return None


def _lines(file: pathlib.Path) -> list[str]:
    """The lines of a file as TensorFlow reads them, for which nothing but a line feed ends one."""
    text = file.read_bytes().decode("utf-8").replace("\r", "")
    return text.removesuffix("\n").split("\n")


def _children(node: Any) -> dict[str, int]:
    return {child.local_name: child.node_id for child in node.children}


def _text(key: Any) -> str:
    return key.decode("utf-8") if isinstance(key, bytes) else str(key)
