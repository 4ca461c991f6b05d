"""Figures by the manifest's columns: for each text of a column the images that have it.

found = subgroups(texts, said, score)
found["sex"]["f"]["auc"], found["sex"]["f"]["images"]
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int

from samcls.learn.runs.predictions import Predictions

__all__ = ["parts_of", "picked", "subgroups"]

MOST = 12  # texts of a column that names images rather than describing them
QUARTERS = (0.25, 0.5, 0.75)
MISSING = "missing"


def subgroups(
    texts: Mapping[str, Sequence[str]],
    said: Predictions,
    score: Callable[[Predictions], Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return each column's figures; numbers of many values are divided into quarters.

    Args:
        texts: Each column's, for the same images.
        said: What was said of them.
        score: Gives the figures of some of them.
    """
    found = {}
    for name, values in texts.items():
        parts = parts_of([value.strip() for value in values])
        if len(set(parts)) < 2:
            continue
        found[name] = {
            part: dict(score(picked(said, np.flatnonzero(np.array(parts) == part))))
            for part in sorted(set(parts), key=parts.index)
        }
    return found


def picked(said: Predictions, rows: Int[np.ndarray, " image"]) -> Predictions:
    """Return what was said of some of the images.

    Args:
        said: Of all.
        rows: Which.
    """
    return Predictions(
        tuple(said.ids[row] for row in rows.tolist()),
        said.labels[rows],
        {task: values[rows] for task, values in said.probabilities.items()},
        tuple(said.groups[row] for row in rows.tolist()),
    )


def parts_of(values: Sequence[str]) -> list[str]:
    """Return the part that each image falls in; one part alone where the column describes nothing.

    Args:
        values: A column's texts; numbers of many values are divided into quarters.
    """
    counts = Counter(values)
    if len(counts) <= MOST:
        return [value or MISSING for value in values]
    numbers = [_number(value) for value in values]
    known = np.array([number for number in numbers if number is not None])
    if len(known) < len([value for value in values if value]):
        return [""] * len(values)
    edges = np.unique(np.quantile(known, QUARTERS))
    ends = [float(known.min()), *edges.tolist(), float(known.max())]
    names = [f"{low:g} to {high:g}" for low, high in pairwise(ends)]
    return [
        MISSING
        if number is None
        else names[min(int(np.searchsorted(edges, number, side="left")), len(names) - 1)]
        for number in numbers
    ]


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
