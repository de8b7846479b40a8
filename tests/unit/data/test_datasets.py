import copy
import itertools

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import (
    CategoricalFeature,
    DataError,
    FeatureEncoder,
    MultiValuedFeature,
    NumericFeature,
    SpecError,
    Task,
    make_dataset,
)
from mptrec_tf.data import dataset_of_arrays, encoded, readers
from mptrec_tf.data.datasets import encode_rows, mixed, read_through, require_rules, summarize
from mptrec_tf.data.encoded import RowsInFiles, RowsInMemory

SIZE = 23
RNG = np.random.default_rng(0)
ROWS = {
    "number": np.arange(SIZE, dtype=float),
    "city": RNG.choice(["a", "b", "c"], SIZE),
    "tags": RNG.choice(["x|y", "z", ""], SIZE),
    "clicked": np.arange(SIZE) % 2,
    "seconds": np.where(np.arange(SIZE) % 3, np.arange(SIZE) * 10.0, np.nan),
    "weight": np.arange(SIZE) / 4,
}
CLICK = Task("click", "clicked")
STAY = Task("stay", "seconds", kind="regression", weight="weight")


@pytest.fixture(scope="module")
def encoder():
    features = [NumericFeature("number"), CategoricalFeature("city"), MultiValuedFeature("tags")]
    return FeatureEncoder(features).adapt(ROWS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(readers, "CHUNK_ROWS", 7)


def numbers(dataset):
    """What identifies the rows of an epoch, in their order."""
    return np.concatenate([x["numeric"][:, 0] for x, *_ in dataset]).tolist()


def concatenate(dataset):
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *dataset)


@pytest.mark.parametrize("stream", [False, True])
def test_batches_hold_encoded_rows_labels_and_weights(encoder, stream):
    dataset = make_dataset(ROWS, encoder, [CLICK, STAY], batch_size=10, stream=stream)
    x, y, weights = concatenate(dataset)
    for key, array in encoder.encode(ROWS).items():
        np.testing.assert_array_equal(x[key], array)
        assert x[key].dtype == array.dtype
    np.testing.assert_array_equal(y["click"], ROWS["clicked"])
    np.testing.assert_array_equal(y["stay"], ROWS["seconds"])
    np.testing.assert_array_equal(weights["stay"], ROWS["weight"])
    assert (x.keys(), y.keys(), weights.keys()) == (
        {"numeric", "categorical", "multivalued"},
        {"click", "stay"},
        {"stay"},
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("tasks", "parts"), [((), 1), ((CLICK,), 2), ((STAY, CLICK), 3)])
def test_a_batch_has_no_more_parts_than_it_needs(encoder, tasks, parts, stream):
    dataset = make_dataset(ROWS, encoder, tasks, stream=stream)
    assert len(dataset.element_spec) == parts
    assert len(next(iter(dataset))) == parts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(11, [11, 11, 1]), (23, [23]), (100, [23]), (1, [1] * 23)]
)
def test_the_last_batch_may_be_smaller(encoder, batch_size, sizes, stream):
    dataset = make_dataset(ROWS, encoder, [CLICK], batch_size=batch_size, stream=stream)
    assert [len(y["click"]) for _, y in dataset] == sizes


@pytest.mark.parametrize("stream", [False, True])
def test_shuffle_covers_all_rows_once_and_differs_in_each_epoch(encoder, stream):
    dataset = make_dataset(ROWS, encoder, [CLICK], batch_size=4, shuffle=True, stream=stream)
    epochs = [numbers(dataset) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == ROWS["number"].tolist()
    assert len({tuple(epoch) for epoch in epochs} | {tuple(ROWS["number"])}) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_shuffle_is_reproduced_by_its_seed(encoder, stream):
    def epochs(seed):
        dataset = make_dataset(ROWS, encoder, shuffle=True, seed=seed, stream=stream)
        return [numbers(dataset), numbers(dataset)]

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)


def test_shuffle_keeps_the_parts_of_a_row_together(encoder):
    dataset = make_dataset(ROWS, encoder, [CLICK, STAY], batch_size=5, shuffle=True)
    x, y, weights = concatenate(dataset)
    row = x["numeric"][:, 0].astype(int)
    np.testing.assert_array_equal(y["click"], ROWS["clicked"][row])
    np.testing.assert_array_equal(weights["stay"], ROWS["weight"][row])
    np.testing.assert_array_equal(x["categorical"], encoder.encode(ROWS)["categorical"][row])


def test_a_streamed_shuffle_draws_from_its_buffer(encoder):
    dataset = make_dataset(ROWS, encoder, shuffle=True, stream=True, shuffle_buffer=3)
    order = numbers(dataset)
    assert sorted(order) == ROWS["number"].tolist()
    assert all(number <= position + 3 for position, number in enumerate(order))


def test_files_are_read_anew_in_each_streamed_epoch_only(encoder, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("number,city,tags\n1,a,x\n2,b,y\n")
    held = make_dataset(path, encoder)
    streamed = make_dataset(path, encoder, stream=True)
    assert numbers(held) == numbers(streamed) == [1, 2]
    path.write_text("number,city,tags\n3,a,x\n")
    assert numbers(held) == [1, 2]
    assert numbers(streamed) == [3]


@pytest.mark.parametrize("stream", [False, True])
def test_shards_are_disjoint_and_cover_all_rows(encoder, stream):
    shards = [
        numbers(make_dataset(ROWS, encoder, [CLICK], shard=(index, 3), stream=stream))
        for index in range(3)
    ]
    assert [len(shard) for shard in shards] == [7 + 2, 7, 7]
    assert sorted(itertools.chain(*shards)) == ROWS["number"].tolist()
    with pytest.raises(DataError, match="4 chunks, too few for 5 shards"):
        make_dataset(ROWS, encoder, [CLICK], shard=(4, 5), stream=stream)


def test_example_ids_number_the_rows_whatever_their_order(encoder):
    dataset = make_dataset(ROWS, encoder, shuffle=True, with_example_ids=True)
    (x,) = concatenate(dataset)
    assert x["example_id"].dtype == np.int32
    np.testing.assert_array_equal(x["example_id"], x["numeric"][:, 0])
    assert "example_id" not in make_dataset(ROWS, encoder).element_spec[0]
    with pytest.raises(ValueError, match="with_example_ids needs the rows in memory"):
        make_dataset(ROWS, encoder, with_example_ids=True, stream=True)


TYPO = Task("typo", "answer", positive="Yes")
NO_MATCH = "the data: no label of the task 'typo' in column 'answer' is positive='Yes'"
NO_LABEL = r"the data: no row has a label of the task 'stay' \(columns \['seconds', 'weight'\]\)"


def test_a_task_without_any_label_is_refused(encoder):
    rows = ROWS | {"seconds": np.full(SIZE, np.nan)}
    with pytest.raises(DataError, match=NO_LABEL):
        make_dataset(rows, encoder, [CLICK, STAY])
    streamed = make_dataset(rows, encoder, [CLICK, STAY], stream=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=NO_LABEL):
        list(streamed)


@pytest.mark.parametrize("stream", [False, True])
def test_a_rule_that_matches_no_row_is_refused_where_the_task_is_trained(encoder, stream):
    rows = ROWS | {"answer": RNG.choice(["yes", "no"], SIZE)}
    data = make_dataset(rows, encoder, [CLICK, TYPO], shuffle=True, stream=stream)
    require_rules(data, ["click"])
    list(data)  # as an evaluation does
    with pytest.raises((DataError, tf.errors.InvalidArgumentError), match=NO_MATCH):
        require_rules(data, ["click", "typo"])
        list(data)
    require_rules(make_dataset(rows, encoder, [TYPO], shard=(0, 2), stream=stream), ["typo"])
    require_rules(data.take(1), ["typo"])
    read = RowsInFiles if stream else encode_rows
    with pytest.warns(UserWarning, match=NO_MATCH):
        read(rows, encoder, [TYPO])
    with pytest.raises(DataError, match=NO_MATCH):
        read(rows, encoder, [TYPO], training=True)


@pytest.mark.parametrize("stream", [False, True])
def test_labels_of_one_class_are_refused_where_the_task_is_trained(encoder, stream):
    rows = ROWS | {"clicked": np.ones(SIZE, int)}
    message = "the data: all labels of the task 'click' in column 'clicked' are 1"
    data = make_dataset(rows, encoder, [CLICK, STAY], stream=stream)
    require_rules(data, ["stay"])
    list(data)
    with pytest.raises((DataError, tf.errors.InvalidArgumentError), match=message):
        require_rules(data, ["click"])
        list(data)
    shard = make_dataset(rows, encoder, [CLICK], shard=(0, 2), stream=stream)
    require_rules(shard, ["click"])
    list(shard)
    read = RowsInFiles if stream else encode_rows
    read(rows, encoder, [CLICK])
    with pytest.raises(DataError, match=message):
        read(rows, encoder, [CLICK], training=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_label_that_is_a_feature_is_refused(encoder, stream):
    with pytest.raises(SpecError, match="its label column 'number' is also a feature"):
        make_dataset(ROWS, encoder, [Task("leak", "number", above=3)], stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_bad_data_are_refused_with_column_and_value(encoder, stream):
    with pytest.raises(DataError, match="column 'clicked' of the task 'click' has 2"):
        make_dataset(ROWS | {"clicked": np.full(SIZE, 2)}, encoder, [CLICK], stream=stream)
    with pytest.raises(DataError, match=r"no column 'seconds' \(did you mean 'second'\?\)"):
        rows = {name: values for name, values in ROWS.items() if name != "seconds"}
        make_dataset(rows | {"second": ROWS["seconds"]}, encoder, [STAY], stream=stream)


def test_dataset_of_arrays_keeps_structure_and_rows():
    arrays = ({"a": np.arange(5), "b": np.arange(10).reshape(5, 2)}, np.arange(5) * 2)
    x, y = concatenate(dataset_of_arrays(arrays, batch_size=2, shuffle=True, seed=3))
    assert sorted(x["a"]) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(x["b"], arrays[0]["b"][x["a"]])
    np.testing.assert_array_equal(y, x["a"] * 2)


def test_rows_are_told_apart_however_they_are_cut(encoder):
    whole = encode_rows(ROWS, encoder, [CLICK, STAY])
    assert summarize([whole]) == read_through(ROWS, encoder, [CLICK, STAY])
    assert summarize([whole]).number == SIZE
    for part, name in ((0, "numeric"), (1, "click"), (2, "stay")):
        other = copy.deepcopy(whole)
        other[part][name][-1] += 1
        assert summarize([other]).digest != summarize([whole]).digest


def test_rows_in_memory_are_digested_when_that_is_asked_for(encoder, monkeypatch):
    whole = encode_rows(ROWS, encoder, [CLICK, STAY])
    monkeypatch.setattr(encoded, "summarize", pytest.fail)
    rows = RowsInMemory(whole)
    assert len(list(rows.batches(2))) == -(-SIZE // 2)
    monkeypatch.undo()
    assert rows.digest == summarize([whole]).digest


def chunks_of(sizes):
    starts = np.cumsum([0, *sizes])
    for begin, end in itertools.pairwise(starts):
        rows = np.arange(begin, end)
        yield ({"row": rows, "pair": np.stack([rows, -rows], axis=1)}, {"label": rows * 2.0})


@pytest.mark.parametrize("buffer", [1, 3, 10, 50, 1000])
@pytest.mark.parametrize("sizes", [(40, 40, 20), (7,) * 15, (100,), (1, 99)])
def test_mixed_rows_come_once_whole_and_no_earlier_than_the_buffer_allows(sizes, buffer):
    parts = list(mixed(chunks_of(sizes), buffer, np.random.default_rng(0)))
    x, y = tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
    row = x["row"]
    assert sorted(row) == list(range(sum(sizes)))
    assert all(row <= np.arange(len(row)) + buffer)
    np.testing.assert_array_equal(x["pair"], np.stack([row, -row], axis=1))
    np.testing.assert_array_equal(y["label"], row * 2.0)
    assert (row.tolist() == sorted(row)) == (buffer == 1)


def test_mixing_draws_any_row_of_the_buffer_alike():
    """The row that leaves first: each of the four that the buffer holds, a quarter of the time."""
    rng = np.random.default_rng(1)
    first = [next(mixed(chunks_of([4, 1]), 4, rng))[0]["row"][0] for _ in range(4000)]
    counts = np.bincount(first, minlength=4)
    assert counts.sum() == 4000
    assert abs(counts - 1000).max() < 120  # more than four standard deviations


def test_an_iteration_that_is_not_read_counts_as_an_epoch(encoder):
    """A training that goes on after a stop skips the epochs before it so."""
    read = make_dataset(ROWS, encoder, shuffle=True, stream=True)
    skipped = make_dataset(ROWS, encoder, shuffle=True, stream=True)
    epochs = [numbers(read) for _ in range(3)]
    iter(skipped)
    iter(skipped)
    assert numbers(skipped) == epochs[2]


@pytest.mark.parametrize("stream", [False, True])
def test_iterators_end_at_once_since_nothing_tunes_them(encoder, stream):
    dataset = make_dataset(ROWS, encoder, [CLICK], stream=stream)
    assert dataset.options().autotune.enabled is False
    assert dataset.map(lambda *batch: batch).options().autotune.enabled is False
