"""What all tests share: a quiet TensorFlow, a fixed seed, reproducible property tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import keras
import pytest

hypothesis.settings.register_profile("mptrec", derandomize=True, deadline=None)
hypothesis.settings.load_profile("mptrec")


@pytest.fixture(autouse=True)
def fixed_seed():
    keras.utils.set_random_seed(0)
