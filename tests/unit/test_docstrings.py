"""The examples in the docstrings run as they stand, with the public names at hand."""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from keras import ops

import mptrec_tf

NAMES = {"keras": keras, "ops": ops, "np": np, "tf": tf, "pa": pa}
for namespace in (mptrec_tf.layers, mptrec_tf.data, mptrec_tf.optimizers, mptrec_tf):
    NAMES |= {name: getattr(namespace, name) for name in namespace.__all__}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for info in pkgutil.walk_packages(mptrec_tf.__path__, "mptrec_tf."):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        module = importlib.import_module(info.name)
        for test in finder.find(module, extraglobs=NAMES):
            if test.examples:
                yield pytest.param(test, id=test.name.removeprefix("mptrec_tf."))


@pytest.mark.parametrize("test", examples())
def test_example(test):
    report = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert not report, "".join(report)
