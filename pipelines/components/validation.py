"""The check of the data: a run stops on rows that do not fit, before it learns from them.

The stock ExampleValidator reports and lets the run go on. Here `DataValidator` writes what it
finds, and `RequireValidData` stops the run if that is too much: so the anomalies of a stopped run
are an artifact with lineage too (outputs of a component that fails are dropped).
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx.components.example_validator.executor import (
    ARTIFACT_PROPERTY_BLESSED_KEY,
    DEFAULT_FILE_NAME,
)
from tfx.types import artifact_utils
from tfx.utils import io_utils, writer_utils
from tfx.v1.dsl.components import InputArtifact, OutputArtifact, Parameter, component
from tfx.v1.dsl.io import fileio
from tfx.v1.types.standard_artifacts import ExampleAnomalies, ExampleStatistics, Schema

from mptrec_tf.errors import PipelineError
from pipelines.components.schema import Statistics, category_counts, read_statistics
from pipelines.examples import TRAIN

ANOMALIES_FILE = "anomalies.json"
DRIFT_FILE = "drift.json"
"""Beside the `SchemaDiff.pb` of each split: what stops the run, and every feature's drift."""

Measurement = anomalies_pb2.DriftSkewInfo.Measurement
Reason = anomalies_pb2.AnomalyInfo

L_INFTY, JENSEN_SHANNON = "L-infinity distance", "Jensen-Shannon divergence"
MEASURES = {
    Measurement.L_INFTY: L_INFTY,
    Measurement.JENSEN_SHANNON_DIVERGENCE: JENSEN_SHANNON,
    Measurement.NORMALIZED_ABSOLUTE_DIFFERENCE: "normalized absolute difference",
}
DRIFTED = {
    Reason.COMPARATOR_L_INFTY_HIGH: Measurement.L_INFTY,
    Reason.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH: Measurement.JENSEN_SHANNON_DIVERGENCE,
    Reason.COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH: (
        Measurement.NORMALIZED_ABSOLUTE_DIFFERENCE
    ),
}
"""The measure that is too high, by the reason of an anomaly."""

SHOWN_CATEGORIES = 5


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a split that does not fit.

    Args:
        split: The split.
        feature: The feature, or `None` if it is the split as a whole.
        what: What does not fit.
        setting: The key of `pipeline.checks` that allows more of it. Defaults to `None`.
        found: How much there is. Defaults to `None`.
        allowed: How much is allowed. Defaults to `None`.
    """

    split: str
    feature: str | None
    what: str
    setting: str | None = None
    found: float | None = None
    allowed: float | None = None

    def __str__(self) -> str:
        feature = "" if self.feature is None else f", feature {self.feature!r}"
        line = f"split {self.split!r}{feature}: {self.what}"
        if self.setting is None or self.found is None:
            return line
        enough = math.ceil(round(self.found * 1e4, 6)) / 1e4
        return (
            f"{line}; allowed is {self.allowed:.4g}, "
            f"`pipeline.checks.{self.setting}: {enough:g}` would allow it"
        )


@dataclasses.dataclass(frozen=True)
class Drift:
    """How far a feature of a split is from the training rows of stage 1.

    Args:
        split: The split.
        feature: The feature.
        measure: `"L-infinity distance"` or `"Jensen-Shannon divergence"`; another one that a
            curated schema asks for by its own name.
        value: The distance.
        threshold: The greatest one allowed.
    """

    split: str
    feature: str
    measure: str
    value: float
    threshold: float


@component
def DataValidator(  # noqa: N802 (TFX names the component after it)
    statistics: InputArtifact[ExampleStatistics],
    schema: InputArtifact[Schema],
    anomalies: OutputArtifact[ExampleAnomalies],
    features: Parameter[str],
    max_new_categories: Parameter[float],
    max_missing: Parameter[float],
    max_drift: Parameter[float],
    base_statistics: InputArtifact[ExampleStatistics] = None,
) -> None:
    """Compares every split with the schema, and with the training rows of stage 1.

    Columns that are no features (labels, weights, columns of slices) never stop a run: a new task
    is a new column.

    `RequireValidData` must come between this and what learns from the rows:

    ```python
    validator = DataValidator(
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        features=feature_kinds(config.features),
        max_new_categories=checks.max_new_categories,
        max_missing=checks.max_missing,
        max_drift=checks.max_drift,
    )
    require = RequireValidData(anomalies=validator.outputs["anomalies"])
    transform.add_upstream_node(require)
    ```

    Args:
        statistics: Statistics of the raw rows.
        schema: Their schema.
        anomalies: Out: for each split what the stock ExampleValidator writes; `anomalies.json`, a
            list of `Problem`, empty if the run may go on; `drift.json`, a list of `Drift`. The
            property `blessed` tells it by split.
        features: See `feature_kinds`.
        max_new_categories: See `ChecksConfig`; a share of a column's values.
        max_missing: See `ChecksConfig`.
        max_drift: See `ChecksConfig`.
        base_statistics: Statistics of the rows of stage 1. Defaults to `None`, no drift.
    """
    kinds = json.loads(features)
    curated = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema.uri))
    drift_limit = None if base_statistics is None else max_drift
    relaxed = relaxed_schema(curated, kinds, max_new_categories, max_missing, drift_limit)
    base = None if base_statistics is None else read_statistics(base_statistics, TRAIN)
    anomalies.split_names = statistics.split_names
    anomalies.span = statistics.span
    problems: list[Problem] = []
    drifts: list[Drift] = []
    blessed = {}
    for split in artifact_utils.decode_split_names(statistics.split_names):
        current = read_statistics(statistics, split)
        found = tfdv.validate_statistics(current, relaxed, previous_statistics=base)
        directory = artifact_utils.get_split_uri([anomalies], split)
        writer_utils.write_anomalies(f"{directory}/{DEFAULT_FILE_NAME}", found)
        drift = list(_drifts(split, found, kinds))
        stopping = list(_problems(split, found, current, relaxed, kinds, drift))
        blessed[split] = int(not stopping)
        problems += stopping
        drifts += drift
    _write_json(f"{anomalies.uri}/{ANOMALIES_FILE}", problems)
    _write_json(f"{anomalies.uri}/{DRIFT_FILE}", drifts)
    anomalies.set_json_value_custom_property(ARTIFACT_PROPERTY_BLESSED_KEY, blessed)


@component
def RequireValidData(  # noqa: N802
    anomalies: InputArtifact[ExampleAnomalies],
) -> None:
    """Stops the run if the data do not fit. What learns from them must have it upstream.

    It fails, so it is never taken from the cache: a run again on the same data stops again.

    Args:
        anomalies: What `DataValidator` wrote.

    Raises:
        PipelineError: If they do not; every problem is listed.
    """
    with fileio.open(f"{anomalies.uri}/{ANOMALIES_FILE}", "r") as file:
        problems = [Problem(**fields) for fields in json.load(file)]
    if problems:
        lines = "\n".join(f"- {problem}" for problem in problems)
        raise PipelineError(f"the data do not fit (anomalies in {anomalies.uri}):\n{lines}")


def relaxed_schema(
    schema: schema_pb2.Schema,
    kinds: Mapping[str, str],
    max_new_categories: float,
    max_missing: float,
    max_drift: float | None,
) -> schema_pb2.Schema:
    """A schema that allows what the settings allow. They only ever allow more than the schema does.

    Args:
        schema: The schema.
        kinds: Kind of each feature.
        max_new_categories: See `ChecksConfig`.
        max_missing: See `ChecksConfig`.
        max_drift: See `ChecksConfig`; `None` measures no drift.

    Returns:
        A changed copy.
    """
    relaxed = schema_pb2.Schema()
    relaxed.CopyFrom(schema)
    for feature in relaxed.feature:
        if feature.name not in kinds:
            continue
        if feature.WhichOneof("domain_info") in ("domain", "string_domain"):
            mass = feature.distribution_constraints
            mass.min_domain_mass = min(mass.min_domain_mass, _rest(max_new_categories))
        if feature.presence.min_fraction:
            feature.presence.min_fraction = min(feature.presence.min_fraction, _rest(max_missing))
        if max_drift is not None:
            comparator = feature.drift_comparator
            measure = (
                comparator.jensen_shannon_divergence
                if _measure(kinds[feature.name]) == JENSEN_SHANNON
                else comparator.infinity_norm
            )
            measure.threshold = max(measure.threshold, max_drift)
    return relaxed


def _rest(share: float) -> float:
    """`1 - share`, and a hair less: TFDV adds shares up, so that 80 of 100 rows are less than 0.8.

    Where nothing is allowed, it stays exactly 1.
    """
    return max(1 - share - 1e-9, 0) if share else 1.0


def _drifts(
    split: str, found: anomalies_pb2.Anomalies, kinds: Mapping[str, str]
) -> Iterable[Drift]:
    for info in found.drift_skew_info:
        (name,) = info.path.step
        if name in kinds:
            for measured in info.drift_measurements:
                measure = MEASURES.get(measured.type) or Measurement.Type.Name(measured.type)
                yield Drift(split, name, measure, measured.value, measured.threshold)


def _problems(
    split: str,
    found: anomalies_pb2.Anomalies,
    statistics: Statistics,
    schema: schema_pb2.Schema,
    kinds: Mapping[str, str],
    drifts: Iterable[Drift],
) -> Iterable[Problem]:
    if found.data_missing:
        yield Problem(split, None, "it has no rows")
        return
    for reason in found.dataset_anomaly_info.reason:
        yield Problem(split, None, reason.description.strip())
    columns = {feature.name: feature for feature in schema.feature}
    for name in kinds:
        if name not in columns:
            yield Problem(split, name, "the schema does not know it")
    reasons = {
        info.path.step[0]: info.reason for info in found.anomaly_info.values() if info.path.step
    }
    for name in kinds:
        for reason in reasons.get(name, ()) if name in columns else ():
            if reason.type == Reason.ENUM_TYPE_UNEXPECTED_STRING_VALUES:
                yield _new_categories(split, columns[name], statistics, schema)
            elif reason.type == Reason.FEATURE_TYPE_LOW_FRACTION_PRESENT:
                yield _missing(split, columns[name], statistics)
            elif reason.type in DRIFTED:
                if split == TRAIN:  # like with like: a small split is far from any other by chance
                    yield _drifted(split, name, kinds[name], reason, drifts)
            else:
                yield Problem(split, name, reason.description.strip())


def _drifted(
    split: str,
    feature: str,
    kind: str,
    reason: anomalies_pb2.AnomalyInfo.Reason,
    drifts: Iterable[Drift],
) -> Problem:
    what = f"it drifted from the rows of stage 1: {reason.description.strip()}"
    measure = MEASURES[DRIFTED[reason.type]]
    if measure != _measure(kind):  # a curated schema asks for it; no setting allows more
        return Problem(split, feature, what)
    (drift,) = (d for d in drifts if (d.feature, d.measure) == (feature, measure))
    return Problem(split, feature, what, "max_drift", drift.value, drift.threshold)


def _measure(kind: str) -> str:
    """The measure that `max_drift` limits."""
    return JENSEN_SHANNON if kind == "numeric" else L_INFTY


def _new_categories(
    split: str, feature: schema_pb2.Feature, statistics: Statistics, schema: schema_pb2.Schema
) -> Problem:
    counts = category_counts(statistics, feature.name)
    known = set(tfdv.get_domain(schema, feature.name).value)
    total = sum(counts.values())
    new = {category: count / total for category, count in counts.items() if category not in known}
    shown = [f"{category!r} ({share:.2%})" for category, share in new.items()][:SHOWN_CATEGORIES]
    more = f" and {len(new) - len(shown)} more" if len(new) > len(shown) else ""
    allowed = round(1 - feature.distribution_constraints.min_domain_mass, 6)
    what = f"categories that the schema does not know: {', '.join(shown)}{more}"
    return Problem(split, feature.name, what, "max_new_categories", sum(new.values()), allowed)


def _missing(split: str, feature: schema_pb2.Feature, statistics: Statistics) -> Problem:
    rows = statistics.datasets[0]
    (present,) = (
        (
            column.string_stats if column.HasField("string_stats") else column.num_stats
        ).common_stats.num_non_missing
        for column in rows.features
        if column.path.step == [feature.name]
    )
    share = 1 - present / rows.num_examples
    allowed = round(1 - feature.presence.min_fraction, 6)
    return Problem(
        split, feature.name, f"empty in {share:.2%} of the rows", "max_missing", share, allowed
    )


def _write_json(path: str, items: Iterable[Any]) -> None:
    text = json.dumps([dataclasses.asdict(item) for item in items], indent=2)
    io_utils.write_string_file(path, text)
