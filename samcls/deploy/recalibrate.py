"""Temperature and threshold fitted anew on a part of another data set, and what that does to the rest.

It is no part of an external validation, which fits nothing: its row is named apart. Rankings do not change.

    found = recalibrated("0.2", predictor, said, splits)
    found["before"]["ece_scaled"], found["after"]["ece_scaled"]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from samcls.deploy.predictor import Predictor
from samcls.deploy.subgroups import picked
from samcls.errors import InputError
from samcls.learn.features.folds import hold_out, unit_names
from samcls.learn.runs.operating import OperatingPoint
from samcls.learn.runs.predictions import Predictions
from samcls.learn.score.calibration import fit_temperature
from samcls.learn.score.operating import fit_threshold
from samcls.learn.score.scoring import majority_class, score

__all__ = ["recalibrated"]

PARTS = 1000


def recalibrated(
    part: str, predictor: Predictor, said: Predictions, splits: Sequence[str]
) -> dict[str, Any]:
    """Return what was fitted on a part, and figures of the other images with the run's own and with that.

    Args:
        part: A share such as `0.2`, groups whole, or a split.
        predictor: The run.
        said: What it said of the data set's images.
        splits: Of the same images.

    Raises:
        InputError: there is no such part, or it leaves nothing.
    """
    chosen = _chosen(part, said, splits)
    fitted_on = picked(said, np.flatnonzero(chosen))
    rest = picked(said, np.flatnonzero(~chosen))
    tasks = predictor.tasks
    new = {
        task: OperatingPoint(
            fit_temperature(fitted_on.labels[:, i], fitted_on.probabilities[task]),
            fit_threshold(fitted_on.labels[:, i], fitted_on.probabilities[task]),
        )
        for i, task in enumerate(tasks)
    }
    majority = {
        task: majority_class(fitted_on.labels[:, i], len(names))
        for i, (task, names) in enumerate(tasks.items())
    }

    def table(points: dict[str, OperatingPoint]) -> dict[str, Any]:
        temperatures = {task: point.temperature for task, point in points.items()}
        thresholds = {task: point.threshold for task, point in points.items()}
        given = rest.labels, rest.probabilities, tasks, majority, PARTS, rest.groups
        return score(*given, temperatures, thresholds)

    return {
        "part": part,
        "fitted_on": len(fitted_on.ids),
        "scored": len(rest.ids),
        "before": table(predictor.points),
        "after": table(new),
    }


def _chosen(part: str, said: Predictions, splits: Sequence[str]) -> Bool[np.ndarray, " image"]:
    """Return which images are fitted on."""
    if part in splits:
        chosen = np.array([split == part for split in splits])
    else:
        try:
            share = float(part)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            raise InputError(
                f"recalibrate is {part!r}; expected a share between 0 and 1, such as 0.2, or one of the splits "
                f"{', '.join(dict.fromkeys(splits))}"
            )
        names = unit_names(said.groups, np.arange(len(said.ids)))
        held = hold_out(said.labels[:, 0], names, share, seed=0)
        if held is None:
            raise InputError(
                f"no part of about {part} of the {len(said.ids)} images leaves every class to be scored; name "
                "another share, or leave --recalibrate out"
            )
        chosen = held
    if chosen.all():
        raise InputError(
            f"recalibrate is {part}, which is every image; nothing is left to be scored"
        )
    return chosen
