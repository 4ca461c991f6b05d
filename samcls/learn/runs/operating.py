"""What a run's validation images fixed for its answers: the temperature and the threshold of each task.

They follow from what the run said of them, which its predictions hold, so that runs of every version have
them. Of several seeds the mean is judged; of folds, each image by the runs that it validated.

    points = operating_points(load_runs("run"))
    points["diagnosis"].threshold
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from samcls.learn.runs.folder import Run
from samcls.learn.runs.predictions import Predictions, together
from samcls.learn.score.calibration import fit_temperature
from samcls.learn.score.operating import fit_threshold

__all__ = ["OperatingPoint", "mean_of", "mean_probabilities", "operating_points", "validation_of"]


@dataclass(frozen=True)
class OperatingPoint:
    """How probabilities of one task become answers.

    Attributes:
        temperature: That their logarithms are divided by to be calibrated.
        threshold: Of the last class's probability, not scaled; None of more than two classes, of which
            the most probable is answered.
    """

    temperature: float
    threshold: float | None


def operating_points(runs: Sequence[Run]) -> dict[str, OperatingPoint]:
    """Return what validation fixed for each task.

    Args:
        runs: One, or all seeds and folds of one config.
    """
    kept = {task: _kept(runs, task) for task in runs[0].tasks}
    if all(kept.values()):
        return {task: point for task, point in kept.items() if point is not None}
    said = validation_of(runs)
    points = {}
    for column, task in enumerate(runs[0].tasks):
        labels, probabilities = said.labels[:, column], said.probabilities[task]
        points[task] = OperatingPoint(
            fit_temperature(labels, probabilities), fit_threshold(labels, probabilities)
        )
    return points


def _kept(runs: Sequence[Run], task: str) -> OperatingPoint | None:
    """Return what a single run has written down; None of several, and of an earlier version's."""
    if len(runs) > 1:
        return None
    table = runs[0].validation
    table = table.get("tasks", {}).get(task, table)
    if "temperature" not in table or ("threshold" not in table and len(runs[0].tasks[task]) == 2):
        return None
    return OperatingPoint(table["temperature"], table.get("threshold"))


def validation_of(runs: Sequence[Run]) -> Predictions:
    """Return what runs say of their validation images: seeds averaged, folds one behind another."""
    by_fold: dict[int, list[Predictions]] = {}
    for run in runs:
        by_fold.setdefault(run.config.fold if run.config.folds else 0, []).append(run.said)
    return together([mean_of(parts) for parts in by_fold.values()])


def mean_of(parts: Sequence[Predictions]) -> Predictions:
    """Return the mean of what several runs say of the same images."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    probabilities = {
        task: mean_probabilities([part.probabilities[task] for part in parts])
        for task in first.probabilities
    }
    return Predictions(first.ids, first.labels, probabilities, first.groups)


def mean_probabilities(
    parts: Sequence[Float[np.ndarray, "image class"]],
) -> Float[np.ndarray, "image class"]:
    """Return the mean of what several runs say of one task; of one run what it says, bit for bit."""
    if len(parts) == 1:
        return parts[0]
    found: np.ndarray = np.stack(parts).astype(np.float64).mean(axis=0).astype(np.float32)
    return found
