"""Ali-CCP: 84 million impressions of Taobao's recommender; who clicked and who bought then.

Source: Ma et al., "Entire Space Multi-Task Model", SIGIR 2018, https://arxiv.org/abs/1804.07931;
the data are at https://tianchi.aliyun.com/dataset/408 (registration needed, so there is no download
here). What is read are the four files within `sample_train.tar.gz` and `sample_test.tar.gz`,
unpacked, or files of the same names with `synthetic_` before them, as `mptrec_tf.data.synthetic`
writes them.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from mptrec_tf.data.ali_ccp import joining
from mptrec_tf.data.ali_ccp.fields import (
    FILES,
    MULTIVALUED,
    SCENARIO_FIELD,
    SINGLE,
    USER_FIELDS,
    column,
)
from mptrec_tf.data.ali_ccp.joining import Join, Partition, RangeOf, Shuffle
from mptrec_tf.data.preparation import lines
from mptrec_tf.data.preparation.jobs import LOCAL, Job
from mptrec_tf.data.preparation.lines import split_file
from mptrec_tf.data.preparation.parts import find_file
from mptrec_tf.data.preparation.preparation import Preparation
from mptrec_tf.data.preparation.settings import published_settings
from mptrec_tf.errors import DataError
from mptrec_tf.spec import CategoricalFeature, DataSpec, Feature, MultiValuedFeature, Task

__all__ = ["NAME", "SETTINGS", "TASKS", "prepare", "spec"]

NAME = "ali-ccp"
LEFT_OUT = (USER_FIELDS[0], SCENARIO_FIELD)
"""Fields that are no features: the user, as in the published runs of stage 2, and a label."""

TASKS = (
    Task("click", label="click"),
    Task("conversion", label="conversion"),
    Task("scenario", label=column(SCENARIO_FIELD), negative="2"),
)
SETTINGS = published_settings(
    ("click", "conversion"),
    embedding_dim=5,
    expert_dropout=0.1,
    tower_dropout=0.3,
    batch_size=2000,
)
"""The published settings, as far as a configuration can say them."""


def spec(min_count: int = 10, multivalued: Sequence[str] = ()) -> DataSpec:
    """The features and tasks: click, conversion, and as a new task whether the scenario is not 2.

    Args:
        min_count: Ids seen so often or less in the training rows become the unknown id. Defaults to
            10.
        multivalued: Which of the fields with several ids are features too, such as `"109_14"`. The
            published runs read none.

    Returns:
        A `DataSpec` with 16 categorical features and those.

    Raises:
        DataError: If there is no such field.

    Example:

    >>> len(spec().features), spec(multivalued=["210"]).features[-1].name
    (16, 'field_210')
    """
    _check_fields(multivalued)
    features: list[Feature] = [
        CategoricalFeature(column(field), min_count=min_count + 1)
        for field in SINGLE
        if field not in LEFT_OUT
    ]
    features += [
        MultiValuedFeature(column(field), min_count=min_count + 1, max_length=50)
        for field in multivalued
    ]
    return DataSpec(tuple(features), TASKS)


def prepare(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    min_count: int = 10,
    multivalued: Sequence[str] = (),
    file_format: str = "parquet",
    seed: int = 0,
    max_bad_lines: int = 0,
    beam: Sequence[str] = LOCAL,
    progress: bool = True,
) -> dict[str, Any]:
    """Joins samples and common features into Parquet or TFRecord files, in bounded memory.

    A tenth of the training file is for validation. Conversions without a click are dropped. The
    same call goes on where one was cut off, and does nothing where one is complete.

    Args:
        source: Directory with the four raw files, itself or in directories within.
        output: Directory that gets `train`, `validation`, `test`, `vocabularies`, `config.yaml` for
            `mptrec train`, and `summary.json`, each when it is complete.
        min_count: Ids seen so often or less in the training rows become the unknown id: `min_count`
            of the features in `config.yaml`. The rows hold all ids. Defaults to 10.
        multivalued: Which of the fields with several ids are kept too, as lists. Their values, the
            strengths of the ids, are not: a `MultiValuedFeature` knows none. Defaults to none.
        file_format: `"parquet"` (default) or `"tfrecord"`.
        seed: Seed of the split. Defaults to 0.
        max_bad_lines: How many malformed lines are skipped, counted and told. Defaults to 0: the
            first one is an error.
        beam: Arguments of Apache Beam; its workers need to see both directories. Defaults to a run
            in this process.
        progress: Whether to show progress bars. Defaults to `True`.

    Returns:
        What `summary.json` holds: `"rows"` by part, `"positives"` by part and label,
        `"vocabularies"` by column, `"dropped"` conversions without a click, `"repeated"`, lines by
        field with several ids where one is read, `"bad"` lines, whether `"synthetic"`.

    Raises:
        DataError: If a file is missing, a line is malformed (names the file, the line, the value
            and what was expected), or the output holds something else.

    Example:

    ```python
    ali_ccp.prepare("downloads/ali-ccp", "data/ali-ccp")
    ```
    """
    described = spec(min_count, multivalued)
    files = {kind: find_file(pathlib.Path(source), name) for kind, name in FILES.items()}
    settings = {
        "min_count": min_count,
        "multivalued": list(multivalued),
        "file_format": file_format,
        "seed": seed,
        "max_bad_lines": max_bad_lines,
    }
    steps = [lines.RANGE_BYTES, joining.PARTITION_BYTES, joining.GROUP_ROWS]
    preparation = Preparation(output, files, settings, steps=steps, beam=beam, progress=progress)
    done = preparation.finished()
    if done is not None:
        return done
    reading, joins = _plan(files, preparation.work)
    results = preparation.run(
        "reading", reading, Shuffle(SINGLE, tuple(multivalued), seed, max_bad_lines)
    )
    columns = tuple(column(f) for f in (*SINGLE, *multivalued) if f != SCENARIO_FIELD)
    join = Join(
        preparation.rows,
        preparation.counts,
        preparation.prefix,
        file_format,
        columns,
        max_bad_lines,
    )
    results += preparation.run("joining", joins, join, " partitions")
    return preparation.finish(results, described, columns, SETTINGS)


def _plan(files: dict[str, pathlib.Path], work: pathlib.Path) -> tuple[list[Job], list[Job]]:
    """What is to be read and what is to be joined."""
    reading, joins = [], []
    for name in ("train", "test"):
        samples, common = files[f"{name}_samples"], files[f"{name}_common"]
        larger = max(samples.stat().st_size, common.stat().st_size)
        partitions = -(-larger // joining.PARTITION_BYTES)
        shuffled: dict[str, list[str]] = {}
        for kind, path in ((f"{name}_common", common), (f"{name}_samples", samples)):
            shuffled[kind] = []
            for number, part in enumerate(split_file(path)):
                output = str(work / "shuffled" / f"{kind}-{number:05d}.arrow")
                shuffled[kind].append(output)
                argument = RangeOf(kind, part, partitions, output)
                reading.append(Job(f"{kind}-{number:05d}", part.end - part.start, argument))
        for number in range(partitions):
            partition = Partition(
                name,
                number,
                shuffled[f"{name}_samples"],
                shuffled[f"{name}_common"],
                str(samples),
                str(common),
            )
            joins.append(Job(f"{name}-{number:05d}", 1, partition))
    return reading, joins


def _check_fields(fields: Sequence[str]) -> None:
    unknown = [field for field in fields if field not in MULTIVALUED]
    if unknown or len(set(fields)) < len(fields):
        raise DataError(
            f"multivalued fields {list(fields)}: expected some of {list(MULTIVALUED)}, each once"
        )
