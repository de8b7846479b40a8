"""`tf.data` datasets of encoded batches, from memory or streamed from files."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.data.labels import RuleCounts, encode_labels, require_labels
from mptrec_tf.data.readers import CHUNK_ROWS, Source, describe, read_chunks
from mptrec_tf.data.unknown import UnknownValues
from mptrec_tf.spec import Task
from mptrec_tf.spec.data_spec import check_labels_are_not_features
from mptrec_tf.spec.given import given_tasks

EXAMPLE_ID = "example_id"
"""Key of the row number among the inputs, for what is remembered about each row."""

SHUFFLE_BUFFER = 262_144
"""Rows that a streamed shuffle draws from."""

Batch = tuple[dict[str, Any], ...]


def make_dataset(
    source: Source,
    encoder: FeatureEncoder,
    tasks: Sequence[Task] = (),
    *,
    batch_size: int = 512,
    shuffle: bool = False,
    seed: int = 0,
    stream: bool = False,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    shard: tuple[int, int] = (0, 1),
    with_example_ids: bool = False,
    progress: bool = False,
) -> tf.data.Dataset:
    """Encoded batches `(x, y)`, or `(x, y, weights)` where a task has a weight column.

    By default the encoded rows are held in memory: a shuffle then covers all of them and no epoch
    touches the files again. With `stream=True` memory holds a few chunks only and each epoch reads
    the files anew.

    Args:
        source: Raw data: a frame, a dict of columns, or files.
        encoder: An adapted encoder.
        tasks: The tasks whose labels `y` holds. Defaults to none: the batches are `(x,)`.
        batch_size: Rows in a batch; the last one may have fewer. Defaults to 512.
        shuffle: Whether to shuffle anew in each epoch. Defaults to `False`.
        seed: Seed of the shuffle. Defaults to 0.
        stream: Whether to read from the files in every epoch. Defaults to `False`.
        shuffle_buffer: Rows that a streamed shuffle draws from. Defaults to 262,144.
        shard: `(index, count)`: keep every `count`-th chunk of rows, for worker `index` of `count`.
        with_example_ids: Whether `x` also holds `"example_id"`, int32 (B,), the number of the row;
            the periodic assignment of `MPTRec` needs it. Only in memory. Defaults to `False`.
        progress: Whether to show a progress bar while rows are encoded. Defaults to `False`.

    Returns:
        A dataset. `x` is a dict as `FeatureEncoder` gives it, `y` a dict of float32 (B,) by task
        with NaN for a missing label, `weights` a dict of float32 (B,) by task. A model that is to
        `fit` it refuses it where all labels of a binary task are the same, such as those of a
        `positive` that occurs in no row; with `stream=True` at the end of the first epoch, and of a
        shard never.

    Raises:
        DataError: If the data do not fit the features or the tasks, or a task has no label at all.
        SpecError: If a task's label column is a feature.

    Example:

    >>> rows = {"age": [31, 45], "click": [0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> x, y = next(iter(make_dataset(rows, encoder, [Task("click", "click")])))
    >>> y["click"].numpy()
    array([0., 1.], dtype=float32)
    """
    tasks = given_tasks(tasks)
    check_labels_are_not_features(encoder.features, tasks)
    if stream:
        if with_example_ids:
            raise ValueError("with_example_ids needs the rows in memory, not stream=True")
        dataset = _streamed(
            source, encoder, tasks, batch_size, shuffle, seed, shuffle_buffer, shard
        )
        dataset.encoder = encoder.copy()
        return dataset
    rules = RuleCounts(tasks if shard[1] == 1 else ())
    arrays = _whole(_encode(source, encoder, tasks, shard, _label(progress), rules))
    if with_example_ids:
        arrays = with_ids(arrays)
    dataset = dataset_of_arrays(arrays, batch_size=batch_size, shuffle=shuffle, seed=seed)
    where = describe(source)
    rules.warn(where)
    dataset.require_rules = lambda names: rules.require(names, where)
    dataset.encoder = encoder.copy()
    return dataset


def require_rules(dataset: Any, names: Iterable[str]) -> None:
    """Refuses to train on rows in which all labels of a binary task are the same.

    Rows that are streamed are refused when their first epoch ends; nothing is known of another kind
    of dataset, or after anything was done to a dataset.

    Args:
        dataset: What `fit` is given.
        names: The tasks that it trains.

    Raises:
        DataError: Names the task, the column, the rule and what the column holds.
    """
    if hasattr(dataset, "require_rules"):
        dataset.require_rules(names)


def encoder_of(dataset: Any) -> FeatureEncoder | None:
    """What encoded the rows of a dataset, as it was then.

    Args:
        dataset: What a model is given.

    Returns:
        `None` of another kind of dataset, or after anything was done to a dataset.
    """
    encoder = getattr(dataset, "encoder", None) if isinstance(dataset, tf.data.Dataset) else None
    return encoder if isinstance(encoder, FeatureEncoder) else None


def encode_rows(
    source: Source,
    encoder: FeatureEncoder,
    tasks: Sequence[Task] = (),
    *,
    shard: tuple[int, int] = (0, 1),
    training: bool = False,
    progress: bool = False,
) -> Batch:
    """All rows of a source, encoded, in memory: one batch of `make_dataset` as NumPy arrays.

    Args:
        source: A frame, a dict of columns, or files.
        encoder: An adapted encoder.
        tasks: The tasks whose labels are read. Defaults to none.
        shard: `(index, count)`: keep every `count`-th chunk of rows.
        training: Whether they are trained on; then the labels of a binary task must not be all the
            same. Defaults to `False`: those that are, are warned of.
        progress: Whether to show a progress bar. Defaults to `False`.

    Returns:
        `(x,)`, `(x, y)` or `(x, y, weights)`, as `make_dataset` batches them.

    Raises:
        DataError: If the data do not fit the features or the tasks, or a task has no label at all.

    Example:

    >>> rows = {"age": [31, 45], "click": [0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> x, y = encode_rows(rows, encoder, [Task("click", "click")])
    >>> y["click"]
    array([0., 1.], dtype=float32)
    """
    tasks = given_tasks(tasks)
    rules = RuleCounts(tasks)
    arrays = _whole(_encode(source, encoder, tasks, shard, _label(progress), rules))
    if training:
        rules.require((task.name for task in tasks), describe(source))
    else:
        rules.warn(describe(source))
    return arrays


def with_ids(arrays: Batch) -> Batch:
    """Adds `"example_id"`, the number of the row, to the inputs of `encode_rows`."""
    x, *rest = arrays
    ids = np.arange(len(next(iter(x.values()))), dtype=np.int32)
    return ({**x, EXAMPLE_ID: ids}, *rest)


def dataset_of_arrays(
    arrays: Batch, *, batch_size: int, shuffle: bool = False, seed: int = 0
) -> tf.data.Dataset:
    """Batches of rows that are already in memory, gathered a batch at a time.

    Args:
        arrays: A nest of arrays of the same length, such as `(x, y)`.
        batch_size: Rows in a batch.
        shuffle: Whether to shuffle all rows anew in each epoch. Defaults to `False`.
        seed: Seed of the shuffle. Defaults to 0.

    Returns:
        A dataset with the structure of `arrays`.

    Example:

    >>> batches = dataset_of_arrays({"x": np.arange(5)}, batch_size=2)
    >>> [batch["x"].numpy().tolist() for batch in batches]
    [[0, 1], [2, 3], [4]]
    """
    tensors = tf.nest.map_structure(tf.convert_to_tensor, arrays)
    return gathered_batches(
        int(tf.nest.flatten(tensors)[0].shape[0]),
        lambda index: tf.nest.map_structure(lambda t: tf.gather(t, index), tensors),
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
    )


class RowsByNumber(NamedTuple):
    """What batches of rows that can be had by number are made of.

    Attributes:
        numbers: Gives the numbers of all rows in their order, cut into so many: a dataset of int64
            (B,). An epoch's order is another one whenever an iteration of any of them begins.
        gather: Gives the rows of some numbers, int64 (B,).
        rows: How many there are.
        batch_size: Rows in a batch.
        shuffled: Whether the numbers come in another order in each epoch.
    """

    numbers: Callable[[int], tf.data.Dataset]
    gather: Callable[[tf.Tensor], Any]
    rows: int
    batch_size: int
    shuffled: bool


def rows_by_number(dataset: Any) -> RowsByNumber | None:
    """How to read several batches of a dataset at once, which is faster than one after another.

    Args:
        dataset: What `fit` is given.

    Returns:
        `None` where batches come one by one: from files that are streamed, from another kind of
        dataset, or after anything was done to a dataset.
    """
    return getattr(dataset, "rows_by_number", None)


def gathered_batches(
    rows: int,
    gather: Callable[[tf.Tensor], Any],
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
) -> tf.data.Dataset:
    """Batches of rows that can be had by number, in an order that any `gather` shares.

    Args:
        rows: How many there are.
        gather: Gives the rows of some numbers, int64 (B,).
        batch_size: Rows in a batch.
        shuffle: Whether to shuffle all rows anew in each epoch.
        seed: Seed of the shuffle, beside that of `keras.utils.set_random_seed`.

    Returns:
        A dataset of what `gather` gives.
    """
    seeds = _epochs(seed)

    def numbers(size: int) -> tf.data.Dataset:
        def cut(order: tf.Tensor) -> tf.data.Dataset:
            starts = tf.data.Dataset.range(0, rows, size)
            return starts.map(lambda start: order[start : start + size])

        def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(in_order, epoch)
            return tf.data.Dataset.from_tensors(order).flat_map(cut)

        in_order = tf.range(rows, dtype=tf.int64)
        if not shuffle:
            return cut(in_order)
        count = -(-rows // size)
        return seeds.flat_map(shuffled).apply(tf.data.experimental.assert_cardinality(count))

    return gathered(RowsByNumber(numbers, gather, rows, batch_size, shuffle))


def gathered(rows: RowsByNumber) -> tf.data.Dataset:
    """Batches of the rows of some numbers, in their order.

    Args:
        rows: The numbers, and what gives their rows.
    """
    numbers = rows.numbers(rows.batch_size).prefetch(tf.data.AUTOTUNE)
    batches = numbers.map(rows.gather, num_parallel_calls=tf.data.AUTOTUNE)
    batches = without_autotuning(batches.prefetch(tf.data.AUTOTUNE))
    batches.rows_by_number = rows
    return batches


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """A dataset whose iterators end at once.

    The thread by which `tf.data` tunes a running dataset can miss that its iterator ends, which
    then waits for it: about as long as the epoch took, at most a minute. Without it, what is
    `AUTOTUNE` runs on all cores, and buffers grow by need.

    Args:
        dataset: The whole of what is iterated over.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


class Rows(NamedTuple):
    """What `summarize` learns of encoded rows.

    Attributes:
        number: How many there are.
        digest: SHA-256 over inputs, labels and weights, in order; the same however they are cut
            into chunks.
    """

    number: int
    digest: str


def summarize(chunks: Iterable[Batch]) -> Rows:
    """Counts encoded rows and tells them apart from others.

    Args:
        chunks: The rows, as `encode_rows` gives them, whole or in parts.

    Returns:
        Their number and their digest.
    """
    count, columns = 0, dict[tuple[int, str], Any]()
    for chunk in chunks:
        count += len(next(iter(chunk[0].values())))
        for part, arrays in enumerate(chunk):
            for name, array in arrays.items():
                array = np.asarray(array)
                column = columns.setdefault((part, name), hashlib.sha256(str(array.dtype).encode()))
                column.update(np.ascontiguousarray(array).data)
    whole = hashlib.sha256()
    for (part, name), column in sorted(columns.items(), key=lambda item: item[0]):
        whole.update(f"{part}/{name}/{column.hexdigest()}\n".encode())
    return Rows(count, whole.hexdigest())


def read_through(
    source: Source, encoder: FeatureEncoder, tasks: Sequence[Task], *, training: bool = False
) -> Rows:
    """Reads and checks every row of a source, as a streamed epoch would.

    Args:
        source: A frame, a dict of columns, or files.
        encoder: An adapted encoder.
        tasks: The tasks whose labels are checked.
        training: As in `encode_rows`. Defaults to `False`.

    Returns:
        The number of rows and their digest.

    Raises:
        DataError: If the data do not fit the features or the tasks, or a task has no label at all.
    """
    rules = RuleCounts(tasks)
    rows = summarize(_encode(source, encoder, tuple(tasks), (0, 1), None, rules))
    if training:
        rules.require((task.name for task in tasks), describe(source))
    else:
        rules.warn(describe(source))
    return rows


def _streamed(
    source: Source,
    encoder: FeatureEncoder,
    tasks: tuple[Task, ...],
    batch_size: int,
    shuffle: bool,
    seed: int,
    shuffle_buffer: int,
    shard: tuple[int, int],
) -> tf.data.Dataset:
    first = next(_encode(source, encoder, tasks, shard, None, RuleCounts(())))
    trained = set[str]()
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), first
    )

    def read() -> Iterator[Batch]:
        rules = RuleCounts(tasks if shard[1] == 1 else ())
        yield from _encode(source, encoder, tasks, shard, None, rules)
        rules.require(trained, describe(source))

    def chunks(epoch: np.ndarray) -> Iterator[Batch]:
        encoded = read()
        return mixed(encoded, shuffle_buffer, np.random.default_rng(epoch)) if shuffle else encoded

    dataset = _epochs(seed).flat_map(
        lambda epoch: tf.data.Dataset.from_generator(
            chunks, args=(epoch,), output_signature=signature
        )
    )
    # A chunk ahead, since it comes all at once and after a while.
    dataset = dataset.prefetch(1).rebatch(batch_size).prefetch(tf.data.AUTOTUNE)
    dataset = without_autotuning(dataset)
    dataset.require_rules = trained.update
    return dataset


def _epochs(seed: int) -> tf.data.Dataset:
    """One element, the seed of an epoch: another one whenever an iteration begins."""
    drawn = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    return drawn.batch(2, drop_remainder=True).take(1)


def mixed(chunks: Iterable[Batch], buffer: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Shuffles rows that come in chunks, as `tf.data.Dataset.shuffle` does, but many at a time.

    A buffer of rows is filled; then as many as come in leave it, drawn at random.

    Args:
        chunks: The rows, in nests of arrays of the same length.
        buffer: How many rows are held; no row comes earlier by more.
        rng: What draws.

    Yields:
        The rows in chunks of other sizes, each row once.
    """
    pool: list[np.ndarray] = []
    filled, structure = 0, None
    for chunk in chunks:
        arrays, structure = tf.nest.flatten(chunk), chunk
        if not pool:
            pool = [np.empty((buffer, *array.shape[1:]), array.dtype) for array in arrays]
        rest = [array[: buffer - filled] for array in arrays]
        for held, array in zip(pool, rest, strict=True):
            held[filled : filled + len(array)] = array
        begin = len(rest[0])
        filled += begin
        for start in range(begin, len(arrays[0]), buffer):
            incoming = [array[start : start + buffer] for array in arrays]
            drawn = rng.choice(buffer, len(incoming[0]), replace=False)
            yield tf.nest.pack_sequence_as(structure, [held[drawn] for held in pool])
            for held, array in zip(pool, incoming, strict=True):
                held[drawn] = array
    if filled:
        order = rng.permutation(filled)
        for start in range(0, filled, CHUNK_ROWS):
            part = order[start : start + CHUNK_ROWS]
            yield tf.nest.pack_sequence_as(structure, [held[part] for held in pool])


def _label(progress: bool) -> str | None:
    return "encoding" if progress else None


def _whole(chunks: Iterable[Batch]) -> Batch:
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *chunks)


def _encode(
    source: Source,
    encoder: FeatureEncoder,
    tasks: tuple[Task, ...],
    shard: tuple[int, int],
    progress: str | None,
    rules: RuleCounts,
) -> Iterator[Batch]:
    """Encoded chunks; at the end, an error if a task never had a label."""
    labelled = {task.name: 0 for task in tasks}
    unknown = UnknownValues(encoder)
    for chunk in read_chunks(source, encoder.features, tasks, shard=shard, progress=progress):
        batch: Batch = (encoder.encode_chunk(chunk),)
        unknown.update(batch[0])
        if tasks:
            labels, weights = encode_labels(tasks, chunk)
            rules.update(chunk, labels)
            batch += (labels, weights) if weights else (labels,)
            for name, values in labels.items():
                labelled[name] += int(np.count_nonzero(~np.isnan(values)))
        yield batch
    unknown.warn(describe(source))
    require_labels(tasks, labelled, describe(source))
