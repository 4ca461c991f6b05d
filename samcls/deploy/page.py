"""An evaluation as a page of text, as `samcls evaluate` prints it.

print(evaluation_page(load_evaluation("evaluation")))
"""

from collections.abc import Mapping
from typing import Any

from samcls.learn.runs.text import aligned, number, pair, printable
from samcls.learn.score.headline import of_task

__all__ = ["evaluation_page"]

SHOWN = {
    "auc": "AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity_at_threshold": "sensitivity, threshold",
    "specificity_at_threshold": "specificity, threshold",
    "brier": "Brier",
    "ece": "calibration error",
    "ece_scaled": "  at the run's temperature",
}


def evaluation_page(found: Mapping[str, Any]) -> str:
    """Return the page, a table for each task.

    Args:
        found: As `load_evaluation` gives it.
    """
    images = found["images"]
    lines = [
        f"{found['run']} on {found['store']}",
        f"{images['scored']} images scored, {images['failed']} failed, {images['unlabelled']} without a label",
    ]
    for task in found["difference"]:
        here, inside = (of_task(found[name], task) for name in ("figures", "inside"))
        lines += ["", f"task {task}", *_figures(here, inside, found["difference"][task])]
        if here.get("threshold") is not None:
            lines.append(
                f"threshold {here['threshold']:.3f}, fixed on the run's own validation images"
            )
        shares = ", ".join(
            f"{name} {one['here']:.3f} ({one['inside']:.3f}; predicted {one['predicted']:.3f})"
            for name, one in found["shares"][task].items()
        )
        lines.append(f"share of each class here (inside; predicted): {shares}")
        lines += _recalibrated(found["recalibrated"], task)
        for column, parts in found["subgroups"].items():
            lines += ["", *_subgroup(column, parts, task)]
    if found["drift"]:
        beyond, median = found["drift"]["beyond_95"], found["drift"]["median_percentile"]
        told = (
            f"drift: {100 * beyond:.1f} % of the images lie beyond the 95th percentile of training's distances "
            f"(by chance 5 %), the median one at the {median:.0f}th"
        )
        lines += ["", told]
    return "".join(
        f"{printable(line)}\n" for line in [*lines, *(f"note: {x}" for x in found["notes"])]
    )


def _figures(
    here: Mapping[str, Any], inside: Mapping[str, Any], difference: Mapping[str, Any]
) -> list[str]:
    rows = [["", "here", "95 % interval", "inside", "95 % interval", "difference", "95 % interval"]]
    for name, title in SHOWN.items():
        if here.get(name) is None and inside.get(name) is None:
            continue
        between = difference.get(name, {})
        value = between.get("difference")
        rows.append(
            [
                title,
                number(here.get(name)),
                pair(here.get(f"{name}_interval")),
                number(inside.get(name)),
                pair(inside.get(f"{name}_interval")),
                "-" if value is None else f"{value:+.3f}",
                pair(between.get("interval"), sign=True),
            ]
        )
    return aligned(rows)


def _recalibrated(found: Mapping[str, Any], task: str) -> list[str]:
    if not found:
        return []
    title = f"recalibrated on {found['fitted_on']} images ({found['part']}), the other {found['scored']}"
    rows = [[title, "before", "after"]]
    for name in ("sensitivity_at_threshold", "specificity_at_threshold", "ece_scaled", "threshold"):
        values = [of_task(found[when], task).get(name) for when in ("before", "after")]
        if any(value is not None for value in values):
            label = "calibration error" if name == "ece_scaled" else SHOWN.get(name, name)
            rows.append([label, *map(number, values)])
    return ["", *aligned(rows)]


def _subgroup(column: str, parts: Mapping[str, Any], task: str) -> list[str]:
    rows = [[column, "images", "AUC", "95 % interval", "sensitivity", "specificity"]]
    for name, table in parts.items():
        one = of_task(table, task)
        rows.append(
            [
                name,
                str(one["images"]),
                number(one.get("auc")),
                pair(one.get("auc_interval")),
                number(one.get("sensitivity_at_threshold")),
                number(one.get("specificity_at_threshold")),
            ]
        )
    return aligned(rows)
