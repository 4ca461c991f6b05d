"""The few figures that a run is known by, in a line: `AUC 0.808 (0.655 to 0.903), accuracy 0.741`."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["headline", "headlines", "of_task"]

SHOWN = {"auc": "AUC", "accuracy": "accuracy"}


def headline(table: Mapping[str, Any]) -> str:
    """AUC and accuracy of a table of figures, with the intervals that it has."""
    return ", ".join(f"{title} {_figure(table, name)}" for name, title in SHOWN.items())


def headlines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Return a line for each split that was scored, and for each baseline on the test split."""
    for split in ("validation", "test"):
        if split in metrics:
            yield f"{split}: {headline(metrics[split])}"
    for name, table in metrics.get("baselines", {}).items():
        if "test" in table:
            yield f"baseline {name}, test: {headline(table['test'])}"


def _figure(table: Mapping[str, Any], name: str) -> str:
    value, around = table.get(name), table.get(f"{name}_interval")
    if value is None:
        return "not defined"
    return f"{value:.3f}" + (f" ({around[0]:.3f} to {around[1]:.3f})" if around else "")


def of_task(table: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    """Return one task's table of figures; of a run of one task the table itself.

    Args:
        table: As `scoring.score` gives it.
        task: Of the run's.
    """
    found: Mapping[str, Any] = table.get("tasks", {}).get(task, table)
    return found
