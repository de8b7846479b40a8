"""Heads computed together give what each prompt module gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import CategoricalFeature, FeatureEncoder, MultiValuedFeature
from mptrec_tf.models import PromptModule
from mptrec_tf.models.backbone import Representation
from mptrec_tf.serving.exporting.heads import CAPACITY, Heads, group, shape_of

ROWS, WIDTH, HIDDEN, SOURCES, IDS = 5, 7, 6, 3, 5


@pytest.fixture(scope="module")
def encoder():
    """Ids in five columns: city, item and three of the tags; every feature has three."""
    features = [
        CategoricalFeature("city"),
        CategoricalFeature("item", quotient_remainder=2),
        MultiValuedFeature("tags", max_length=3, pooling="max"),
    ]
    return FeatureEncoder(features).adapt({feature.name: ["a"] for feature in features})


def make(encoder=None, **settings):
    module = PromptModule(**{"tower_units": (4, 3), "input_projection": 2, **settings})
    if encoder is not None:
        module.input_path.embed(encoder)
    shapes = Representation((None, WIDTH), (None, HIDDEN), (None, SOURCES, HIDDEN), (None, IDS))
    module.build(shapes, (SOURCES, HIDDEN))
    rng = np.random.default_rng(3)
    for weight in module.weights:
        weight.assign(rng.normal(size=weight.shape))
    if module.input_path is not None:
        module.input_path.standardization.variance.assign(rng.uniform(0.1, 4.0, WIDTH))
    return module


@pytest.fixture
def representation():
    rng = np.random.default_rng(1)
    shapes = ((ROWS, WIDTH), (ROWS, HIDDEN), (ROWS, SOURCES, HIDDEN))
    x, shared, specific = (tf.constant(rng.normal(size=s), tf.float32) for s in shapes)
    ids = tf.constant(rng.integers(0, 3, (ROWS, IDS)), tf.int32)
    return Representation(x, shared, specific, ids)


PROMPTS = np.random.default_rng(2).normal(size=(SOURCES, HIDDEN)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, CAPACITY])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"input_projection": 0},
        {"num_outputs": 3},
        {"query_units": 5, "tower_units": (4,)},
        {"embedding_dim": 3},
        {"embedding_dim": 2, "embedding_features": ("tags", "item")},
    ],
    ids=["plain", "no path", "multiclass", "other widths", "embeddings", "some embeddings"],
)
def test_the_logits_are_those_of_each_module(settings, count, representation, encoder):
    embeds = encoder if "embedding_dim" in settings else None
    modules = {f"t{n}": make(embeds, temperature=1.0 + n, **settings) for n in range(count)}
    for name, module in modules.items():
        for weight in module.weights:
            weight.assign(weight + 0.1 * len(name) * int(name[1:]))  # no variance falls below 0
    logits = Heads(modules, PROMPTS)(representation)
    assert list(logits) == list(modules)
    for name, module in modules.items():
        (expected,) = module(representation, PROMPTS)
        np.testing.assert_allclose(logits[name], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dim", [0, 3])
def test_another_head_changes_no_bit_of_the_first(representation, encoder, dim):
    first, second = (make(encoder if dim else None, embedding_dim=dim) for _ in range(2))
    second.tower.hidden.kernels[0].assign(second.tower.hidden.kernels[0] * 2)
    alone = Heads({"a": first}, PROMPTS)(representation)["a"]
    with_another = Heads({"a": first, "b": second}, PROMPTS)(representation)
    np.testing.assert_array_equal(alone, with_another["a"])
    assert not np.allclose(with_another["a"], with_another["b"])


def test_modules_of_one_shape_are_grouped_in_the_order_in_which_they_came(encoder):
    modules = {f"t{n}": make() for n in range(CAPACITY + 1)}
    modules["wide"] = make(tower_units=(8, 3))
    modules["embedded"] = make(encoder, embedding_dim=3)
    modules["some"] = make(encoder, embedding_dim=3, embedding_features=["city"])
    modules["fixed"] = make(attention="fixed")
    modules["shared"] = make(representation="shared")
    groups, alone = group(modules)
    first = [f"t{n}" for n in range(CAPACITY)]
    others = [[f"t{CAPACITY}"], ["wide"], ["embedded"], ["some"]]
    assert [list(members) for members in groups] == [first, *others]
    assert alone == ["fixed", "shared"]


def test_a_module_in_another_precision_is_served_as_it_is():
    assert shape_of(make()) is not None
    assert shape_of(make(dtype=keras.DTypePolicy("mixed_bfloat16"))) is None


def test_a_module_with_another_activation_is_served_as_it_is():
    assert shape_of(make(activation="relu")) is not None
    assert shape_of(make(activation="gelu")) is None


def test_more_heads_than_there_is_room_for_are_refused():
    with pytest.raises(ValueError, match=f"at most {CAPACITY}"):
        Heads({str(n): make() for n in range(CAPACITY + 1)}, PROMPTS)
