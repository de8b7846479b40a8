"""Runs a SavedModel in a `tf.compat.v1.Session`, without mptrec_tf."""

import base64
import json
import sys
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf


def to_array(value: dict) -> np.ndarray:
    """A value of the job as an array."""
    if value["dtype"] == "string":
        flat = np.array([base64.b64decode(text) for text in value["values"]], object)
    else:
        flat = np.array(value["values"], value["dtype"])
    return flat.reshape(value["shape"])


def from_array(array: np.ndarray) -> dict:
    """An array as a value of the answer."""
    flat = array.ravel().tolist()
    if array.dtype == object:
        flat = [base64.b64encode(text).decode() for text in flat]
    dtype = "string" if array.dtype == object else array.dtype.name
    return {"dtype": dtype, "shape": list(array.shape), "values": flat}


def main() -> None:
    """Runs the job on standard input."""
    job = json.load(sys.stdin)
    with tf.Session(graph=tf.Graph()) as session:
        tf.saved_model.loader.load(session, ["serve"], job["path"])
        for run in job["runs"]:
            try:
                feeds = {name: to_array(value) for name, value in run["feeds"].items()}
                arrays = session.run(run["fetches"], feeds)
                answer: dict[str, Any] = {"outputs": [from_array(array) for array in arrays]}
            except (tf.errors.OpError, ValueError, KeyError) as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
