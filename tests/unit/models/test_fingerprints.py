"""Fingerprints of weights."""

import keras
import numpy as np
import pytest

from mptrec_tf.models.fingerprints import fingerprint


def weights(values=(1.0, 2.0), name="kernel", dtype="float32"):
    return [keras.Variable(values, name=name, dtype=dtype), keras.Variable([3.0], name="bias")]


def test_equal_weights_have_equal_fingerprints():
    assert fingerprint(weights()) == fingerprint(weights())
    assert len(fingerprint(weights())) == 64
    assert int(fingerprint([]), 16) >= 0


@pytest.mark.parametrize(
    "other",
    [
        weights(values=[1.0, np.nextafter(np.float32(2), np.float32(3))]),
        weights(values=[2.0, 1.0]),
        weights(values=[[1.0, 2.0]]),
        weights(name="kernel_1"),
        weights(dtype="int32"),
        weights(dtype="bfloat16"),
        weights()[::-1],
        weights()[:1],
    ],
    ids=["last bit", "order", "shape", "name", "dtype", "half", "reversed", "fewer"],
)
def test_any_difference_shows(other):
    assert fingerprint(other) != fingerprint(weights())


def test_signs_of_zero_differ():
    assert fingerprint(weights([0.0, 1.0])) != fingerprint(weights([-0.0, 1.0]))
