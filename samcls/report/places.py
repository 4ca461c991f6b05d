"""Where a number stands: a file, and a JSON pointer in it.

pointer("metrics.json#/test", "tasks", "itch/pain")     # metrics.json#/test/tasks/itch~1pain
"""

from collections.abc import Mapping
from typing import Any

from samcls.learn.score.headline import of_task

__all__ = ["pointer", "table_of"]


def table_of(found: Mapping[str, Any], place: str, task: str) -> tuple[Mapping[str, Any], str]:
    """Return a task's table of figures, and its place; of one task the table itself.

    Args:
        found: As `scoring.score` gives it.
        place: Of `found`: `metrics.json#/test`.
        task: Name.
    """
    inside = task in found.get("tasks", {})
    return of_task(found, task), pointer(place, "tasks", task) if inside else place


def pointer(place: str, *parts: object) -> str:
    """Return a JSON pointer that goes on from a place: `metrics.json#/test` and `auc`."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return "/".join([place, *escaped])
