"""A run of both stages as one HTML page that needs no other file."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from mptrec_tf.evaluation.page import page_template
from mptrec_tf.spec.parsing import to_yaml

TEMPLATE = pathlib.Path(__file__).with_name("report.html")


def write_report(
    results: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    title: str = "MPT-Rec in two stages",
) -> None:
    """Writes the page: quality before and after stage 2, learning curves, weights in use, cost.

    Args:
        results: What `two_stage_results` returned.
        path: Where the page is written.
        title: Its title. Defaults to `"MPT-Rec in two stages"`.

    Raises:
        ImportError: If matplotlib or jinja2 is not installed.

    Example:

    ```python
    write_report(json.loads(pathlib.Path("results.json").read_text()), "report.html")
    ```
    """
    try:
        from mptrec_tf.evaluation import plots

        template = page_template(TEMPLATE)
    except ImportError as error:
        raise ImportError(
            f"the report needs {error.name}: pip install 'mptrec-tf[report]'"
        ) from error
    old, new = results["stage1"]["tasks"], results["stage2"]["task"]
    names = [*old, new]
    colors = {name: plots.COLORS[k % len(plots.COLORS)] for k, name in enumerate(names)}
    settings = dict(results["settings"])
    context = {
        "title": title,
        "results": results,
        "old": old,
        "new": new,
        "quality": _quality(results),
        "parts": [part for part in ("validation", "test") if part in results["stage2"]],
        "figures": {
            "stage1": _curves(plots, results["stage1"], old, _quality(results), colors),
            "stage2": _curves(plots, results["stage2"], [new], _quality(results), colors),
            "weights": _weights(plots, results, old, colors),
            "parameters": plots.share(
                "Parameters trained in stage 2",
                results["stage2"]["trainable_parameters"],
                results["stage2"]["total_parameters"],
                (f"trained for {new}", "frozen"),
            ),
        },
        "features": len(settings["features"]),
        "settings": to_yaml({k: v for k, v in settings.items() if k != "features"}),
        "feature_settings": to_yaml(settings["features"]),
    }
    page = template.render(context)
    pathlib.Path(path).write_text(page, encoding="utf-8")


def _quality(results: Mapping[str, Any]) -> dict[str, str]:
    """The metric that stands for each task: the first one that `evaluate` gives."""
    return {task: next(iter(m)) for task, m in results["stage2"]["validation"].items()}


def _curves(
    plots: Any,
    stage: Mapping[str, Any],
    tasks: list[str],
    quality: Mapping[str, str],
    colors: Mapping[str, str],
) -> list[str]:
    epochs, best = stage["epochs"], stage["best_epoch"]
    losses = [f"{task}_loss" for task in tasks]
    figures = [plots.curves("Loss of the tasks, summed", epochs, best, losses, plots.INK)]
    return figures + [
        plots.curves(
            f"{quality[task].upper()} of {task}",
            epochs,
            best,
            [f"{task}_{quality[task]}"],
            colors[task],
        )
        for task in tasks
    ]


def _weights(
    plots: Any, results: Mapping[str, Any], old: list[str], colors: Mapping[str, str]
) -> list[str]:
    figures = [
        plots.distributions(
            "Gates: specific or shared?",
            results["gate_weights"],
            colors,
            "weight of the specific representation (0: shared only)",
        )
    ]
    return figures + [
        plots.distributions(
            f"Prompt attention of {task}",
            histogram,
            colors,
            "attention to the task's expert (dashed: equal)",
            equal=1 / len(old),
        )
        for task, histogram in results["prompt_weights"].items()
    ]
