import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.layers import ExpertAdapter, ExpertBank


@pytest.fixture
def experts():
    bank = ExpertBank(3, units=(8, 4), activation="tanh")
    bank.build((None, 5))
    return bank


def adapted(experts, **settings):
    """An adapter of the bank, with random weights."""
    adapter = ExpertAdapter(rank=2, alpha=3.0, **settings)
    adapter.build([kernel.shape for kernel in experts.kernels])
    for up in adapter.ups:
        up.assign(np.random.default_rng(1).normal(size=up.shape))
    return adapter


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "mixed_bfloat16"])
def test_it_is_the_bank_with_other_kernels_in_any_precision(normal, experts, dtype):
    adapter, inputs = adapted(experts, dtype=dtype), normal(6, 5)

    outputs = adapter(inputs, experts=experts)

    assert outputs.dtype == dtype.removeprefix("mixed_")
    assert outputs.shape == adapter.compute_output_shape((6, 5))
    symbolic = adapter(keras.Input((5,)), experts=experts)
    assert (symbolic.shape, symbolic.dtype) == ((None, 3, 4), outputs.dtype.name)
    for index, kernel in enumerate(experts.kernels):
        down, up = (tf.cast(part[index], "float32") for part in (adapter.downs, adapter.ups))
        product = "der,erh->deh" if index == 0 else "edr,erh->edh"
        kernel.assign_add(1.5 * tf.einsum(product, down, up))
    tolerance = 0.05 if "bfloat16" in dtype else 1e-5
    np.testing.assert_allclose(tf.cast(outputs, "float32"), experts(inputs), atol=tolerance)
