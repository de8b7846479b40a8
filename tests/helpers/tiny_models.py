"""SavedModels of a few operations, with the signatures that an export has, and their answers.

`python tests/helpers/tiny_models.py DIR` writes version 3 to DIR/3, for a server elsewhere.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence

import tensorflow as tf

tf1 = tf.compat.v1
CLASSES = (b"red", b"green", b"blue")
VERSION = 3
"""Of the model that other servers are tried with."""


def save(base_path: pathlib.Path, version: int, *, name: str | None = None) -> pathlib.Path:
    """Writes a model whose answers tell its version.

    `click` (regress) is `version + x / 64`, `visits` (regress) `version * (1 + number of tags)`,
    `color` (classify) has the scores `[version, x, number of tags]`. The parts of `base_path` are
    made. The version appears at once, by a rename.

    Args:
        base_path: Directory of the versions.
        version: Number of the version.
        name: Name of the directory instead of the version's number.

    Returns:
        The directory of the version.
    """
    base_path.mkdir(parents=True, exist_ok=True)
    partial, path = base_path / f".{version}.partial", base_path / (name or str(version))
    with tf.Graph().as_default(), tf1.Session() as session:
        serialized = tf1.placeholder(tf.string, [None], name="examples")
        features = tf.io.parse_example(
            serialized,
            {
                "x": tf.io.FixedLenFeature([], tf.float32),
                "tags": tf.io.VarLenFeature(tf.string),
            },
        )
        tags = tf.sparse.to_dense(features["tags"], default_value="")
        heads = _heads(features["x"], tags, version)
        x = tf1.placeholder(tf.float32, [None], name="x")
        columns = tf1.placeholder(tf.string, [None, None], name="tags")
        by_column = _heads(x, columns, version)
        classes = tf.tile([CLASSES], [tf.shape(serialized)[0], 1])
        signatures = {
            "serving_default": _signature("predict", {"examples": serialized}, heads),
            "columns": _signature("predict", {"x": x, "tags": columns}, by_column),
            "click": _signature("regress", {"inputs": serialized}, {"outputs": heads["click"]}),
            "visits": _signature("regress", {"inputs": serialized}, {"outputs": heads["visits"]}),
            "color": _signature(
                "classify",
                {"inputs": serialized},
                {"classes": classes, "scores": heads["color"]},
            ),
            "echo": _signature(
                "predict",
                {"tags": columns},
                {"tags": tf.identity(columns), "tags_bytes": tf.identity(columns)},
            ),
        }
        builder = tf1.saved_model.Builder(str(partial))
        session.run(tf1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return partial.rename(path)


def example(x: float, tags: Sequence[str] = ()) -> tf.train.Example:
    """An Example that the model parses."""
    feature = {
        "x": tf.train.Feature(float_list=tf.train.FloatList(value=[x])),
        "tags": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[tag.encode() for tag in tags])
        ),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


def answer(version: int, x: float, tags: Sequence[str] = ()) -> dict[str, float | list[float]]:
    """What the model of a version answers to a row, by output."""
    return {
        "click": version + x / 64,
        "visits": float(version * (1 + len(tags))),
        "color": [float(version), x, float(len(tags))],
    }


def _heads(x: tf.Tensor, tags: tf.Tensor, version: int) -> dict[str, tf.Tensor]:
    bias = tf1.Variable(float(version))
    number = tf.reduce_sum(tf.cast(tf.not_equal(tags, ""), tf.float32), axis=1)
    return {
        "click": bias + x / 64,
        "visits": bias * (1 + number),
        "color": tf.stack([bias * tf.ones_like(x), x, number], axis=1),
    }


def _signature(method: str, inputs: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor]):
    info = tf1.saved_model.build_tensor_info
    return tf1.saved_model.build_signature_def(
        {name: info(tensor) for name, tensor in inputs.items()},
        {name: info(tensor) for name, tensor in outputs.items()},
        f"tensorflow/serving/{method}",
    )


if __name__ == "__main__":
    print(save(pathlib.Path(sys.argv[1]), VERSION))
