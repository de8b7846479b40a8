"""The head of an added task."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import (
    CategoricalFeature,
    FeatureEncoder,
    ModelError,
    MultiValuedFeature,
    NumericFeature,
    PromptModule,
)
from mptrec_tf.models.backbone import Representation

ROWS, INPUT, WIDTH, TASKS, IDS, OUTPUTS = 6, 5, 8, 3, 5, 2
SHAPES = Representation((None, INPUT), (None, WIDTH), (None, TASKS, WIDTH), (None, IDS))


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    shapes = (ROWS, INPUT), (ROWS, WIDTH), (ROWS, TASKS, WIDTH), (TASKS, WIDTH)
    x, shared, specific, prompts = (rng.normal(size=s).astype(np.float32) for s in shapes)
    ids = rng.integers(0, 3, (ROWS, IDS)).astype(np.int32)
    return Representation(x, shared, specific, ids), prompts


@pytest.fixture(scope="module")
def encoder():
    """Ids in five columns: city, item, kind and two of the tags."""
    rows = {"item": ["a", "b", "c"], "tags": ["x|y", "z", ""], "age": [1, 2, 3]}
    features = [
        MultiValuedFeature("tags", max_length=2, pooling="sum"),
        NumericFeature("age"),
        CategoricalFeature("city"),
        CategoricalFeature("item", quotient_remainder=2),
        CategoricalFeature("kind"),
    ]
    return FeatureEncoder(features).adapt({**rows, "city": rows["item"], "kind": rows["item"]})


def make(encoder=None, **settings):
    settings = {"temperature": 1.5, "tower_units": (7, 4), **settings}
    module = PromptModule(OUTPUTS, name="new", **settings)
    if encoder is not None:
        module.input_path.embed(encoder)
    module.build(SHAPES, (TASKS, WIDTH))
    rng = np.random.default_rng(1)
    for weight in module.weights:
        weight.assign(rng.normal(0.3, 0.7, weight.shape))
    if module.input_path is not None:
        module.input_path.standardization.variance.assign(rng.uniform(0.1, 4.0, INPUT))
    return module


def attention(kind, weights, x, prompts, temperature):
    if kind == "fixed":
        return np.full((1, TASKS), 1 / TASKS)
    if kind == "embedding":
        query = weights["prompt/prompts"]
    else:
        hidden = np.maximum(x @ weights["attention/query_hidden/kernel"], 0)
        query = hidden @ weights["attention/query_output/kernel"]
        query = query - query.mean(-1, keepdims=True)
        query /= np.sqrt(query.var(-1, keepdims=True) + 1e-3)
        query = query * weights["attention/query_norm/gamma"]
        query = query + weights["attention/query_norm/beta"]
    return softmax(query @ prompts.T / temperature)


def embeddings(table, features, ids):
    """Of cities 5 rows, of items 2 for remainders and 3 for quotients, of kinds and tags 5 each."""
    starts, start = {}, 0
    for name in [name for name in ("city", "kind", "tags", "item") if name in features]:
        starts[name] = start
        start += 5
    assert len(table) == start
    parts = []
    for name in [name for name in ("city", "item", "kind", "tags") if name in features]:
        rows = table[starts[name] :]
        if name == "item":
            parts.append(rows[ids[:, 1] % 2] * rows[2 + ids[:, 1] // 2])
        elif name == "tags":
            parts.append(sum((tag != 0)[:, None] * rows[tag] for tag in ids[:, 3:].T))
        else:
            parts.append(rows[ids[:, 0 if name == "city" else 2]])
    return np.concatenate(parts, axis=1)


def reference(module, kind, representation, inputs, temperature=1.5, features=()):
    """The module's formulas, one after the other, from its weights by name."""
    weights = {w.path.removeprefix("new/"): w.numpy().astype(float) for w in module.weights}
    (x, shared, specific, _), prompts = inputs
    fused = shared
    if representation != "shared":
        attended = attention(kind, weights, x, prompts, temperature)
        mixed = sum(attended[:, k, None] * specific[:, k] for k in range(TASKS))
        fused = mixed * weights["prompt/prompts"][0]
    if representation == "both":
        gate = softmax(x @ weights["gate/kernel"])
        fused = gate[:, :1] * fused + gate[:, 1:] * shared
    if "input_path/projection/kernel" in weights:
        deviation = np.sqrt(weights["input_path/standardization/variance"] + 1e-3)
        own = (x - weights["input_path/standardization/mean"]) / deviation
        if features:
            table = weights[f"input_path/embedding/table_{module.embedding_dim}"]
            own = np.concatenate([own, embeddings(table, features, inputs[0].ids)], axis=1)
        fused = np.concatenate([fused, own @ weights["input_path/projection/kernel"]], axis=1)
    for layer in (0, 1):
        kernel, bias = (weights[f"tower/hidden/{w}_{layer}"][0] for w in ("kernel", "bias"))
        fused = np.maximum(fused @ kernel + bias, 0)
    head = f"tower/head_{OUTPUTS}"
    return fused @ weights[f"{head}/kernel_0"][0] + weights[f"{head}/bias_0"][0]


@pytest.mark.parametrize(
    "kind, representation, projection",
    itertools.product(["example", "embedding", "fixed"], ["both", "specific", "shared"], [0, 3]),
)
def test_output_equals_the_formulas(inputs, kind, representation, projection):
    module = make(attention=kind, representation=representation, input_projection=projection)

    (logits,) = module(*inputs)

    assert logits.dtype == "float32"
    expected = reference(module, kind, representation, inputs)
    assert expected.shape == (ROWS, OUTPUTS)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", [None, ["city"], ["tags", "item"]])
def test_output_equals_the_formulas_with_embeddings_of_its_own(inputs, encoder, features):
    module = make(encoder, embedding_dim=4, embedding_features=features)

    (logits,) = module(*inputs)

    embedded = features or ["city", "item", "kind", "tags"]
    expected = reference(module, "example", "both", inputs, features=embedded)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert module.count_params() - make().count_params() == len(embedded) * (5 * 4 + 4 * 16)


def test_embeddings_of_its_own_begin_as_zero(inputs, encoder):
    module = PromptModule(embedding_dim=4)
    module.input_path.embed(encoder)
    module.build(SHAPES, (TASKS, WIDTH))
    embedded = module.input_path.embedding(inputs[0].ids)
    np.testing.assert_array_equal(embedded, np.zeros((ROWS, 4 * 4)))


@pytest.mark.parametrize("kind", ["example", "embedding", "fixed"])
def test_attention(inputs, kind):
    module = make(attention=kind, temperature=150.0)
    weights = {w.path.removeprefix("new/"): w.numpy() for w in module.weights}

    attended = module.attend(*inputs).numpy()

    np.testing.assert_allclose(attended.sum(-1), 1, rtol=1e-5)
    expected = attention(kind, weights, inputs[0].x, inputs[1], 150.0)
    np.testing.assert_allclose(attended, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "settings, parts",
    [
        ({}, {"prompt", "attention", "gate", "input_path", "tower"}),
        ({"input_projection": 0}, {"prompt", "attention", "gate", "tower"}),
        ({"attention": "fixed", "input_projection": 0}, {"prompt", "gate", "tower"}),
        ({"representation": "specific"}, {"prompt", "attention", "input_path", "tower"}),
        ({"representation": "shared", "input_projection": 0}, {"tower"}),
        ({"representation": "shared", "embedding_dim": 2}, {"input_path", "tower"}),
    ],
)  # fmt: skip
def test_a_variant_has_no_weights_that_it_does_not_use(inputs, encoder, settings, parts):
    module = make(encoder if "embedding_dim" in settings else None, **settings)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(module(*inputs)[0]))
    gradients = tape.gradient(loss, [weight.value for weight in module.trainable_weights])

    assert {weight.path.split("/")[1] for weight in module.weights} == parts
    assert not any(gradient is None for gradient in gradients)


def test_published_number_of_parameters():
    module = PromptModule(input_projection=0, tower_units=(64, 32), query_units=None)
    module.build(Representation((None, 100), (None, 128), (None, 2, 128), (None, 0)), (2, 128))

    prompt, query, norm, gate = 128, 100 * 64 + 64 * 128, 2 * 128, 100 * 2
    tower = 128 * 64 + 64 + 64 * 32 + 32 + 32 + 1
    assert module.count_params() == prompt + query + norm + gate + tower


def test_dropout_acts_in_training_only(inputs):
    module = make(dropout=0.5, seed=1)

    first, second = (module(*inputs, training=True)[0].numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    expected = reference(module, "example", "both", inputs)
    np.testing.assert_allclose(module(*inputs)[0], expected, rtol=1e-4, atol=1e-5)


def test_l2_covers_the_kernels_only():
    module = make(l2=0.1)

    kernels = [w.numpy() for w in module.weights if "kernel" in w.path]
    assert len(kernels) == 7
    expected = 0.1 * sum(np.sum(np.square(kernel)) for kernel in kernels)
    assert float(sum(module.losses)) == pytest.approx(expected, rel=1e-5)


def test_configuration_round_trip(inputs, encoder):
    settings = {
        "attention": "embedding",
        "representation": "specific",
        "query_units": 3,
        "temperature": 2.0,
        "input_projection": 4,
        "embedding_dim": 3,
        "embedding_features": ("city", "tags"),
        "tower_units": (6,),
        "activation": "gelu",
        "dropout": 0.2,
        "l2": 0.01,
        "seed": 5,
    }
    module = make(encoder, **settings)
    config = module.get_config()
    assert {key: config[key] for key in settings} == settings

    copy = PromptModule.from_config(config)
    copy.input_path.embed(encoder)
    copy.build(SHAPES, (TASKS, WIDTH))
    copy.set_weights(module.get_weights())
    np.testing.assert_array_equal(copy(*inputs)[0], module(*inputs)[0])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"representation": "none"}, r"representation must be one of .*'both'.*Received: 'none'"),
        ({"attention": "task"}, r"attention must be one of .*'example'.*Received: 'task'"),
        ({"temperature": 0.0}, r"temperature must be above 0. Received: 0.0"),
        ({"embedding_dim": 2, "input_projection": 0}, "embedding_dim=2 needs an input_projection"),
        ({"embedding_dim": -1}, "embedding_dim must be 0 or more. Received: -1"),
        ({"embedding_features": ["city"]}, "needs an embedding_dim above 0"),
        ({"embedding_dim": 2, "embedding_features": "city"}, "in a list.*Received: 'city'"),
        ({"embedding_dim": 2, "embedding_features": []}, r"one or more.*Received: \[\]"),
        ({"tower_units": ()}, r"tower_units must be one or more widths.*Received: \(\)"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PromptModule(**settings)


def test_a_feature_that_cannot_be_embedded_is_named(encoder):
    module = PromptModule(embedding_dim=2, embedding_features=["city", "age", "colour"])
    message = r"\['age', 'colour'\] are none .* features \['city', 'item', 'kind', 'tags'\]"
    with pytest.raises(ModelError, match=message):
        module.input_path.embed(encoder)


def test_without_a_categorical_feature_there_is_nothing_to_embed():
    encoder = FeatureEncoder([NumericFeature("age")]).adapt({"age": [1, 2]})
    with pytest.raises(ModelError, match="embedding_dim=2: there is no categorical feature"):
        PromptModule(embedding_dim=2).input_path.embed(encoder)


def test_embeddings_of_its_own_need_the_features():
    with pytest.raises(ModelError, match="use build_on"):
        PromptModule(embedding_dim=2).build(SHAPES, (TASKS, WIDTH))
