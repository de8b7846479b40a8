"""Results as text tables for a terminal."""

from collections.abc import Mapping
from typing import Any


def results_table(results: Mapping[str, Any]) -> str:
    """The AUC of each task before and after stage 2, and what stage 2 trained.

    Args:
        results: What `two_stage_results` returned, of binary tasks, with test rows.

    Example:

    ```python
    results = two_stage_results(config, sources, "runs/census", stage1, stage2, seed=0)
    print(results_table(results))
    ```
    """
    stage1, stage2, check = results["stage1"], results["stage2"], results["old_tasks"]
    lines = [
        f"{'AUC':12}{'validation':>20}{'test':>20}",
        f"{'':12}" + 2 * f"{'before':>10}{'after':>10}",
    ]
    for task in stage2["test"]:
        line = f"{task:12}"
        for part in ("validation", "test"):
            before = f"{stage1[part][task]['auc']:.4f}" if task in stage1[part] else "-"
            line += f"{before:>10}{stage2[part][task]['auc']:10.4f}"
        if task in stage1["tasks"]:
            differing = check["differing_rows"][task]
            line += f"  {differing:,} rows differ" if differing else "  identical, bit for bit"
        lines.append(line)
    trained, total = stage2["trainable_parameters"], stage2["total_parameters"]
    same = check["weights_before"] == check["weights_after"]
    lines += [
        "",
        f"old tasks compared on {check['rows']:,} rows; frozen weights "
        f"{'unchanged' if same else 'CHANGED'} (SHA-256 {check['weights_after'][:16]}...)",
        f"trained in stage 2: {trained:,} of {total:,} parameters ({trained / total:.1%})",
        f"seconds of training: {results['seconds']['stage1']:.0f} and "
        f"{results['seconds']['stage2']:.0f}",
    ]
    return "\n".join(lines)
