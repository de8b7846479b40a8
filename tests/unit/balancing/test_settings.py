"""What the constructors refuse, before any training."""

import numpy as np
import pytest

from mptrec_tf.balancing import FAMO, GradNorm, Uncertainty


@pytest.mark.parametrize("kind", [Uncertainty, GradNorm, FAMO])
@pytest.mark.parametrize("value", [0, -0.1, np.inf, np.nan, "0.1"])
def test_a_learning_rate_is_a_finite_number_above_0(kind, value):
    with pytest.raises(ValueError, match=f"^learning_rate must be .* above 0.*: {value!r}$"):
        kind(learning_rate=value)


@pytest.mark.parametrize(("kind", "name"), [(GradNorm, "alpha"), (FAMO, "decay")])
def test_alpha_and_decay_may_be_0_but_no_less(kind, name):
    assert kind(**{name: 0}).get_config()[name] == 0
    for value in (-1e-3, np.inf, np.nan, None):
        with pytest.raises(ValueError, match=f"^{name} must be .*0 or more.*: {value!r}$"):
            kind(**{name: value})


@pytest.mark.parametrize("value", ["[", "experts/(kernel", None])
def test_the_paths_of_weights_are_a_regular_expression(value):
    with pytest.raises(ValueError, match=r"^weights must be a regular") as caught:
        GradNorm(weights=value)
    assert str(caught.value).endswith(f"Received: {value!r}")
