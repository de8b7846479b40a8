"""The report of a run, after real runs of both stages on synthetic rows."""

import html.parser
import json
import pathlib
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from mptrec_tf.config import Config
from mptrec_tf.errors import PipelineError
from mptrec_tf.spec.parsing import parse
from pipelines import runs
from pipelines.metadata import Store, connection
from pipelines.reporting.metrics import Z, auc_interval, metrics_of, proportion_interval
from pipelines.reporting.report import write_report
from pipelines.reporting.report_plots import Bar, bars

ROWS = {"train": 600, "validation": 200, "test": 400}
HOSTILE = "<script>alert(1)</script>"


def write_rows(directory, seed=0, **columns):
    """Synthetic rows: `rich` follows age and work, `young` follows age, `b & b` is a coin."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, (split, rows) in enumerate(ROWS.items()):
        random = np.random.default_rng([seed, number])
        age = random.uniform(20, 60, rows)
        work = random.choice(["office", "farm", HOSTILE], rows)
        chance = 1 / (1 + np.exp(-(age - 45) / 6 - (work == "office")))
        table = {
            "age": age,
            "<script>": work,
            "rich": (random.uniform(size=rows) < chance).astype(int),
            "young": (age + random.normal(0, 5, rows) < 35).astype(int),
            "tall": (random.uniform(size=rows) < 0.3 + 0.4 * (work == "farm")).astype(int),
            "importance": random.uniform(0.5, 2, rows),
        }
        table |= {name: np.full(rows, value) for name, value in columns.items()}
        pa.parquet.write_table(pa.table(table), directory / f"{split}.parquet")


def config(rows, **pipeline):
    training = {"epochs": 2, "batch_size": 200}
    return parse(
        Config,
        {
            "features": [
                {"name": "age", "kind": "numeric"},
                {"name": "<script>", "kind": "categorical"},
            ],
            "tasks": [
                {"name": "rich", "label": "rich"},
                {"name": "young", "label": "young", "weight": "importance"},
                {"name": "tall", "label": "tall"},
            ],
            "data": {split: str(rows / f"{split}.parquet") for split in ROWS},
            "stage1": {"tasks": ["rich", "young"], "training": training},
            "stage2": {"training": training},
            "pipeline": {
                "name": "people",
                "slices": ["<script>"],
                "thresholds": [{"task": "rich", "min": 0.01, "worse_by": 0.5, "slices": True}],
            }
            | pipeline,
        },
        "config",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Outcomes of both stages, and their directory."""
    directory = tmp_path_factory.mktemp("finished")
    write_rows(directory / "rows")
    settings = config(directory / "rows")
    output = directory / "out"
    first = runs.run_pretrain(settings, output, progress=False)
    return first, runs.run_prompt_tune(settings, "tall", output, progress=False), output


class Page(html.parser.HTMLParser):
    """What is on a page: its texts, its tags, and whether every element is closed in order."""

    OPEN = frozenset(["meta", "br", "tr", "td", "th", "li", "rect", "path", "use"])

    def __init__(self, file):
        super().__init__()
        self.source = pathlib.Path(file).read_text(encoding="utf-8")
        self.texts, self.tags, self.links, self._stack = [], [], [], []
        self.feed(self.source)
        self.close()
        assert self._stack == []
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("href", "src", "xlink:href", "action")]
        if tag not in self.OPEN:
            self._stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("href", "src", "xlink:href", "action")]

    def handle_endtag(self, tag):
        if tag not in self.OPEN:
            assert self._stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize(("number", "tasks"), [(0, ["rich", "young"]), (1, ["tall"])])
def test_the_page_tells_verdict_tasks_and_slices(finished, number, tasks):
    outcome = finished[number]
    page = Page(outcome.report)
    assert f"Pushed as version {outcome.version}" in page.text
    assert outcome.result.run_id in page.text
    for task in tasks:
        assert f"AUC of {task}" in page.text
    for where in ("all rows", "<script> = office", "<script> = farm", f"<script> = {HOSTILE}"):
        assert where in page.text
    for component in outcome.result.executions:
        assert component.startswith("Base") or component in page.text
    assert "600 0" in page.text  # training rows, none left out
    assert "No anomalies" in page.text
    assert "not kept" not in page.text
    assert "kept : at least 0.01" in page.text


def test_the_page_needs_nothing_else_and_runs_nothing(finished):
    for outcome in finished[:2]:
        page = Page(outcome.report)
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert all(link.startswith("#") for link in page.links)
        assert not re.search(r"https?://|@import|url\((?!#)", page.source)


def test_stage_2_shows_the_gate(finished):
    gate = finished[1].result.executions["FrozenTaskGate"].outputs["blessing"][0].uri
    told = json.loads(pathlib.Path(gate, "gate.json").read_text())
    text = Page(finished[1].report).text
    assert told["verdict"] in text
    for task in ("rich", "young"):
        assert f"{task} 400 0 0 the same, byte for byte" in text
    assert "Drift of the training rows" in text
    assert "Older tasks" not in Page(finished[0].report).text


def test_metrics_are_rows_with_intervals_where_they_are_honest(finished):
    rows = {
        (r.task, r.slice, r.metric): r
        for r in metrics_of(finished[1].result.executions["Evaluator"].outputs["evaluation"][0].uri)
    }
    auc = rows["rich", "all rows", "auc"]
    share = rows["rich", "all rows", "mean_label"].value
    assert auc.rows == 400
    assert auc.interval == pytest.approx(auc_interval(auc.value, 400 * share, 400 * (1 - share)))
    assert auc.baseline is None
    assert (auc.demanded, auc.kept) == (
        "at least 0.01",
        True,
    )
    assert rows["rich", "all rows", "log_loss"].interval is None
    low, high = rows["rich", "all rows", "calibration"].interval
    assert low < rows["rich", "all rows", "calibration"].value < high
    weighted = [row for row in rows.values() if row.task == "young"]
    assert weighted and all(row.interval is None for row in weighted)


def test_a_refused_model_is_told_with_the_threshold_and_the_model_before(finished):
    first, _, output = finished
    demand = {"task": "rich", "min": 0.999, "worse_by": 0.5}
    settings = config(output.parent / "rows", thresholds=[demand])
    outcome = runs.run_pretrain(settings, output, progress=False)
    assert outcome.version is None
    text = Page(outcome.report).text
    assert "Not pushed" in text
    assert outcome.reasons[0] in text
    assert outcome.notes[0] in text
    asked = "at least 0.999 and not worse by more than 0.5 than the last one"
    assert f"not kept : {asked}" in text
    uris = [o.result.executions["Evaluator"].outputs["evaluation"][0].uri for o in (first, outcome)]
    before, after = ({row[:3]: row for row in metrics_of(uri)} for uri in uris)
    row = after["rich", "all rows", "auc"]
    assert row.baseline == pytest.approx(before["rich", "all rows", "auc"].value)
    assert (row.demanded, row.kept) == (asked, False)


def test_a_run_that_stops_shows_every_anomaly(finished):
    first, _, output = finished
    write_rows(output.parent / "drifted", seed=1, age=59.0, **{"<script>": "moon <b>"})
    settings = config(output.parent / "drifted")
    with pytest.raises(PipelineError, match="the data do not fit"):
        runs.run_prompt_tune(settings, "tall", output, base=str(first.version), progress=False)
    store = Store(connection(settings.pipeline, output))
    run = store.runs()[-1]
    (anomalies,) = [e for e in run.executions if e.component == "DataValidator"]
    file = pathlib.Path(anomalies.outputs["anomalies"][0].uri, "anomalies.json")
    problems = json.loads(file.read_text())
    assert len(problems) > 3
    (report,) = (output / "reports").glob(f"people-tall-{run.run_id.replace(':', '')}.html")
    page = Page(report)
    assert "Failed in RequireValidData" in page.text
    assert f"the data do not fit: {len(problems)} problems" in page.text
    assert "Task tall" in page.text
    for problem in problems:
        assert re.sub(r"\s+", " ", problem["what"]) in page.text
    assert "moon <b>" in page.text  # as a text, not as a tag
    assert "Metrics on the test rows" not in page.text


def test_a_report_can_be_written_later(finished, tmp_path):
    first, _, output = finished
    store = Store(connection(config(output.parent / "rows").pipeline, output))
    write_report(
        store, first.result.run_id, tmp_path / "new" / "page.html", outcome_notes=["mind < the gap"]
    )
    page = Page(tmp_path / "new" / "page.html")
    assert "mind < the gap" in page.text
    with pytest.raises(PipelineError, match="no run 'never'"):
        write_report(store, "never", tmp_path / "page.html")


def test_the_interval_of_an_auc_by_hand():
    # A = 0.8, 10 positives, 20 negatives: Q1 = 0.8 / 1.2, Q2 = 1.28 / 1.8.
    variance = (0.16 + 9 * (2 / 3 - 0.64) + 19 * (1.28 / 1.8 - 0.64)) / 200
    half = 1.959963984540054 * variance**0.5
    assert pytest.approx(1.959963984540054) == Z
    assert auc_interval(0.8, 10, 20) == pytest.approx((0.8 - half, min(0.8 + half, 1)))
    assert auc_interval(0.8, 0, 20) is None
    assert auc_interval(1.0, 10, 20) is None


@pytest.mark.parametrize(("rows", "positive", "distance"), [(800, 0.3, 1.0), (2000, 0.06, 1.5)])
def test_the_interval_of_an_auc_is_little_wider_than_that_of_a_bootstrap(rows, positive, distance):
    random = np.random.default_rng(0)
    label = random.uniform(size=rows) < positive
    score = random.normal(label * distance, 1.0)
    low, high = auc_interval(roc_auc_score(label, score), label.sum(), (~label).sum())
    draws = random.integers(0, rows, (500, rows))
    aucs = [roc_auc_score(label[draw], score[draw]) for draw in draws]
    bottom, top = np.quantile(aucs, [0.025, 0.975])
    assert low < bottom < top < high
    assert high - low < 1.3 * (top - bottom)


@pytest.mark.parametrize(("hits", "rows"), [(8, 10), (0, 10), (10, 10), (137, 2000)])
def test_the_interval_of_a_share_is_that_of_scipy(hits, rows):
    expected = binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    assert proportion_interval(hits / rows, rows) == pytest.approx(tuple(expected), abs=1e-12)
    assert proportion_interval(0.5, 0) is None


def test_dollar_signs_in_names_are_drawn_as_they_are():
    svg = bars([Bar("US$ to A$", 1.0, "5 $", "C0")], "$ a click")
    assert {"US$ to A$", "5 $", "$ a click"} <= set(re.findall(r">([^<>]*\$[^<>]*)<", svg))
