"""Floating point operations, counted in what XLA is given to compile."""

import math
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

PRODUCT = re.compile(r"= \w+\[([\d,]*)\]\S* dot\(\w+\[([\d,]*)\].*?lhs_contracting_dims={([\d,]*)}")


def matmul_flops(function: Callable[..., Any], *args: Any) -> int:
    """Floating point operations of all matrix products that a function asks for.

    Every product of `m x k` and `k x n` counts as `2 m k n`. What is done element by element is
    not counted: in the models here it is little, and how much of it remains is up to the compiler.
    `tf.profiler` cannot be used, since it takes an `Einsum` for nothing.

    Args:
        function: A function of tensors that XLA can compile. It is not run.
        *args: Its arguments.

    Returns:
        The number of operations.

    Example:

    >>> matmul_flops(lambda a, b: a @ b, tf.zeros((3, 4)), tf.zeros((4, 5)))
    120
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)
    program = compiled.experimental_get_compiler_ir(*args)(stage="hlo")
    return sum(
        2 * math.prod(_numbers(output)) * math.prod(_numbers(left)[d] for d in _numbers(contracted))
        for output, left, contracted in PRODUCT.findall(program)
    )


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]
