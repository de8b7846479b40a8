"""Layers of one model drop other elements, though the model has one seed."""

import pytest
import tensorflow as tf

from mptrec_tf import Task, model_class
from mptrec_tf.layers import ExpertBank

TASKS = [Task("click", "click"), Task("like", "like")]
SETTINGS = {"seed": 7, "expert_units": (16,), "tower_units": (16,)}
SETTINGS |= {"expert_dropout": 0.5, "tower_dropout": 0.5}


def banks(layer):
    """The parts of a model that drop some of what they give."""
    own = [layer] if isinstance(layer, ExpertBank) and layer.dropout else []
    return own + [bank for part in layer._layers for bank in banks(part)]


@pytest.mark.parametrize("name", ["mptrec", "mmoe", "ple", "stem", "shared_bottom", "single_task"])
def test_no_two_layers_have_the_same_mask(name, encoder):
    model = model_class(name)(encoder, TASKS, **SETTINGS)
    masks = [bank._dropout(tf.ones((8, 2, 16)), training=True) for bank in banks(model)]
    assert len(masks) >= 2
    for index, mask in enumerate(masks):
        for other in masks[:index]:
            assert not bool(tf.reduce_all(mask == other))


def test_the_same_seed_gives_the_same_masks(encoder):
    pair = [banks(model_class("ple")(encoder, TASKS, **SETTINGS)) for _ in range(2)]
    for one, other in zip(*pair, strict=True):
        masks = [bank._dropout(tf.ones((8, 2, 16)), training=True) for bank in (one, other)]
        assert bool(tf.reduce_all(masks[0] == masks[1]))
