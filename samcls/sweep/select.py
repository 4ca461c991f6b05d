"""Choosing the winner on validation, and what that choice is worth without its luck.

The best of many configurations owes a part of its validation AUC to the images at hand. The
bootstrap-bias-corrected estimate takes that part off without training anything: images are drawn
with replacement, the configuration that is best on the drawn ones is scored on those not drawn, and
the mean over many draws is what a choice made like this comes to on images that did not make it
(BBC-CV: Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions for
efficient and accurate cross-validation", Machine Learning 107, 2018).

    rows = leaderboard(records, space)
    found = select(rows, records)
    found.auc, found.corrected, found.interval, found.tried

The interval is the winner's own (`learn.intervals`: images of a group left out together) around the
corrected AUC, and reaches up to the AUC that was corrected: the estimate errs low where
configurations differ, the AUC high. The paper's interval, percentiles over draws of so few images
each, held the winner's AUC in 99 to 100 of 100 simulated sweeps; this one in 91 to 99
(tests/learn/score/test_coverage.py).

Two things differ from the paper. A configuration's figure is the mean of its runs' AUCs (seeds and
folds), as on the leaderboard, and not the AUC of all folds' scores together: scores of models that
were trained apart need not share a scale. And images of one group are drawn together where the
groups are given.

It fails where its assumptions do. The configurations are taken as given: under halving and tpe,
which chose on the same images which configurations to train at all, luck is left in. So is that of
choosing the epoch of each training on validation. The drawn sample holds some 63 % of the images and
the rest scores it, so with few images of a class draws are undefined: they are left out, and
counted. An estimate under half a dozen images of the rarer class is noise, and has no interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from samcls.errors import InputError
from samcls.learn.runs.folder import Run
from samcls.learn.score.intervals import intervals, left_out, support, unit_numbers
from samcls.learn.score.metrics import FIGURES
from samcls.learn.score.scoring import resample
from samcls.sweep.leaderboard import Row

__all__ = ["Selection", "aucs", "select"]

MOST_PARTS = 1000  # of the validation images, left out in turn

Weights = Float[np.ndarray, "resample image"]


@dataclass(frozen=True)
class Selection:
    """The winner, and what its figure is worth.

    Attributes:
        winner: Digest of the configuration.
        auc: Its validation AUC, which choosing made too high.
        corrected: The bootstrap-bias-corrected AUC; None where no resample defined it.
        interval: 95 %, of the winner's AUC on other images; None where too few groups of a class are
            behind it.
        tried: Number of configurations between which validation chose.
        images: Validation images behind it.
        groups: Groups (patients, lesions) that these form, an image without one being its own.
        resamples: Resamples asked for.
        undefined: Resamples that scored nothing, one class being missing.
    """

    winner: str
    auc: float
    corrected: float | None
    interval: tuple[float, float] | None
    tried: int
    images: int
    groups: int
    resamples: int
    undefined: int

    @property
    def optimism(self) -> float | None:
        """By how much choosing flattered the winner."""
        return None if self.corrected is None else self.auc - self.corrected

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the optimism as JSON knows them."""
        interval = None if self.interval is None else list(self.interval)
        return asdict(self) | {"interval": interval, "optimism": self.optimism}


def select(
    rows: Sequence[Row],
    records: Mapping[str, Run],
    resamples: int = 1000,
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
) -> Selection:
    """Return the winner by mean validation AUC, with its corrected estimate.

    Args:
        rows: The leaderboard; rows without a rank do not take part.
        records: Finished runs by the digest of their config.
        resamples: Number of draws.
        seed: Of the draws.
        groups: Patient or lesion by image; images of one are drawn together. An image that is not
            named, or has an empty one, is its own group.

    Raises:
        InputError: where no configuration has a rank.
    """
    ranked = sorted((row for row in rows if row.rank is not None), key=lambda row: row.rank or 0)
    if not ranked or ranked[0].auc is None:
        raise InputError(
            "no configuration of this sweep has finished all its runs with a validation AUC; run "
            "the sweep again, with failed runs retried"
        )
    runs = [[records[key] for key in row.runs] for row in ranked]
    images = sorted({one for group in runs for run in group for one in run.said.ids})
    units = unit_numbers([(groups or {}).get(one, "") for one in images])
    number = int(units.max()) + 1
    scores = [_scores(runs, images, units, w) for w in _draws(number, resamples, seed)]
    found = np.concatenate(scores) if scores else np.empty(0)
    kept = found[~np.isnan(found)]
    corrected = float(kept.mean()) if len(kept) else None
    return Selection(
        winner=ranked[0].key,
        auc=ranked[0].auc,
        corrected=corrected,
        interval=None if corrected is None else _interval(runs[0], images, units, corrected),
        tried=len(ranked),
        images=len(images),
        groups=number,
        resamples=resamples,
        undefined=len(found) - len(kept),
    )


def aucs(run: Run, weights: Weights) -> Float[np.ndarray, " resample"]:
    """Return the run's mean AUC, as `metrics.auc` defines it, for each row of image weights.

    Args:
        run: A run.
        weights: A column for each of its validation images.

    Returns:
        NaN where no task and class has images on both sides.
    """
    said = run.said
    of_tasks = []
    for i, probabilities in enumerate(said.probabilities.values()):
        labels = said.labels[:, i]
        known = labels >= 0
        classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
        of_classes = [
            _area(weights[:, known], labels[known] == c, probabilities[known, c]) for c in classes
        ]
        of_tasks.append(_mean(of_classes))
    return _mean(of_tasks)


def _area(
    weights: Weights, positive: Bool[np.ndarray, " image"], scores: Float[np.ndarray, " image"]
) -> Float[np.ndarray, " resample"]:
    """Share of weight on pairs in which the positive outscores the negative, ties counting half."""
    order = np.argsort(scores, kind="stable")
    ranked, above = scores[order], positive[order]
    starts = np.r_[True, ranked[1:] != ranked[:-1]] if len(ranked) else np.empty(0, bool)
    place = starts.cumsum() - 1
    up, down = weights[:, order[above]], weights[:, order[~above]]
    # For every positive the weight of negatives below it, and half of those that tie with it.
    below = np.zeros((len(weights), down.shape[1] + 1))
    np.cumsum(down, axis=1, out=below[:, 1:])
    of_up, of_down = place[above], place[~above]
    first, last = (np.searchsorted(of_down, of_up, side) for side in ("left", "right"))
    won = np.einsum("ru,ru->r", up, below[:, first] + below[:, last])
    with np.errstate(invalid="ignore", divide="ignore"):
        area: np.ndarray = 0.5 * won / (up.sum(1) * below[:, -1])
    return area


def _mean(values: Sequence[Float[np.ndarray, " resample"]]) -> Float[np.ndarray, " resample"]:
    """Mean of what is defined."""
    stacked = np.stack(values)
    defined = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(defined, stacked, 0.0).sum(0) / defined.sum(0)
    return mean


def _interval(
    runs: Sequence[Run],
    images: Sequence[str],
    units: Int[np.ndarray, " image"],
    corrected: float,
) -> tuple[float, float] | None:
    """Return the interval of the winner's mean AUC, around what is left of it after the correction."""
    weights = np.concatenate(list(left_out(units, MOST_PARTS)))
    values = _mean_area(runs, images, weights)
    behind = np.array([_behind(runs, images, units)])
    unit = np.array([[0.0], [1.0]])
    (found,) = intervals(values[None], unit, behind, np.array([corrected]))
    return None if found is None else (found[0], max(found[1], float(values[0])))


def _behind(runs: Sequence[Run], images: Sequence[str], units: Int[np.ndarray, " image"]) -> int:
    """Return groups of the rarest class of any task, over all runs' images."""
    unit_of = dict(zip(images, units.tolist(), strict=True))
    found = []
    for i, (_, classes) in enumerate(runs[0].tasks.items()):
        labels = np.concatenate([run.said.labels[:, i] for run in runs])
        own = np.array([unit_of[one] for run in runs for one in run.said.ids])
        if np.any(labels >= 0):
            found.append(support(labels, own, len(classes))[1][FIGURES.index("auc")])
    return int(min(found, default=0))


def _mean_area(
    runs: Sequence[Run], images: Sequence[str], weights: Weights
) -> Float[np.ndarray, " resample"]:
    """Mean over a configuration's runs of their AUCs, for each row of weights of all images."""
    places = {one: i for i, one in enumerate(images)}
    columns = [[places[one] for one in run.said.ids] for run in runs]
    return _mean([aucs(run, weights[:, c]) for run, c in zip(runs, columns, strict=True)])


def _draws(units: int, resamples: int, seed: int) -> Iterator[Weights]:
    blocks = resample(units, resamples, seed)
    next(blocks)  # the sample itself
    return blocks


def _scores(
    runs: Sequence[Sequence[Run]],
    images: Sequence[str],
    units: Int[np.ndarray, " image"],
    weights: Float[np.ndarray, "resample unit"],
) -> Float[np.ndarray, " resample"]:
    """For each draw: the AUC on images not drawn of the configuration that is best on the drawn."""
    drawn = weights[:, units]
    left = (drawn == 0).astype(np.float64)
    both = np.concatenate([drawn, left])
    found = [_mean_area(group, images, both) for group in runs]
    inside, outside = np.split(np.stack(found), 2, axis=1)  # configuration resample
    # Of equals the first, which the leaderboard has ahead.
    best = np.where(np.isnan(inside), -1.0, inside).argmax(0)
    scored: np.ndarray = outside[best, np.arange(len(weights))]
    return scored
