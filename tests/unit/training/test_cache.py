"""Stage 2 on representations that were computed once."""

import os
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import FeatureEncoder, ModelError, MPTRec, Task, load_model, make_dataset
from mptrec_tf.cache import CachedRows, cache_rows, cached_dataset, files, representing, room
from mptrec_tf.cache.representing import RepresentedRows
from mptrec_tf.config import TrainingConfig
from mptrec_tf.data import RowsInFiles, RowsInMemory, encode_rows
from mptrec_tf.models.backbone import Backbone
from mptrec_tf.spec import CategoricalFeature, NumericFeature
from mptrec_tf.training import (
    ResumableEarlyStopping,
    StageData,
    fitting,
    pretrain,
    prompt_tune,
)
from mptrec_tf.training.fitting import fit_stage, with_cache

STAGE1 = [Task("click", "click"), Task("like", "like")]
NEW = Task("buy", "buy", weight="price")
ROWS, SHARD = 100, 32


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(representing, "BATCH", 16)
    monkeypatch.setattr(files, "BATCH", 16)
    monkeypatch.setattr(files, "BATCHES_OF_SHARD", 2)


@pytest.fixture(scope="module")
def encoder(frame):
    features = [NumericFeature("age", bins=5), CategoricalFeature("city")]
    return FeatureEncoder(features).adapt(frame[:ROWS])


@pytest.fixture
def make_model(encoder):
    def make(**settings):
        model = MPTRec(encoder, STAGE1, expert_units=(6, 4), tower_units=(3,), **settings)
        model.compile("adam", jit_compile=False)
        model.begin_epoch(0.0, None)
        model.count_epoch()  # as trained as the tests need
        return model

    return make


@pytest.fixture
def model(make_model):
    return make_model(expert_dropout=0.5)


@pytest.fixture(scope="module")
def rows(frame, encoder):
    return RowsInMemory(encode_rows(frame[:ROWS], encoder, [NEW]))


@pytest.fixture
def computed(monkeypatch):
    """Counts the batches that are represented."""
    seen, real = [], RepresentedRows.represent

    def count(self, batch):
        seen.append(len(batch[1]["buy"]))
        return real(self, batch)

    monkeypatch.setattr(RepresentedRows, "represent", count)
    return seen


def content(rows, batch_size=ROWS, **kwargs):
    """All batches as NumPy arrays."""
    return list(rows.batches(batch_size, **kwargs).as_numpy_iterator())


def assert_same(left, right):
    tf.nest.map_structure(np.testing.assert_array_equal, left, right)


def by_hand(model, frame):
    """x, g, s_k and the ids in NumPy, from the weights and the encoder's numbers."""
    ages = frame["age"].to_numpy(np.float32)[:, None]
    edges = np.array(model.encoder.numeric_state["age"], np.float32)
    pieces = np.clip((ages - edges[:-1]) / np.diff(edges), 0, 1)
    ids = model.encoder.encode(frame)["categorical"][:, 0]
    (table,) = model.backbone.embedding.tables
    x = np.concatenate([pieces, table.numpy()[ids]], axis=1)
    experts = []
    for expert in range(1 + len(STAGE1)):
        first, second = (kernel.numpy() for kernel in model.backbone.experts.kernels)
        biases = [bias.numpy()[expert] for bias in model.backbone.experts.biases]
        hidden = np.maximum(x @ first[:, expert] + biases[0], 0)
        experts.append(np.maximum(hidden @ second[expert] + biases[1], 0))
    return x, experts[0], np.stack(experts[1:], axis=1), ids[:, None]


def test_the_values_are_those_of_the_backbone_without_dropout(model, rows, frame):
    for bias in model.backbone.experts.biases:
        bias.assign(np.linspace(-0.1, 0.1, bias.shape[0] * bias.shape[1]).reshape(bias.shape))
    ((represented, y, weights),) = content(cache_rows(model, rows))
    for value, expected in zip(represented, by_hand(model, frame[:ROWS]), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y["buy"], frame["buy"][:ROWS])
    np.testing.assert_array_equal(weights["buy"], frame["price"][:ROWS].astype(np.float32))


def test_batches_are_those_of_the_encoded_rows_in_the_same_order(model, rows):
    cached = cache_rows(model, rows)
    assert cached.digest == rows.digest
    for shuffle in (False, True):
        left = rows.batches(24, shuffle=shuffle, seed=5)
        right = cached.batches(24, shuffle=shuffle, seed=5)
        assert int(left.cardinality()) == int(right.cardinality()) == 5
        for _ in range(2):  # the second epoch is shuffled anew
            for (x, *labels), (represented, *kept) in zip(left, right, strict=True):
                assert_same(labels, kept)
                np.testing.assert_allclose(
                    represented.shared, model.represent(x).shared, rtol=1e-5, atol=1e-6
                )


def test_files_hold_the_same_as_memory_and_are_computed_once(model, rows, computed, tmp_path):
    memory = content(cache_rows(model, rows), 24, shuffle=True)
    del computed[:]
    assert_same(content(cache_rows(model, rows, tmp_path), 24, shuffle=True), memory)
    assert len(computed) == 7
    assert sorted(file.name for file in tmp_path.glob("*.npy")) == [
        *("00000.npy", "00001.npy", "00002.npy", "00003.npy")
    ]
    assert_same(content(cache_rows(model, rows, tmp_path), 24, shuffle=True), memory)
    assert len(computed) == 7


def test_streamed_rows_are_cached_as_those_in_memory(model, rows, frame, encoder, tmp_path):
    frame[:ROWS].to_csv(tmp_path / "rows.csv", index=False)
    streamed = RowsInFiles(str(tmp_path / "rows.csv"), encoder, [NEW])
    assert_same(content(cache_rows(model, streamed)), content(cache_rows(model, rows)))


def test_half_precision_survives_memory_and_files(make_model, rows, tmp_path):
    model = make_model(dtype="mixed_bfloat16")
    expected = model.represent(next(iter(rows.batches(ROWS)))[0])
    for directory in (None, tmp_path, tmp_path):
        (batch,) = cache_rows(model, rows, directory).batches(ROWS)
        np.testing.assert_array_equal(batch[0].ids, expected.ids)
        for value, other in zip(batch[0][:3], expected[:3], strict=True):
            assert value.dtype == other.dtype == tf.bfloat16
            np.testing.assert_allclose(
                tf.cast(value, tf.float32), tf.cast(other, tf.float32), rtol=2e-2, atol=1e-3
            )


@pytest.mark.parametrize("batch", [1, 3, 4, 7])
def test_a_kill_while_computing_costs_only_the_shard_under_way(
    batch, model, rows, computed, monkeypatch, tmp_path
):
    real = RepresentedRows.represent

    def die(self, rows):
        if len(computed) + 1 == batch:
            raise Killed
        return real(self, rows)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RepresentedRows, "represent", die)
        cache_rows(model, rows, tmp_path)
    finished = (batch - 1) // 2
    assert len(list(tmp_path.glob("*.npy"))) == finished

    del computed[:]
    resumed = cache_rows(model, rows, tmp_path)
    assert len(computed) == 7 - 2 * finished
    assert_same(content(resumed), content(cache_rows(model, rows)))


def test_a_shard_that_was_half_written_is_none(model, rows, computed, monkeypatch, tmp_path):
    save = np.save

    def die(stream, records):
        if stream.name.endswith(".partial-00001.npy"):
            save(stream, records[:20])
            raise Killed
        save(stream, records)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(np, "save", die)
        cache_rows(model, rows, tmp_path)
    assert [file.name for file in tmp_path.glob("*.npy")] == ["00000.npy"]
    del computed[:]
    resumed = cache_rows(model, rows, tmp_path)
    assert len(computed) == 5
    assert_same(content(resumed), content(cache_rows(model, rows)))


@pytest.mark.parametrize("damage", ["missing", "cut", "other rows", "empty"])
def test_a_damaged_shard_is_computed_again(damage, model, rows, computed, tmp_path):
    whole = content(cache_rows(model, rows, tmp_path))
    file = tmp_path / "00002.npy"
    if damage == "missing":
        file.unlink()
    elif damage == "other rows":
        file.write_bytes((tmp_path / "00003.npy").read_bytes())
    else:
        file.write_bytes(file.read_bytes()[: -9 if damage == "cut" else 0])
    del computed[:]
    again = cache_rows(model, rows, tmp_path)
    assert len(computed) == 2
    assert_same(content(again), whole)


@pytest.mark.parametrize("stale", ["rows", "weights", "dtype", "identity"])
def test_a_directory_of_something_else_is_refused(stale, model, rows, frame, encoder, tmp_path):
    cache_rows(model, rows, tmp_path)
    if stale == "rows":
        changed = frame[:ROWS].assign(age=frame["age"][:ROWS] + (frame.index[:ROWS] == 7))
        rows = RowsInMemory(encode_rows(changed, encoder, [NEW]))
    elif stale == "weights":
        bias = model.backbone.experts.biases[0]
        bias.assign(np.nextafter(bias.numpy(), np.float32(1)))
    elif stale == "identity":
        (tmp_path / "identity.json").unlink()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    what = {
        "rows": "of other rows",
        "weights": "by another backbone",
        "dtype": "in float32",
        "identity": "by another backbone and of other rows and in another precision and in files",
    }
    with pytest.raises(ModelError, match=f"{tmp_path} holds representations {what[stale]}"):
        cache_rows(model, rows, tmp_path, dtype="float16" if stale == "dtype" else None)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_another_function_of_the_same_weights_is_another_backbone(make_model):
    model, twin = make_model(), make_model(activation="gelu")
    twin.set_weights(model.get_weights())
    assert model.fingerprint() == twin.fingerprint()
    assert model.representation_fingerprint() != twin.representation_fingerprint()


def test_added_tasks_do_not_change_the_backbone(model, rows, tmp_path):
    before = model.representation_fingerprint()
    model.add_task(NEW, tower_units=(3,))
    model.fit(rows.batches(50), verbose=0)
    assert model.representation_fingerprint() == before
    model.save(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").representation_fingerprint() == before


@pytest.mark.parametrize("settings", [{"jit_compile": False}, {"steps_per_execution": 2}])
def test_fit_runs_the_module_alone(settings, model, rows, monkeypatch):
    model.compile("adam", **settings)
    model.add_task(NEW, tower_units=(3,))
    cached, before = cache_rows(model, rows), model.fingerprint(frozen_only=True)
    expected = model.predict(rows.batches(ROWS), verbose=0)

    def refuse(*args, **kwargs):
        raise AssertionError("the backbone was called")

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "call", refuse)
        predicted = model.predict(cached.batches(40), verbose=0)
        history = model.fit(
            cached.batches(25, shuffle=True), validation_data=cached.batches(50), verbose=0
        ).history
        evaluated = model.evaluate(cached.batches(50), return_dict=True, verbose=0)
    for task in ("click", "like", "buy"):
        np.testing.assert_allclose(predicted[task], expected[task], rtol=1e-5, atol=1e-6)
    assert model.fingerprint(frozen_only=True) == before
    assert evaluated["buy_auc"] == pytest.approx(history["val_buy_auc"][0])
    plain = model.evaluate(rows.batches(50), return_dict=True, verbose=0)
    assert evaluated == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("place", ["memory", "files"])
def test_fit_caches_by_itself(place, make_model, rows, computed, tmp_path):
    settings = {"epochs": 2, "verbose": 0, "shuffle": False}
    models, histories = [], []
    for cache_in in (None, "memory" if place == "memory" else tmp_path):
        keras.utils.set_random_seed(1)
        model = make_model(expert_dropout=0.5)
        model.add_task(NEW, tower_units=(3,), embedding_dim=2)
        data = {"x": rows.batches(30), "validation_data": rows.batches(50)}
        histories.append(model.fit(**data, **settings, cache=cache_in).history)
        models.append(model)
    for metric, values in histories[0].items():
        assert histories[1][metric] == pytest.approx(values, abs=1e-5), metric
    plain, cached = models
    for weight, expected in zip(cached.trainable_weights, plain.trainable_weights, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-6, err_msg=weight.path)
    assert sum(computed) == 2 * ROWS  # in the one training of two, once for each part
    if place == "files":
        cached.fit(rows.batches(30), cache=tmp_path, verbose=0)
        assert sum(computed) == 2 * ROWS
        with pytest.raises(ModelError, match="of other rows"):
            cached.fit(rows.batches(30).skip(1), cache=tmp_path, verbose=0)


def test_fit_finds_the_files_of_rows_that_make_dataset_shuffles(
    make_model, frame, encoder, computed, tmp_path
):
    data = make_dataset(frame[:ROWS], encoder, [NEW], batch_size=30, shuffle=True)
    again = make_dataset(frame[:ROWS], encoder, [NEW], batch_size=30, shuffle=True, seed=5)
    plain = make_dataset(frame[:ROWS], encoder, [NEW], batch_size=30)
    streamed = make_dataset(frame[:ROWS], encoder, [NEW], batch_size=30, stream=True)
    model = make_model()
    model.add_task(NEW, tower_units=(3,))
    for dataset in (data, data, again, plain, streamed, plain.map(lambda *batch: batch)):
        model.fit(dataset, cache=tmp_path, verbose=0)
    assert sum(computed) == ROWS
    _, y, _ = content(RowsInMemory(encode_rows(frame[:ROWS], encoder, [NEW])))[0]
    stored = np.concatenate([np.load(file)["4"] for file in sorted(tmp_path.glob("train/*.npy"))])
    np.testing.assert_array_equal(stored, y["buy"])


@pytest.mark.parametrize("change", ["order", "rows"])
def test_fit_tells_a_shuffled_dataset_from_other_rows(make_model, rows, change, tmp_path):
    model = make_model()
    model.add_task(NEW, tower_units=(3,))
    shuffled = rows.batches(30).unbatch().shuffle(ROWS).batch(30)
    model.fit(shuffled, cache=tmp_path / "shuffled", verbose=0)
    model.fit(rows.batches(30), cache=tmp_path / "plain", verbose=0)
    for directory in ("shuffled", "plain"):
        other = shuffled if change == "order" else rows.batches(30).skip(1)
        message = "the dataset is shuffled" if change == "order" else "of other rows; give"
        with pytest.raises(ModelError, match=message):
            model.fit(other, cache=tmp_path / directory, verbose=0)


def order_of(dataset):
    """The labels in the order in which they come."""
    return np.concatenate([y["buy"] for _, y, *_ in dataset.as_numpy_iterator()]).tolist()


def test_what_is_cached_is_shuffled_anew_in_each_epoch_and_call(model, rows):
    orders = []
    for _ in range(2):
        cached = cached_dataset(model, rows.batches(40), "memory", "train", shuffle=True)
        orders += [order_of(cached), order_of(cached)]
    keras.utils.set_random_seed(3)
    for _ in range(2):
        keras.utils.set_random_seed(3)
        cached = cached_dataset(model, rows.batches(40), "memory", "train", shuffle=True)
        orders.append(order_of(cached))
    kept = cached_dataset(model, rows.batches(40), "memory", "train")
    assert order_of(kept) == order_of(rows.batches(40))
    assert len({tuple(order) for order in [*orders, order_of(kept)]}) == 6
    assert orders[-1] == orders[-2]


@pytest.mark.parametrize("place", ["memory", "files"])
def test_rows_that_make_dataset_shuffles_come_in_its_order(
    make_model, frame, encoder, place, tmp_path
):
    trained = []
    for cache_in in (None, "memory" if place == "memory" else tmp_path):
        keras.utils.set_random_seed(1)
        model = make_model()
        model.add_task(NEW, tower_units=(3,))
        data = make_dataset(frame[:ROWS], encoder, [NEW], batch_size=30, shuffle=True, seed=4)
        model.fit(data, epochs=2, cache=cache_in, verbose=0)
        model.fit(data, cache=cache_in, verbose=0)  # which goes on in the order of the third epoch
        trained.append(model.trainable_weights)
    for weight, expected in zip(*trained, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-6, err_msg=weight.path)


def test_what_fit_cannot_cache(model, rows):
    with pytest.raises(ModelError, match="for stage 2"):
        model.fit(rows.batches(50), cache="memory")
    model.add_task(NEW, tower_units=(3,))
    x, y, _ = content(rows)[0]
    with pytest.raises(ModelError, match="Received: dict"):
        model.fit(x, y, cache="memory")
    with pytest.raises(ModelError, match="Received: one without an end"):
        model.fit(rows.batches(50).repeat(), cache="memory")
    with pytest.raises(ModelError, match="without rows"):
        model.fit(rows.batches(50).take(0), cache="memory")
    with pytest.raises(ModelError, match="of cached representations"):
        model.fit(cache_rows(model, rows).batches(50), cache="memory")


def test_stage_1_refuses_cached_representations(model, rows):
    batches = cache_rows(model, rows).batches(50).map(lambda x, y, w: (x, {"click": y["buy"]}))
    with pytest.raises(ModelError, match="like"):
        model.fit(batches, verbose=0)
    both = batches.map(lambda x, y: (x, {**y, "like": y["click"]}))
    with pytest.raises(ModelError, match="added task only"):
        model.fit(both, verbose=0)


def test_the_number_of_a_row_is_for_stage_1(model, rows):
    with pytest.raises(ValueError, match="example_id"):
        cache_rows(model, rows).batches(50, with_example_ids=True)


SETTINGS = {"expert_dropout": 0.3, "l2": 1e-3, "l2_embedding": 1e-3}


@pytest.fixture
def stage1(make_config, sources, tmp_path):
    pretrain(make_config(SETTINGS), sources, tmp_path, verbose=0)
    return tmp_path / "stage1.keras"


@pytest.mark.parametrize(
    ("where", "training"),
    [
        ("memory", {}),
        ("disk", {"jit_compile": True, "steps_per_execution": 3}),
    ],
)
def test_the_same_is_learned_with_and_without(
    where, training, stage1, make_config, sources, tmp_path
):
    models, runs, before = {}, {}, load_model(stage1)
    for setting in (None, where):
        config = make_config(SETTINGS, training, stage2={"cache": setting})
        directory = tmp_path / str(setting)
        runs[setting] = prompt_tune(
            config, load_model(stage1), "buy", sources, directory, verbose=0
        )
        models[setting] = load_model(directory / "model.keras")
    files = (tmp_path / where / "stage2-buy" / "representations").rglob("*.npy")
    parts = sorted(f"{file.parent.name}/{file.name}" for file in files)
    shards = [f"train/{index:05}.npy" for index in range(7)]  # 200 rows
    shards += [f"validation/{index:05}.npy" for index in range(4)]
    assert parts == (shards if where == "disk" else [])
    assert runs[None].best_epoch == runs[where].best_epoch
    for plain, cached in zip(runs[None].epochs, runs[where].epochs, strict=True):
        for metric in set(plain) - {"seconds"}:
            assert cached[metric] == pytest.approx(plain[metric], abs=1e-4), metric
    module = models[where].task_modules.modules["buy"]
    plain = models[None].task_modules.modules["buy"]
    for weight, expected in zip(module.weights, plain.weights, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-5, err_msg=weight.path)
    before.compile("adam", **{"jit_compile": False, **training})
    x = before.encoder.encode(sources.validation)
    scores, older = (m.predict(x, verbose=0) for m in (models[where], before))
    for task in ("click", "like"):
        np.testing.assert_array_equal(scores[task], older[task])
    assert models[where].fingerprint(frozen_only=True) == before.fingerprint()


def train(model, rows, directory, setting="memory", epochs=3, seed=1):
    config = TrainingConfig(epochs=epochs, batch_size=40, jit_compile=False)
    data = StageData(model.encoder, (NEW,), rows, rows)
    return fit_stage(
        model, config, data, directory, identity={}, cache=setting, seed=seed, verbose=0
    )


class CutOff(ResumableEarlyStopping):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise Killed
        super().on_epoch_begin(epoch, logs)


@pytest.mark.long
def test_a_training_that_was_cut_off_goes_on(make_model, rows, monkeypatch, tmp_path):
    """With the cache or without: the same rows are the same training."""

    def begin():
        keras.utils.set_random_seed(0)
        model = make_model(seed=0)
        model.add_task(NEW, tower_units=(3,), dropout=0.2, seed=0)
        return model

    ends = []
    for first, then in ((None, None), ("disk", "disk"), ("memory", None), (None, "memory")):
        directory = tmp_path / f"{first}-{then}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(fitting, "ResumableEarlyStopping", CutOff)
            train(begin(), rows, directory, first)
        trained = train(begin(), rows, directory, then)
        assert len(trained.epochs) == 3
        ends.append(trained.model.task_modules.modules["buy"].get_weights())
    for end in ends[1:]:
        for weight, expected in zip(end, ends[0], strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-5)


def test_the_state_of_other_rows_is_refused(model, rows, frame, encoder, tmp_path):
    model.add_task(NEW, tower_units=(3,))
    train(model, rows, tmp_path)
    for other in (frame[100:200], frame[:ROWS].assign(buy=1 - frame["buy"][:ROWS])):
        with pytest.raises(ModelError, match="other rows"):
            train(model, RowsInMemory(encode_rows(other, encoder, [NEW])), tmp_path)


@pytest.mark.parametrize("setting", ["memory", None])
def test_cached_rows_of_another_backbone_are_refused(setting, model, make_model, rows, tmp_path):
    other = make_model()
    other.add_task(NEW, tower_units=(3,))
    with pytest.raises(ModelError, match="another backbone"):
        train(other, cache_rows(model, rows), tmp_path, setting)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("memory", "disk", "dtype", "files", "expected"),
    [
        (0, 0, None, [], CachedRows),
        (-1, 0, None, ["train", "validation"], CachedRows),
        (-1, -1, None, [], RowsInMemory),
        (-1, -1, "float16", [], CachedRows),
    ],
    ids=["memory", "disk", "nowhere", "half the size"],
)
def test_auto_takes_a_quarter_of_the_memory_or_half_of_the_disk(
    memory, disk, dtype, files, expected, model, rows, monkeypatch, tmp_path
):
    model.add_task(NEW, tower_units=(3,))
    width = model.backbone.input_dim + 3 * 4 + 3  # x, three experts, an id, a label, its weight
    needed = 2 * ROWS * width * 4
    monkeypatch.setattr(room, "_memory", lambda: 4 * (needed + memory))
    free = types.SimpleNamespace(free=2 * (needed + disk))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    data = StageData(model.encoder, (NEW,), rows, rows)
    data = with_cache(model, data, "auto", tmp_path / "cache", dtype)
    assert (type(data.train), type(data.validation)) == (expected, expected)
    assert sorted(path.name for path in tmp_path.glob("cache/*")) == files
    again = with_cache(model, data, "memory", tmp_path)
    assert again.train is data.train or expected is RowsInMemory


def test_auto_takes_the_files_that_it_has_written_before(model, rows, monkeypatch, tmp_path):
    model.add_task(NEW, tower_units=(3,))
    data = StageData(model.encoder, (NEW,), rows, rows)
    with_cache(model, data, "disk", tmp_path)
    taken = sum(file.stat().st_size for file in tmp_path.glob("*/*.npy"))
    monkeypatch.setattr(room, "_memory", lambda: 0)
    for size, expected in ((2 * taken, CachedRows), (taken, RowsInMemory)):
        free = types.SimpleNamespace(free=size - taken)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: free)
        assert type(with_cache(model, data, "auto", tmp_path).train) is expected


@pytest.mark.parametrize("place", ["memory", "files"])
def test_half_the_precision_rounds_and_is_read_as_the_model_s(place, model, rows, tmp_path):
    model.add_task(NEW, tower_units=(3,))
    files = tmp_path if place == "files" else None
    half = cache_rows(model, rows, files, dtype="float16")
    ((represented, *_),), ((exact, *_),) = content(half), content(cache_rows(model, rows))
    np.testing.assert_array_equal(represented.ids, exact.ids)
    assert represented.ids.dtype == np.int32
    for part, whole in zip(represented[:3], exact[:3], strict=True):
        assert part.dtype == np.float16
        np.testing.assert_array_equal(part, whole.astype(np.float16))
    expected = model.predict(rows.batches(ROWS), verbose=0)
    for name, values in model.predict(half.batches(40), verbose=0).items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name], atol=2e-3)
    assert np.isfinite(model.fit(half.batches(25), verbose=0).history["loss"]).all()
    if files:
        with pytest.raises(ModelError, match=f"{tmp_path} holds representations"):
            cache_rows(model, rows, tmp_path)


def test_a_representation_too_large_for_half_the_precision_is_refused(model, rows):
    bias = model.backbone.experts.biases[-1]
    bias.assign(bias + 7e4)
    with pytest.raises(ModelError, match=r"a representation of 7.* is too large for float16"):
        cache_rows(model, rows, dtype="float16")


def test_a_container_s_limit_counts_as_its_memory(monkeypatch, tmp_path):
    (tmp_path / "limit").write_text("123456\n")
    (tmp_path / "none").write_text("max\n")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limits, expected in ((["none", "absent"], machine), (["none", "limit"], 123456)):
        monkeypatch.setattr(room, "MEMORY_LIMITS", [str(tmp_path / file) for file in limits])
        assert room._memory() == expected


@pytest.mark.parametrize("word", ["auto", "disk", "memmory", "Memory"])
def test_a_word_of_the_settings_is_no_directory(word, model, rows, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model.add_task(NEW, tower_units=(3,))
    with pytest.raises(ModelError, match=f"'memory' or a directory, such as './{word}'"):
        model.fit(rows.batches(50), cache=word)
    assert list(tmp_path.iterdir()) == []
    model.fit(rows.batches(50), cache="here", verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_stage_1_is_never_cached(model, rows, tmp_path):
    data = StageData(model.encoder, (NEW,), rows, rows)
    assert with_cache(model, data, "memory", tmp_path) is data
