"""Proof that frozen weights did not change."""

import hashlib
from collections.abc import Iterable

import keras


def fingerprint(weights: Iterable[keras.Variable]) -> str:
    """A SHA-256 over the paths, dtypes, shapes and bytes of weights, in their order.

    Args:
        weights: The weights.

    Returns:
        The digest in hexadecimal. Two equal digests mean equal weights, bit for bit.

    Example:

    >>> fingerprint([keras.Variable([1.0], name="w")])[:8]
    'bba795a0'
    """
    digest = hashlib.sha256()
    for weight in weights:
        array = keras.ops.convert_to_numpy(weight)
        digest.update(f"{weight.path}|{array.dtype}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
