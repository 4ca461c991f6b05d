"""Two runs on the same images: is one really better, or was it the draw?

Both are resampled with the same draws (paired bootstrap), and the AUCs of a binary task are also
compared after DeLong, DeLong and Clarke-Pearson (1988). Of several seeds the means are compared, and
seed by seed. 1,000 resamples of 156 images take 0.1 s.

    result = compare_runs(load_run("slca"), load_run("linear"))
    result["tasks"]["label"]["auc"]["difference_interval"]
    compare_seeds(load_runs("slca-seeds"), load_runs("linear-seeds"))
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm, rankdata, ttest_1samp

from samcls.errors import InputError
from samcls.learn.figures import FIGURES, figures, mean_defined
from samcls.learn.metrics import labelled, resample
from samcls.learn.predictions import Predictions, read_predictions
from samcls.learn.runs import Run

__all__ = ["compare", "compare_means", "compare_runs", "compare_seeds", "delong"]

ALIKE = 1e-9  # differences of figures nearer to each other differ by rounding alone

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
    a, b = _said([first, second], split)
    return {
        "runs": [str(first.path), str(second.path)],
        "split": split,
        "images": len(a.ids),
        "tasks": {
            task: compare(
                a.labels[:, i], a.probabilities[task], b.probabilities[task], resamples, seed
            )
            for i, task in enumerate(first.tasks)
        },
    }


def compare_seeds(
    first: Sequence[Run],
    second: Sequence[Run],
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare what two configs' runs of the same seeds said of one split, on average.

    Args:
        first: Finished runs of one config, one a seed.
        second: Of another, with the same seeds, on the same images and labels.
        split: `val` or `test`.
        resamples: Number of paired resamples.
        seed: Of the draws.

    Returns:
        As `compare_runs`, with `seeds`; under `tasks` for each task what `compare_means` gives.

    Raises:
        InputError: where the runs differ in seeds, tasks, images or labels.
    """
    arms = [{run.config.seed: run for run in runs} for runs in (first, second)]
    seeds = sorted(arms[0])
    if sorted(arms[1]) != seeds or {len(first), len(second)} != {len(seeds)}:
        told = [", ".join(str(run.config.seed) for run in runs) for runs in (first, second)]
        raise InputError(
            f"got runs of the seeds {told[0]} and of {told[1]}; expected the same ones on both "
            "sides, one run each and no folds. Train both with the same --seed and --seeds"
        )
    runs = [arm[number] for arm in arms for number in seeds]
    said = _said(runs, split)
    half = len(seeds)
    return {
        "runs": [str(arm[seeds[0]].path.parent) for arm in arms],
        "split": split,
        "images": len(said[0].ids),
        "seeds": seeds,
        "tasks": {
            task: compare_means(
                said[0].labels[:, i],
                [one.probabilities[task] for one in said[:half]],
                [one.probabilities[task] for one in said[half:]],
                resamples,
                seed,
            )
            for i, task in enumerate(runs[0].tasks)
        },
    }


def _said(runs: Sequence[Run], split: str) -> list[Predictions]:
    """What each run said of a split's images, in one order."""
    first, tasks = runs[0], runs[0].tasks
    found: list[Predictions] = []
    for run in runs:
        if run.tasks != tasks:
            raise InputError(
                f"{first.path} learned {_named(tasks)} and {run.path} {_named(run.tasks)}; "
                "runs can be compared on the same tasks only"
            )
        said = read_predictions(run.path / "predictions.csv", tasks, split)
        same = _aligned(said, found[0].ids if found else said.ids)
        if same is None or (found and not np.array_equal(found[0].labels, same.labels)):
            raise InputError(
                f"{first.path} and {run.path} were not scored on the same {split} images and labels "
                f"({len(found[0].ids)} and {len(said.ids)} images); compare runs of one store and fold"
            )
        found.append(same)
    return found


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
    values = _resampled(y, [a, b], resamples, seed)
    result: dict[str, Any] = {
        name: _difference(values[0, i], values[1, i]) for i, name in enumerate(FIGURES)
    }
    if a.shape[1] == 2 and 0 < int((y == 1).sum()) < len(y):
        result["delong"] = delong(y == 1, a[:, 1], b[:, 1])
    return result


def compare_means(
    labels: Int[np.ndarray, " image"],
    first: Sequence[Float[np.ndarray, "image class"]],
    second: Sequence[Float[np.ndarray, "image class"]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean figures of two groups of models on the same images, and their differences.

    Images are drawn with replacement, the same for all models, and the means are taken in each
    resample: `difference_interval` and `p` say what other images would change, with these models as
    they are. What other seeds would change, the differences seed by seed say.

    Args:
        labels: As for `compare`.
        first: Probabilities of one config's models, one a seed.
        second: The other's, as many and in the same order of seeds.
        resamples: Number of resamples.
        seed: Of the draws.

    Returns:
        For each figure, of the means, what `compare` gives; `by_seed`, the difference at each seed;
        and `seeds_p` of a paired two-sided t-test over seeds, None of fewer than two seeds or where
        the differences are all alike.
    """
    kept, y, _ = labelled(labels, first[0])
    values = _resampled(y, [one[kept] for one in (*first, *second)], resamples, seed)
    arms = values[: len(first)], values[len(first) :]
    means = [mean_defined(arm) for arm in arms]
    return {
        name: {
            **_difference(means[0][i], means[1][i]),
            **_over_seeds(arms[0][:, i, 0] - arms[1][:, i, 0]),
        }
        for i, name in enumerate(FIGURES)
    }


def _resampled(
    labels: Int[np.ndarray, " image"],
    answers: Sequence[Float[np.ndarray, "image class"]],
    resamples: int,
    seed: int,
) -> Float[np.ndarray, "model figure resample"]:
    """Every figure of every model, on the images themselves and then on each resample of them."""
    blocks = [
        np.stack([figures(weights, labels, one) for one in answers])
        for weights in resample(len(labels), resamples, seed)
    ]
    return np.concatenate(blocks, axis=2)


def _over_seeds(differences: Float[np.ndarray, " seed"]) -> dict[str, Any]:
    defined = differences[~np.isnan(differences)]
    told = len(defined) > 1 and float(np.ptp(defined)) > ALIKE
    return {
        "by_seed": [_plain(value) for value in differences],
        "seeds_p": float(ttest_1samp(defined, 0.0).pvalue) if told else None,
    }


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
        ids,
        said.labels[order],
        {task: p[order] for task, p in said.probabilities.items()},
        tuple(said.groups[i] for i in order),
    )


def _named(tasks: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{task} ({', '.join(classes)})" for task, classes in tasks.items())
