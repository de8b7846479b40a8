"""Public names have examples, and those in the docstrings run, with the public names at hand."""

import doctest
import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from keras import ops

import mptrec_client
import mptrec_tf

NAMES = {"keras": keras, "ops": ops, "np": np, "tf": tf, "pa": pa}
for namespace in (mptrec_tf.layers, mptrec_tf.data, mptrec_tf.optimizers, mptrec_tf):
    NAMES |= {name: getattr(namespace, name) for name in namespace.__all__}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules():
    for package in (mptrec_tf, mptrec_client):
        yield package
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part.startswith("_") for part in info.name.split(".")):
                yield importlib.import_module(info.name)


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        for test in finder.find(module, extraglobs=NAMES | vars(module)):
            if test.examples:
                yield pytest.param(test, id=test.name.removeprefix("mptrec_tf."))


def exported():
    for module in modules():
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            is_error = inspect.isclass(value) and issubclass(value, Exception)
            if (inspect.isclass(value) or inspect.isfunction(value)) and not is_error:
                yield pytest.param(value, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize("test", examples())
def test_example(test):
    report = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("value", exported())
def test_what_is_exported_has_an_example(value):
    assert "\n\nExample:\n\n" in inspect.getdoc(value)
