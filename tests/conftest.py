"""What all tests share: a quiet TensorFlow, a fixed seed, reproducible property tests."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import keras
import pytest

hypothesis.settings.register_profile("mptrec", derandomize=True, deadline=None)
hypothesis.settings.load_profile("mptrec")


@pytest.fixture(autouse=True, scope="module")
def short_collections():
    """Keeps what a file leaves behind, such as compiled graphs, out of later garbage collections.

    Keras and KerasTuner collect often; late in a run that took most of the time.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seed():
    keras.utils.set_random_seed(0)
