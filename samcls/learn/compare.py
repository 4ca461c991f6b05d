"""Two runs on the same images: is one really better, or was it the draw?

Both are resampled with the same draws (paired bootstrap), and the AUCs of a binary task are also
compared after DeLong, DeLong and Clarke-Pearson (1988). 1,000 resamples of 156 images take 0.1 s.

    result = compare_runs(load_run("slca"), load_run("linear"))
    result["tasks"]["label"]["auc"]["difference_interval"]
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm, rankdata

from samcls.errors import InputError
from samcls.learn.figures import FIGURES, figures
from samcls.learn.metrics import labelled, resample
from samcls.learn.predictions import Predictions, read_predictions
from samcls.learn.runs import Run

__all__ = ["compare", "compare_runs", "delong"]

Scores = Float[np.ndarray, " image"]


def compare_runs(
    first: Run, second: Run, split: str = "test", resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare what two runs said of one split.

    Args:
        first: A finished run.
        second: Another, on the same images and labels.
        split: `val` or `test`.
        resamples: Number of paired resamples.
        seed: Of the draws.

    Returns:
        `runs`, `split`, `images`, and under `tasks` for each task what `compare` gives.

    Raises:
        InputError: where the runs differ in tasks, images or labels.
    """
    tasks = first.model.tasks
    if tasks != second.model.tasks:
        raise InputError(
            f"{first.path} learned {_named(tasks)} and {second.path} {_named(second.model.tasks)}; "
            "runs can be compared on the same tasks only"
        )
    said = [read_predictions(run.path / "predictions.csv", tasks, split) for run in (first, second)]
    a, b = said[0], _aligned(said[1], said[0].ids)
    if b is None or not np.array_equal(a.labels, b.labels):
        raise InputError(
            f"{first.path} and {second.path} were not scored on the same {split} images and labels "
            f"({len(said[0].ids)} and {len(said[1].ids)} images); compare runs of one store and fold"
        )
    return {
        "runs": [str(first.path), str(second.path)],
        "split": split,
        "images": len(a.ids),
        "tasks": {
            task: compare(
                a.labels[:, i], a.probabilities[task], b.probabilities[task], resamples, seed
            )
            for i, task in enumerate(tasks)
        },
    }


def compare(
    labels: Int[np.ndarray, " image"],
    first: Float[np.ndarray, "image class"],
    second: Float[np.ndarray, "image class"],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of two models on the same images, and their differences (first - second).

    The interval holds the middle 95 % of the differences over paired resamples; `p` is twice the
    smaller share of resamples on one side of 0, itself counted as one (a two-sided test).

    Args:
        labels: Class indices; images with -1 are left out.
        first: One model's probabilities.
        second: The other's.
        resamples: Number of resamples.
        seed: Of the draws.

    Returns:
        For each figure `first`, `second`, `difference`, `difference_interval` and `p`; and for two
        classes `delong`.
    """
    kept, y, a = labelled(labels, first)
    b = second[kept]
    pairs = [
        np.stack([figures(weights, y, a), figures(weights, y, b)])
        for weights in resample(len(y), resamples, seed)
    ]
    values = np.concatenate(pairs, axis=2)
    result: dict[str, Any] = {
        name: _difference(values[0, i], values[1, i]) for i, name in enumerate(FIGURES)
    }
    if a.shape[1] == 2 and 0 < int((y == 1).sum()) < len(y):
        result["delong"] = delong(y == 1, a[:, 1], b[:, 1])
    return result


def delong(positive: Bool[np.ndarray, " image"], first: Scores, second: Scores) -> dict[str, Any]:
    """DeLong's test of two correlated AUCs, by ranks (Sun and Xu 2014).

    Args:
        positive: Whether each image is of the positive class.
        first: One model's scores.
        second: The other's.

    Returns:
        `difference` of the AUCs, its `standard_error`, `difference_interval` (95 %, normal), `z`
        and two-sided `p`; z and p are None where the scores rank every pair alike.
    """
    parts = [_placements(positive, scores.astype(np.float64)) for scores in (first, second)]
    difference = float(parts[0][0].mean() - parts[1][0].mean())
    of_positives, of_negatives = (parts[0][side] - parts[1][side] for side in (0, 1))
    variance = _mean_variance(of_positives) + _mean_variance(of_negatives)
    error = math.sqrt(variance)
    z = difference / error if error > 0 else None
    margin = 1.959963984540054 * error
    return {
        "difference": difference,
        "standard_error": error,
        "difference_interval": [difference - margin, difference + margin],
        "z": z,
        "p": None if z is None else float(2 * norm.sf(abs(z))),
    }


def _placements(
    positive: Bool[np.ndarray, " image"], scores: Scores
) -> tuple[Float[np.ndarray, " positive"], Float[np.ndarray, " negative"]]:
    """For each positive the share of negatives below it; for each negative of positives above."""
    up, down = scores[positive], scores[~positive]
    ranks = rankdata(np.concatenate([up, down]))
    below = (ranks[: len(up)] - rankdata(up)) / len(down)
    above = 1 - (ranks[len(up) :] - rankdata(down)) / len(up)
    return below, above


def _mean_variance(values: Scores) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0


def _difference(
    first: Float[np.ndarray, " resample"], second: Float[np.ndarray, " resample"]
) -> dict[str, Any]:
    both = first - second
    drawn = both[1:][~np.isnan(both[1:])]
    share = min((drawn <= 0).sum(), (drawn >= 0).sum()) if len(drawn) else 0
    return {
        "first": _plain(first[0]),
        "second": _plain(second[0]),
        "difference": _plain(both[0]),
        "difference_interval": [float(end) for end in np.percentile(drawn, (2.5, 97.5))]
        if len(drawn)
        else None,
        "p": min(1.0, 2 * (float(share) + 1) / (len(drawn) + 1)) if len(drawn) else None,
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _aligned(said: Predictions, ids: tuple[str, ...]) -> Predictions | None:
    """The predictions in the order of the ids; None where they are of other images."""
    places = {one: i for i, one in enumerate(said.ids)}
    if set(places) != set(ids):
        return None
    order = [places[one] for one in ids]
    return Predictions(
        ids, said.labels[order], {task: p[order] for task, p in said.probabilities.items()}
    )


def _named(tasks: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{task} ({', '.join(classes)})" for task, classes in tasks.items())
