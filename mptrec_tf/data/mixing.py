"""Numbers that look random and depend on given ones alone."""

import numpy as np


def mixed_bits(numbers: np.ndarray) -> np.ndarray:
    """Mixes the bits of each number: the finalizer of SplitMix64.

    Args:
        numbers: Uint64.

    Returns:
        Uint64 of the same shape.

    Example:

    >>> mixed_bits(np.array([0, 1, 2], np.uint64)) >> np.uint64(60)
    array([ 0,  5, 13], dtype=uint64)

    Reference: https://doi.org/10.1145/2660193.2660195.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))


def fractions(numbers: np.ndarray) -> np.ndarray:
    """Float64 in [0, 1), from the upper 53 bits of uint64.

    Args:
        numbers: Uint64.

    Example:

    >>> fractions(np.array([0, 1 << 63], np.uint64))
    array([0. , 0.5])
    """
    return (numbers >> np.uint64(11)).astype(np.float64) / 2.0**53
