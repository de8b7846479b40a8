"""Stage 1: forward pass, loss, gradients, metrics, progress."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, roc_auc_score

from mptrec_tf import (
    DataError,
    FeatureEncoder,
    ModelError,
    MPTRec,
    NumericFeature,
    SpecError,
    Task,
    make_dataset,
)

NAN = np.nan
STAGE1 = ("click", "kind", "like", "price")
GRAPH = {"run_eagerly": False, "jit_compile": False}


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


class Reference:
    """The method in NumPy float64, loop by loop, from a model's weights by their names."""

    def __init__(self, model):
        prefix = f"{model.name}/"
        self.weights = {w.path.removeprefix(prefix): w.numpy() for w in model.weights}
        self.encoder = model.encoder
        self.tasks = model.stage1_tasks

    def inputs(self, x):
        """`x` of the features age, gain (numeric), city (width 4), tags (3 values, width 3)."""
        ages, gains = x["numeric"].astype(float).T
        edges = self.encoder.numeric_state["age"]
        age = [
            np.clip((ages - low) / (high - low), 0, 1) for low, high in itertools.pairwise(edges)
        ]
        mean, deviation = self.encoder.numeric_state["gain"]
        city = self.weights["backbone/embedding/table_4"][x["categorical"][:, 0]]
        table = self.weights["backbone/embedding/table_3"]
        tags = np.array([table[ids[ids > 0]].mean(0) if ids.any() else np.zeros(3)
                         for ids in x["multivalued"]])  # fmt: skip
        return np.column_stack([*age, (gains - mean) / deviation, city, tags])

    def perceptron(self, name, index, values, layers):
        for layer in range(layers):
            side_by_side = name == "backbone/experts" and layer == 0
            kernel = self.weights[f"{name}/kernel_{layer}"]
            kernel = np.take(kernel, index, axis=int(side_by_side))
            bias = self.weights[f"{name}/bias_{layer}"][index]
            values = np.maximum(values @ kernel + bias, 0)
        return values

    def represent(self, x):
        inputs = self.inputs(x)
        experts = [
            self.perceptron("backbone/experts", e, inputs, 2) for e in range(len(self.tasks) + 1)
        ]
        return inputs, experts[0], experts[1:]

    def tower(self, index, values):
        values = self.perceptron("towers/hidden", index, values, 1)
        outputs = self.tasks[index].num_outputs
        position = [k for k, t in enumerate(self.tasks) if t.num_outputs == outputs].index(index)
        kernel = self.weights[f"towers/head_{outputs}/kernel_0"][position]
        return values @ kernel + self.weights[f"towers/head_{outputs}/bias_0"][position]

    def logits(self, x):
        """From the fused and from the shared representation, a list by task each."""
        inputs, shared, specific = self.represent(x)
        main, generic = [], []
        for k in range(len(self.tasks)):
            gate = softmax(inputs @ self.weights["gates/kernel"][:, 2 * k : 2 * k + 2])
            prompted = specific[k] * self.weights["prompts/prompts"][k]
            main.append(self.tower(k, gate[:, :1] * prompted + gate[:, 1:] * shared))
            generic.append(self.tower(k, shared))
        return main, generic

    def predictions(self, x):
        return {
            t.name: predict(t, out) for t, out in zip(self.tasks, self.logits(x)[0], strict=True)
        }

    def task_loss(self, logits, y, weights):
        total = 0
        for task, out in zip(self.tasks, logits, strict=True):
            weight = weights.get(task.name, np.ones(len(out)))
            losses = [
                w * example_loss(task, label, row)
                for label, row, w in zip(y[task.name], out, weight, strict=True)
                if not np.isnan(label)
            ]
            total += task.loss_weight * sum(losses) / max(len(losses), 1)
        return total

    def adversarial(self, x, form, alpha, y):
        _, shared, specific = self.represent(x)
        kernel = self.weights["adversary/classifier/kernel"]
        bias = self.weights["adversary/classifier/bias"]
        if form == "representations":
            own = [np.log(softmax(s @ kernel + bias))[:, k] for k, s in enumerate(specific)]
            return -np.mean(own) - alpha * np.mean(np.log(softmax(shared @ kernel + bias)))
        losses = []
        logits = self.logits(x)[0]
        for row, odds in enumerate(np.log(softmax(shared @ kernel + bias))):
            costs = {
                k: example_loss(task, y[task.name][row], logits[k][row])
                for k, task in enumerate(self.tasks)
                if not np.isnan(y[task.name][row])
            }
            if costs:
                losses.append(-odds[min(costs, key=costs.get)])
        return np.mean(losses)

    def l2(self, x, l2, l2_embedding):
        kernels = [w for n, w in self.weights.items() if "kernel" in n and "adversary" not in n]
        looked_up = [
            self.weights["backbone/embedding/table_4"][x["categorical"]],
            self.weights["backbone/embedding/table_3"][x["multivalued"]],
        ]
        squares = sum(np.sum(np.square(rows)) for rows in looked_up) / len(x["categorical"])
        return l2 * sum(np.sum(np.square(kernel)) for kernel in kernels) + l2_embedding * squares


def predict(task, logits):
    if task.kind == "binary":
        return 1 / (1 + np.exp(-logits[:, 0]))
    return softmax(logits) if task.kind == "multiclass" else logits[:, 0]


def example_loss(task, label, logits):
    (value,) = predict(task, logits[None])
    if task.kind == "binary":
        return -math.log(value if label == 1 else 1 - value)
    return -math.log(value[int(label)]) if task.kind == "multiclass" else (value - label) ** 2


def randomize(model):
    """Makes biases and embeddings matter, and spreads the scores."""
    rng = np.random.default_rng(5)
    for weight in model.trainable_weights:
        if "bias" in weight.path or "table" in weight.path:
            weight.assign(rng.normal(0, 0.5, weight.shape))
        elif "head" in weight.path:
            weight.assign(4 * weight)


def without_some_labels(y):
    """Labels missing here and there; row 0 has none."""
    rng = np.random.default_rng(6)
    y = {name: np.where(rng.random(len(v)) < 0.3, NAN, v) for name, v in y.items()}
    for values in y.values():
        values[0] = NAN
    return y


# Forward pass


def test_predictions_equal_the_formulas(make_model, arrays):
    model = make_model(*STAGE1)
    randomize(model)
    x, _ = arrays("click")
    expected = Reference(model).predictions(x)

    predictions = model.predict(x, verbose=0)

    assert list(predictions) == list(STAGE1)
    assert predictions["kind"].shape == (96, 3)
    for name, values in predictions.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)
    for name, values in model(x, training=False).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)


def test_gate_weights(make_model, arrays):
    model = make_model(*STAGE1)
    x, _ = arrays("click")
    reference = Reference(model)
    kernel = reference.weights["gates/kernel"]

    weights = model.gate_weights(x)

    assert list(weights) == list(STAGE1)
    for k, values in enumerate(weights.values()):
        expected = softmax(reference.inputs(x) @ kernel[:, 2 * k : 2 * k + 2])
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_any_number_of_rows(make_model, arrays):
    model = make_model("click", "like")
    x, _ = arrays("click")
    whole = model.predict(x, verbose=0)

    for rows in (1, 7):
        part = model.predict({key: values[:rows] for key, values in x.items()}, verbose=0)
        assert part["click"].shape == (rows,)
        np.testing.assert_allclose(part["click"], whole["click"][:rows], rtol=1e-5)
    assert model({key: values[:0] for key, values in x.items()})["click"].shape == (0,)


@pytest.mark.parametrize("names", [["age"], ["city"], ["tags"]], ids=lambda names: names[0])
def test_one_kind_of_feature_is_enough(encoder, rows, tasks, names):
    features = [feature for feature in encoder.features if feature.name in names]
    small = FeatureEncoder(features).adapt(rows)
    model = MPTRec(small, [tasks["click"]], expert_units=(4,), tower_units=(3,))
    model.compile("adam", run_eagerly=True)

    history = model.fit(make_dataset(rows, small, [tasks["click"]], batch_size=96), verbose=0)

    assert np.isfinite(history.history["loss"]).all()
    assert model.predict(small.encode(rows), verbose=0)["click"].shape == (96,)


# Loss


@pytest.mark.parametrize("form", ["representations", "assigned", None])
@pytest.mark.parametrize("generic_weight", [0.0, 0.9])
def test_stage1_loss_equals_the_formulas(make_model, arrays, form, generic_weight):
    model = make_model(
        *STAGE1,
        generic_weight=generic_weight,
        adversarial=form,
        adversarial_weight=0.4,
        l2=0.01,
        l2_embedding=0.02,
    )
    randomize(model)
    x, y = arrays(*STAGE1)
    y = without_some_labels(y)
    weights = {"like": np.random.default_rng(7).random(96) * 3}
    model.begin_epoch(0.1, steps_left=None)
    reference = Reference(model)

    loss = model.train_on_batch(x, y, weights, return_dict=True)["loss"]

    main, generic = reference.logits(x)
    expected = reference.task_loss(main, y, weights)
    expected += generic_weight * reference.task_loss(generic, y, weights)
    if form is not None:
        alpha = 2 / (1 + math.exp(-10 * 0.1)) - 1
        expected += 0.4 * reference.adversarial(x, form, alpha, y)
    expected += reference.l2(x, l2=0.01, l2_embedding=0.02)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_evaluation_loss_is_that_of_the_tasks_alone(make_model, arrays):
    model = make_model(*STAGE1, l2=0.1)
    x, y = arrays(*STAGE1)
    y = without_some_labels(y)
    reference = Reference(model)

    loss = model.evaluate(x, y, batch_size=96, verbose=0, return_dict=True)["loss"]

    assert loss == pytest.approx(reference.task_loss(reference.logits(x)[0], y, {}), rel=1e-4)


def test_row_without_a_label_changes_nothing(make_model, arrays):
    """NaN labels touch neither loss nor gradient: the row's numbers do not matter for its task."""
    x, y = arrays("click", "like")
    y["click"][::2] = NAN
    y["like"][::2] = NAN
    twin = {key: values.copy() for key, values in x.items()}
    twin["numeric"][::2] = 60
    twin["categorical"][::2] = 1

    fitted = []
    for inputs in (x, twin):
        keras.utils.set_random_seed(1)
        model = make_model("click", "like", adversarial="assigned")
        loss = model.train_on_batch(inputs, y, return_dict=True)["loss"]
        fitted.append((loss, model.get_weights()))

    (loss, weights), (twin_loss, twin_weights) = fitted
    assert loss == pytest.approx(twin_loss, rel=1e-6)
    for weight, twin_weight in zip(weights, twin_weights, strict=True):
        np.testing.assert_allclose(weight, twin_weight, atol=1e-6)


def test_batch_in_which_a_task_has_no_label(make_model, arrays):
    model = make_model(*STAGE1, compile_with={"optimizer": keras.optimizers.SGD(0.1)})
    x, y = arrays(*STAGE1)
    y["like"][:] = NAN
    before = {weight.path: weight.numpy() for weight in model.trainable_weights}

    results = model.train_on_batch(x, y, return_dict=True)

    assert math.isfinite(results["loss"])
    position = STAGE1.index("like")
    for weight in model.towers.hidden.weights:
        change = weight.numpy() - before[weight.path]
        assert (change[position] == 0).all()
        assert (change[0] != 0).any()
    for weight in model.trainable_weights:
        assert np.isfinite(weight).all()
    gates = model.gates.kernel.numpy() - before[model.gates.kernel.path]
    assert (gates[:, 2 * position : 2 * position + 2] == 0).all()
    assert (gates[:, :2] != 0).any()


@pytest.mark.parametrize("form", ["representations", "assigned"])
def test_batch_without_any_label(make_model, arrays, form):
    model = make_model("click", "like", adversarial=form)
    x, y = arrays("click", "like")
    y = {name: np.full_like(values, NAN) for name, values in y.items()}

    results = model.train_on_batch(x, y, return_dict=True)

    assert math.isfinite(results["loss"])
    assert all(np.isfinite(weight).all() for weight in model.weights)


def test_sample_weights_reach_the_gradient(make_model, arrays):
    """Two examples with weight 2 and 0 train like one of them alone that counts twice."""
    x, y = arrays("click", "like")
    pair = {key: values[:2] for key, values in x.items()}
    labels = {name: values[:2].copy() for name, values in y.items()}
    weights = {name: np.array([2.0, 0.0]) for name in y}
    first = {key: values[:1] for key, values in x.items()}
    first_labels = {name: values[:1] for name, values in y.items()}

    fitted = []
    for batch in ((pair, labels, weights), (first, first_labels)):
        keras.utils.set_random_seed(1)
        model = make_model("click", "like", adversarial=None)
        model.train_on_batch(*batch)
        fitted.append(model.get_weights())
    for weight, expected in zip(*fitted, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6)


def test_last_batch_of_one_row(make_model, dataset):
    model = make_model(*STAGE1)

    history = model.fit(dataset(*STAGE1, batch_size=95), epochs=2, verbose=0)

    assert all(np.isfinite(values).all() for values in history.history.values())
    assert int(model.optimizer.iterations) == 4


def test_weighted_dataset(make_model, rows, encoder):
    weighted = {**rows, "importance": np.linspace(0, 2, 96)}
    tasks = [Task("click", "click", weight="importance"), Task("like", "like")]
    model = MPTRec(encoder, tasks, expert_units=(4,), tower_units=(3,))
    model.compile("adam", run_eagerly=True)
    randomize(model)

    results = model.evaluate(
        make_dataset(weighted, encoder, tasks, batch_size=50), verbose=0, return_dict=True
    )

    scores = model.predict(encoder.encode(rows), verbose=0)
    for name, weights in (("click", weighted["importance"]), ("like", np.ones(96))):
        loss = log_loss(rows[name], scores[name].astype(float), sample_weight=weights)
        assert results[f"{name}_loss"] == pytest.approx(loss, rel=1e-4)
        area = roc_auc_score(rows[name], scores[name], sample_weight=weights)
        assert results[f"{name}_auc"] == pytest.approx(area, abs=2e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_labels_and_weights_in_a_column_are_those_in_a_row(make_model, arrays, jit_compile):
    x, y = arrays(*STAGE1)
    y = without_some_labels(y)
    weights = {"price": np.linspace(0, 2, 96, dtype=np.float32)}
    settings = {"run_eagerly": not jit_compile, "jit_compile": jit_compile}
    found = []
    for shape in ((96,), (96, 1)):
        keras.utils.set_random_seed(1)
        model = make_model(*STAGE1, compile_with=settings | {"steps_per_execution": 2})
        batch = [{name: v.reshape(shape) for name, v in part.items()} for part in (y, weights)]
        data = tf.data.Dataset.from_tensor_slices((x, *batch)).batch(36)  # two and a smaller one
        history = model.fit(data, verbose=0).history
        results = model.evaluate(x, batch[0], verbose=0, return_dict=True)
        of_batches = model.evaluate(data, verbose=0, return_dict=True)
        found.append((history, results, of_batches, model.get_weights()))
    (*expected, weights), (*results, other) = found
    assert results == expected
    for weight, of_columns in zip(weights, other, strict=True):
        np.testing.assert_array_equal(weight, of_columns)


# Metrics

METRICS = {
    "loss", "mean_auc", "click_loss", "click_auc", "like_loss", "like_auc",
    "kind_loss", "kind_accuracy", "price_loss", "price_rmse",
}  # fmt: skip


def test_metrics_of_fit_and_evaluate(make_model, dataset, arrays):
    model = make_model(*STAGE1, compile_with=GRAPH)
    randomize(model)

    history = model.fit(dataset(*STAGE1), validation_data=dataset(*STAGE1), verbose=0).history
    results = model.evaluate(dataset(*STAGE1), verbose=0, return_dict=True)

    assert set(history) == METRICS | {f"val_{name}" for name in METRICS}
    assert set(results) == METRICS
    for name, value in results.items():
        assert history[f"val_{name}"] == [pytest.approx(value, rel=1e-5)]
    x, y = arrays(*STAGE1)
    scores = {name: values.astype(float) for name, values in model.predict(x, verbose=0).items()}
    areas = [roc_auc_score(y[name], scores[name]) for name in ("click", "like")]
    expected = {
        "click_auc": areas[0],
        "like_auc": areas[1],
        "mean_auc": np.mean(areas),
        "click_loss": log_loss(y["click"], scores["click"]),
        "like_loss": log_loss(y["like"], scores["like"]),
        "kind_loss": -np.mean(np.log(scores["kind"][np.arange(96), y["kind"].astype(int)])),
        "kind_accuracy": accuracy_score(y["kind"], scores["kind"].argmax(-1)),
        "price_loss": mean_squared_error(y["price"], scores["price"]),
        "price_rmse": math.sqrt(mean_squared_error(y["price"], scores["price"])),
    }
    for name, value in expected.items():
        tolerance = 3e-3 if name.endswith("auc") else 1e-4
        assert results[name] == pytest.approx(value, abs=tolerance), name


def test_metrics_of_the_tasks_whose_labels_are_given(make_model, arrays, recwarn):
    model = make_model(*STAGE1)

    def evaluate(*names):
        return model.evaluate(*arrays(*names), verbose=0, return_dict=True)

    everything = evaluate(*STAGE1)
    for names in (("price",), ("like",), ("click", "kind"), ("price",)):
        results = evaluate(*names)
        wanted = {m for m in METRICS for name in names if m.startswith(f"{name}_")} | {"loss"}
        wanted |= {"mean_auc"} if {"click", "like"} & set(names) else set()
        assert set(results) == wanted
        for metric in wanted - {"loss", "mean_auc"}:
            assert results[metric] == pytest.approx(everything[metric])
    assert not [w for w in recwarn if "metric" in str(w.message)]


def test_validation_on_fewer_tasks_than_training(make_model, dataset):
    model = make_model(*STAGE1)

    history = model.fit(
        dataset(*STAGE1, batch_size=96), validation_data=dataset("like"), epochs=2, verbose=0
    ).history

    wanted = METRICS | {"val_loss", "val_like_loss", "val_like_auc", "val_mean_auc"}
    assert set(history) == wanted
    assert {len(values) for values in history.values()} == {2}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_task_without_labels_is_not_in_the_mean(make_model, arrays, jit_compile):
    settings = {"run_eagerly": False, "jit_compile": jit_compile, "steps_per_execution": 2}
    model = make_model("click", "like", "buy", compile_with=settings)
    randomize(model)
    x, y = arrays("click", "like", "buy")
    y["like"][:] = NAN
    y["buy"][:] = np.where(y["buy"] == 1, 1, NAN)

    history = model.fit(x, y, validation_data=(x, y), batch_size=40, verbose=0).history
    results = model.evaluate(x, y, batch_size=40, verbose=0, return_dict=True)

    score = model.predict(x, verbose=0)["click"]
    area = roc_auc_score(y["click"], score)
    assert results["mean_auc"] == results["click_auc"] == pytest.approx(area, abs=3e-3)
    assert {name for name, value in results.items() if np.isnan(value)} == {
        "like_loss", "like_auc", "buy_auc",
    }  # fmt: skip
    assert history["mean_auc"] == history["click_auc"]
    assert history["val_mean_auc"] == [results["mean_auc"]]
    assert np.isnan([history["like_auc"], history["val_like_auc"], history["val_buy_auc"]]).all()
    assert np.isfinite(history["loss"] + history["val_loss"]).all()


@pytest.mark.parametrize("monitor", ["val_click_auc", "val_mean_auc"])
def test_early_stopping(make_model, dataset, monitor):
    model = make_model("click", "like", compile_with={"optimizer": keras.optimizers.SGD(0.0)})
    stop = keras.callbacks.EarlyStopping(monitor, mode="max", patience=1)
    data = dataset("click", "like", batch_size=96)

    history = model.fit(data, validation_data=data, epochs=6, callbacks=stop, verbose=0)

    assert len(history.history[monitor]) == 2
    assert stop.stopped_epoch == 1


# Progress of the training


class Spy(keras.callbacks.Callback):
    """Notes the progress after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model._training_progress()))


def test_progress_moves_with_every_step(make_model, dataset):
    model, spy = make_model("click", "like"), Spy()

    model.fit(dataset("click", "like"), epochs=2, callbacks=[spy], verbose=0)

    np.testing.assert_allclose(spy.seen, np.arange(1, 7) / 6, atol=1e-6)
    assert model.trained_epochs == 2


@pytest.mark.parametrize("scaled", [False, True])
def test_progress_moves_with_every_step_on_several_batches(make_model, dataset, scaled):
    optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model, spy = make_model("click", "like", compile_with={"optimizer": optimizer}), Spy()

    model.fit(dataset("click", "like", batch_size=24), epochs=2, callbacks=[spy], verbose=0)

    np.testing.assert_allclose(spy.seen, [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1], atol=1e-6)


def test_progress_after_a_resumed_training(make_model, dataset):
    """It goes on where it was, also in a model whose optimizer begins anew."""
    for first_epochs in (0, 1):
        model, spy = make_model("click", "like"), Spy()
        data = dataset("click", "like", batch_size=48)
        model.fit(data, epochs=first_epochs, verbose=0)

        model.fit(data, epochs=4, initial_epoch=2, callbacks=[spy], verbose=0)

        np.testing.assert_allclose(spy.seen, 0.5 + np.arange(1, 5) / 8, atol=1e-6)


def test_progress_on_a_stream_of_unknown_length(make_model, dataset):
    model, spy = make_model("click", "like"), Spy()
    stream = dataset("click", "like").filter(lambda *batch: True)
    assert stream.cardinality() == tf.data.UNKNOWN_CARDINALITY

    model.fit(stream, epochs=3, callbacks=[spy], verbose=0)

    # The first epoch counts the steps.
    expected = [0, 0, 0, *(1 / 3 + np.arange(1, 7) / 9)]
    np.testing.assert_allclose(spy.seen, expected, atol=1e-6)


def test_strength_follows_the_progress(make_model, arrays):
    """A step's loss contains the adversarial part with the strength that the progress gives."""
    x, y = arrays("click", "like")
    y = {name: np.full_like(values, NAN) for name, values in y.items()}
    losses = []
    for progress in (0.0, 0.25, 1.0):
        keras.utils.set_random_seed(1)
        model = make_model("click", "like", adversarial_weight=1.0)
        model.begin_epoch(progress, steps_left=10)
        reference = Reference(model)
        alpha = 2 / (1 + math.exp(-10 * progress)) - 1
        losses.append(
            (
                model.train_on_batch(x, y, return_dict=True)["loss"],
                reference.adversarial(x, "representations", alpha, y),
            )
        )
    for loss, expected in losses:
        assert loss == pytest.approx(expected, rel=1e-4)
    assert losses[0][1] < losses[1][1] < losses[2][1]


# What is refused


@pytest.mark.parametrize(
    "name, label, message",
    [
        ("click", 2, r"binary task 'click' is 2, expected 0 or 1"),
        ("click", 0.5, r"binary task 'click' is 0.5"),
        ("kind", 3, r"multiclass task 'kind' is 3, expected a class index from 0 to 2"),
        ("kind", -1, r"multiclass task 'kind' is -1"),
        ("price", np.inf, r"regression task 'price' is inf, expected a finite number"),
    ],
)
def test_labels_that_a_task_does_not_allow(make_model, arrays, name, label, message):
    model = make_model(*STAGE1)
    x, y = arrays(*STAGE1)
    y[name][3] = label

    with pytest.raises(DataError, match=message):
        model.fit(x, y, verbose=0)
    with pytest.raises(DataError, match=message):
        model.evaluate(x, y, verbose=0)


@pytest.mark.parametrize("name", ["click", "kind", "price"])
@pytest.mark.parametrize("as_dataset", [False, True])
def test_labels_that_are_no_number_for_each_row(make_model, arrays, name, as_dataset):
    model = make_model(*STAGE1)
    x, y = arrays(*STAGE1)
    y[name] = np.zeros((96, 3), np.float32)
    given = (tf.data.Dataset.from_tensors((x, y)),) if as_dataset else (x, y)

    message = rf"labels of the task '{name}' must have the shape .* Received: \(96, 3\)"
    with pytest.raises(ModelError, match=message):
        model.fit(*given, verbose=0)
    with pytest.raises(ModelError, match=message):
        model.evaluate(*given, verbose=0)
    with pytest.raises(ModelError, match=message):
        model.example_losses(x, y)


def test_weights_that_are_no_number_for_each_row(make_model, arrays):
    x, y = arrays("click")
    with pytest.raises(ModelError, match="example weights of the task 'click' must have"):
        make_model("click").fit(x, y, sample_weight={"click": np.ones((96, 2))}, verbose=0)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_labels_of_a_trained_task_are_missing(make_model, arrays, dataset, as_dataset):
    model = make_model("click", "like")
    given = (dataset("click"),) if as_dataset else arrays("click")

    with pytest.raises(ModelError, match=r"labels of \['click', 'like'\].*\['like'\] are missing"):
        model.fit(*given, verbose=0)


def test_labels_that_are_no_dict(make_model, arrays):
    x, y = arrays("click")

    with pytest.raises(ModelError, match=r"y must be a dict .*Received: \w*Tensor"):
        make_model("click").fit(x, y["click"], verbose=0)


def test_stage_1_cannot_be_trained_on_what_it_changes(make_model, arrays):
    model = make_model("click")
    x, y = arrays("click")
    with pytest.raises(ModelError, match="cached representations can train an added task only"):
        model.learn((model.represent(x), y))


def test_evaluation_without_labels_of_any_task(make_model, arrays):
    x, y = arrays("click")

    with pytest.raises(ModelError, match=r"no labels of \['like'\]"):
        make_model("like").evaluate(tf.data.Dataset.from_tensors((x, y)), verbose=0)


def test_wrong_models_are_refused(encoder, tasks):
    with pytest.raises(ModelError, match="at least one task"):
        MPTRec(encoder, [])
    with pytest.raises(ModelError, match="adapt"):
        MPTRec(FeatureEncoder([NumericFeature("age")]), [tasks["click"]])
    with pytest.raises(ValueError, match="'click' is given twice"):
        MPTRec(encoder, [tasks["click"], tasks["click"]])
    with pytest.raises(SpecError, match="'age' is also a feature"):
        MPTRec(encoder, [Task("old", "age", above=60)])
    with pytest.raises(ValueError, match="adversarial must be None or one of"):
        MPTRec(encoder, [tasks["click"]], adversarial="gan")


# Training as a whole


def test_equal_seeds_give_equal_bits(make_model, dataset):
    runs = []
    dropout = {"expert_dropout": 0.3, "tower_dropout": 0.3}
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = make_model("click", "like", **dropout)
        history = model.fit(dataset("click", "like", batch_size=48), verbose=0).history
        runs.append((model.fingerprint(), history))

    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_dropout_follows_its_own_seed(make_model, arrays):
    x, _ = arrays("click")
    outputs, weights = [], None
    for global_seed, seed in ((1, 5), (2, 5), (2, 6)):
        keras.utils.set_random_seed(global_seed)
        model = make_model("click", "like", expert_dropout=0.5, seed=seed)
        weights = weights or [weight.numpy() for weight in model.trainable_weights]
        for weight, value in zip(model.trainable_weights, weights, strict=True):
            weight.assign(value)
        outputs.append(model.represent(x, training=True).shared.numpy())

    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[1], outputs[2])


def test_learns_what_can_be_learned(make_model, dataset):
    optimizer = {"optimizer": keras.optimizers.Adam(0.03)}
    model = make_model("click", "buy", compile_with={**GRAPH, **optimizer})

    model.fit(dataset("click", "buy"), epochs=25, verbose=0)

    results = model.evaluate(dataset("click", "buy"), verbose=0, return_dict=True)
    assert results["click_auc"] > 0.95
    assert results["buy_auc"] > 0.95
