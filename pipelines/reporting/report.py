"""A run of a pipeline as one HTML page: what to look at before its version is promoted."""

import json
import math
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mptrec_tf.evaluation import plots
from mptrec_tf.evaluation.page import page_template
from mptrec_tf.spec.parsing import to_yaml
from pipelines.components.evaluation import MEAN_LABEL
from pipelines.components.example_gen import BAD_ROWS, BAD_ROWS_FILE, ROWS
from pipelines.components.schema import read_statistics
from pipelines.components.validation import ANOMALIES_FILE, DRIFT_FILE, Problem
from pipelines.examples import TEST, TRAIN, VALIDATION
from pipelines.layout import SERVING_DIRECTORY, TRAINING_FILE
from pipelines.metadata import FINISHED, Artifact, Execution, Run, Store
from pipelines.reporting.lineage import to_text, trace
from pipelines.reporting.lineage_plot import plot
from pipelines.reporting.metrics import MetricRow, metrics_of
from pipelines.reporting.report_features import feature_rows
from pipelines.reporting.report_plots import BAD, STATE_COLORS, Bar, bars, dots
from pipelines.reporting.verdict import gate_verdict, refusals

TEMPLATE = pathlib.Path(__file__).with_name("report.html")
TUNER_FILE = "tuner_results.json"
SPLITS = (TRAIN, VALIDATION, TEST)
FEWEST_DRIFTS, MOST_DRIFTS, FAR = 5, 25, 0.05


def write_report(
    store: Store,
    run_id: str,
    path: str | os.PathLike[str],
    *,
    cause: str | None = None,
    outcome_notes: Sequence[str] = (),
) -> None:
    """Writes the page of a run: verdict, metrics, old tasks, training, data and lineage.

    It reads ML Metadata and artifacts alone, so it can be written later too, and of a run that
    failed: then it shows what was made until then.

    Args:
        store: What ML Metadata knows.
        run_id: The run.
        path: Where the page is written; its directory is made if it is not there.
        cause: What stopped the run, which ML Metadata does not keep. Defaults to `None`.
        outcome_notes: What one should know before serving the version. Defaults to none.

    Raises:
        PipelineError: If there is no such run.

    Example:

    ```python
    store = Store(connection(config.pipeline, "runs"))
    write_report(store, store.runs()[-1].run_id, "report.html")
    ```
    """
    executions = store.executions_of_run(run_id)
    run = Run(run_id, executions[0].pipeline, executions)
    made = _Made(executions)
    rows = [] if (uri := made.uri("evaluation")) is None else metrics_of(uri)
    gate = made.uri("blessing", "FrozenTaskGate")
    context = {
        "run": run,
        "title": title,
        "tasks": _tasks(executions),
        "verdict": _verdict(run, made, cause),
        "notes": list(outcome_notes),
        "components": _components(run),
        "metrics": _metrics(rows),
        "gate": None if gate is None else gate_verdict(gate),
        "training": _training(made),
        "trials": _json(made.uri("tuner_results"), TUNER_FILE, []),
        "data": _data(made),
        "lineage": _lineage(store, made),
    }
    page = page_template(TEMPLATE).render(context)
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")


class _Made:
    """What the finished components of a run made."""

    def __init__(self, executions: Sequence[Execution]) -> None:
        self._executions = {e.component: e for e in executions if e.state in FINISHED}

    def execution(self, component: str) -> Execution | None:
        return self._executions.get(component)

    def artifact(self, key: str, component: str | None = None) -> Artifact | None:
        """The first one of a key, of any component or of this one."""
        for name, execution in self._executions.items():
            if component in (None, name) and execution.outputs.get(key):
                return execution.outputs[key][0]
        return None

    def uri(self, key: str, component: str | None = None) -> str | None:
        artifact = self.artifact(key, component)
        return None if artifact is None else artifact.uri


def _tasks(executions: Sequence[Execution]) -> list[str]:
    """The task that was added, or those of stage 1; as far as the run came."""
    for execution in executions:
        settings = execution.properties.get("custom_config")
        if execution.component == "Trainer" and isinstance(settings, dict):
            config = json.loads(settings["config"])
            return [settings["task"]] if settings["task"] else list(config["stage1"]["tasks"])
        if execution.component == "Encode":
            return [str(execution.properties["task"])]
        if execution.component == "Transform" and isinstance(settings, dict):
            return list(settings["tasks"])
    for execution in executions:
        if execution.component == "Ingest":
            spec = json.loads(execution.properties["custom_config"]["custom_config"]["value"])
            names = [task["name"] for task in spec["spec"]["tasks"]]
            stage2 = any("base_statistics" in e.inputs for e in executions)
            return names[-1:] if stage2 else names
    return []


def _verdict(run: Run, made: _Made, cause: str | None) -> dict[str, Any]:
    """In words: the headline, whether it is good, and the reasons."""
    stopped = [e for e in run.executions if e.state not in FINISHED]
    if stopped:
        problems = _problems(made) if stopped[0].component == "RequireValidData" else []
        if problems:
            reason = f"the data do not fit: {len(problems)} problems, listed below"
        else:
            reason = cause or "the cause is in the log of the run"
        words = {"failed": "Failed in", "canceled": "Canceled in"}.get(run.state, "Cut off in")
        return {"good": False, "text": f"{words} {stopped[0].component}", "reasons": [reason]}
    pushed, pusher = made.artifact("pushed_model"), made.execution("Pusher")
    if pushed is None or pusher is None:
        return {"good": False, "text": "Cut off before the push", "reasons": []}
    if pushed.properties.get("pushed") == 1:
        reasons = [f"served from {pushed.properties['pushed_destination']}"]
        if pusher.state == "cached":
            reasons.append("by an earlier run: nothing has changed since then")
        version = pushed.properties["pushed_version"]
        return {"good": True, "text": f"Pushed as version {version}", "reasons": reasons}
    evaluation = made.uri("evaluation")
    reasons = refusals(evaluation, made.uri("blessing", "FrozenTaskGate")) if evaluation else []
    return {"good": False, "text": "Not pushed", "reasons": reasons}


def _components(run: Run) -> str:
    """How long each component took, as a plot; imports take no time and are left out."""
    shown = [e for e in run.executions if "result" not in e.outputs]
    return bars(
        [
            Bar(
                e.component,
                e.seconds or 0.0,
                f"{e.state}, {e.seconds:.1f} s" if e.seconds is not None else e.state,
                STATE_COLORS.get(e.state, BAD),
            )
            for e in shown
        ],
        "seconds",
    )


def _metrics(rows: Sequence[MetricRow]) -> list[dict[str, Any]]:
    """By task: rows of the table, and a plot of each metric over the slices."""
    tasks = []
    for number, task in enumerate(dict.fromkeys(row.task for row in rows)):
        everything = [row for row in rows if row.task == task]
        positive = {row.slice: row.value for row in everything if row.metric == MEAN_LABEL}
        ours = [row for row in everything if row.metric != MEAN_LABEL]
        color = plots.COLORS[number % len(plots.COLORS)]
        by_metric = {row.metric: [r for r in ours if r.metric == row.metric] for row in ours}
        figures = [
            dots(f"{title(metric)} of {task}", some, color)
            for metric, some in by_metric.items()
            if len(some) > 1
        ]
        slices = {row.slice: [r for r in ours if r.slice == row.slice] for row in ours}
        tasks.append({"name": task, "slices": slices, "positive": positive, "figures": figures})
    return tasks


def title(metric: str) -> str:
    """A metric's name for reading."""
    return metric.upper() if len(metric) == 3 else metric.replace("_", " ")


def _training(made: _Made) -> dict[str, Any] | None:
    uri = made.uri("model", "Trainer")
    found = (
        None if uri is None else _json(os.path.join(uri, SERVING_DIRECTORY), TRAINING_FILE, None)
    )
    if found is None:
        return None
    best = found["best_epoch"]
    epochs = [
        {name: math.nan if value is None else value for name, value in epoch.items()}
        for epoch in found["epochs"]
    ]
    metrics = sorted((n for n in epochs[0] if f"val_{n}" in epochs[0]), key=_task_metrics_last)
    # Loss and mean of a single task are its own: they are shown once, under its name.
    distinct = {tuple(epoch[f"val_{name}"] for epoch in epochs): name for name in metrics}
    figures = [
        plots.curves(
            name.replace("_auc", " AUC").replace("_", " "),
            epochs,
            best,
            [name],
            plots.COLORS[i % 6],
        )
        for i, name in enumerate(sorted(distinct.values()))
    ]
    trained, total = found["trained_parameters"], found["parameters"]
    share = plots.share("Parameters", trained, total, ("trained", "not trained"))
    return {
        "epochs": len(epochs),
        "best": best + 1,
        "figures": figures,
        "share": share,
        "settings": to_yaml(found["settings"]),
    }


def _task_metrics_last(name: str) -> tuple[bool, str]:
    return name != "loss" and not name.startswith("mean_"), name


def _data(made: _Made) -> dict[str, Any]:
    examples, statistics = made.artifact("examples", "Ingest"), made.artifact("statistics")
    validator = made.execution("DataValidator")
    properties = {} if examples is None else examples.properties
    rows = [
        (split, properties[ROWS + split], properties.get(BAD_ROWS + split, 0))
        for split in SPLITS
        if ROWS + split in properties
    ]
    features = []
    if statistics is not None and validator is not None:
        kinds = validator.properties["features"]
        train, test = (read_statistics(statistics, split) for split in (TRAIN, TEST))
        features = feature_rows(train, test, kinds)
    return {
        "rows": rows,
        "bad": _json(None if examples is None else examples.uri, BAD_ROWS_FILE, []),
        "features": features,
        "checked": validator is not None,
        "problems": _problems(made),
        "drift": _drift(made),
    }


def _problems(made: _Made) -> list[Problem]:
    return [Problem(**p) for p in _json(made.uri("anomalies"), ANOMALIES_FILE, [])]


def _drift(made: _Made) -> str | None:
    """The features that drifted most, in the training rows: those are held to the threshold."""
    found = [d for d in _json(made.uri("anomalies"), DRIFT_FILE, []) if d["split"] == TRAIN]
    if not found:
        return None
    found.sort(key=lambda drift: -drift["value"])
    far = [drift for drift in found if drift["value"] > FAR * drift["threshold"]]
    shown = far[:MOST_DRIFTS] if len(far) > FEWEST_DRIFTS else found[:FEWEST_DRIFTS]
    return bars(
        [
            Bar(
                drift["feature"],
                drift["value"],
                f"{drift['value']:.3f}",
                BAD if drift["value"] > drift["threshold"] else plots.COLORS[0],
            )
            for drift in shown
        ],
        "L-infinity distance of categories, Jensen-Shannon divergence of numbers",
        limit=max(drift["threshold"] for drift in found),
    )


def _lineage(store: Store, made: _Made) -> dict[str, str] | None:
    """As a picture and as text, of the model; before there is one, of the examples."""
    root = made.artifact("model", "Trainer") or made.artifact("examples", "Ingest")
    if root is None:
        return None
    lineage = trace(store, root)
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "lineage.svg")
        plot(lineage, file)
        picture = plots.inline(file.read_text(encoding="utf-8"))
    return {"text": to_text(lineage), "picture": picture}


def _json(uri: str | None, name: str, default: Any) -> Any:
    """A JSON file of an artifact, or the default where there is none."""
    if uri is None or not tf.io.gfile.exists(os.path.join(uri, name)):
        return default
    with tf.io.gfile.GFile(os.path.join(uri, name), "r") as file:
        return json.loads(file.read())
