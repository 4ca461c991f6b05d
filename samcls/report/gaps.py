"""How far a subgroup's figures are from those of all other images, whole groups resampled, corrected for how many were looked at.

for gap in gaps_of(answers, [("sex", "f", women), ("sex", "m", men)]):
gap.gap, gap.interval, gap.withheld
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from samcls.learn.score.intervals import unit_numbers
from samcls.learn.score.metrics import mean_defined, roc_auc
from samcls.learn.score.scoring import resample
from samcls.report.subject import Answers

__all__ = ["FEWEST_EVENTS", "FEWEST_IMAGES", "Gap", "gaps_of", "in_order"]

FEWEST_IMAGES, FEWEST_EVENTS = 20, 5  # of a subgroup, below which its figures are withheld
RESAMPLES = 1000
LEVEL = 0.05


@dataclass(frozen=True)
class Gap:
    """A subgroup's figure beside that of all other images.

    Attributes:
        column: Of the manifest.
        part: Its text, or range of numbers.
        images: Number of labelled images.
        events: Images of the positive class; of more than two classes, all that are not of the commonest.
        auc: Of the subgroup; None where withheld or undefined.
        rest: Of the other images.
        gap: `auc` - `rest`.
        interval: Of the gap, 95 % for all gaps looked at together (Bonferroni).
        p: Two-sided, corrected likewise; None where withheld.
        sensitivity: At the threshold; None where withheld, or of more than two classes.
        specificity: Likewise.
        withheld: Why nothing is told; "" where it is.
    """

    column: str
    part: str
    images: int
    events: int
    auc: float | None = None
    rest: float | None = None
    gap: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    withheld: str = ""


def gaps_of(
    answers: Answers, groups: Sequence[tuple[str, str, Bool[np.ndarray, " image"]]]
) -> tuple[Gap, ...]:
    """Return each group's figures beside those of all other images.

    Args:
        answers: Of the scored images.
        groups: Column, part, and which images are of it.
    """
    events = _events(answers)
    told, plain = [], {}
    for place, (name, part, rows) in enumerate(groups):
        sides = [(rows & events).sum(), (rows & ~events).sum()]
        images, positive = int(rows.sum()), int(sides[0])
        why = ""
        if images < FEWEST_IMAGES:
            why = f"under {FEWEST_IMAGES} images"
        elif min(sides) < FEWEST_EVENTS:
            why = f"under {FEWEST_EVENTS} images of a class"
        plain[place] = Gap(name, part, images, positive, withheld=why)
        if not why:
            told.append(place)
    draws = _draws(answers)
    looked = max(1, len(told))
    found = []
    for place, (_, _, rows) in enumerate(groups):
        gap = plain[place]
        if place in told:
            own, rest = _auc(answers, draws, rows), _auc(answers, draws, ~rows)
            gap = _judged(gap, answers, own, rest, rows, looked)
        found.append(gap)
    return tuple(found)


def _judged(
    gap: Gap, answers: Answers, own: np.ndarray, rest: np.ndarray, rows: np.ndarray, looked: int
) -> Gap:
    from scipy.stats import t as student

    units = unit_numbers(answers.groups)
    freedom = max(1, min(len(np.unique(units[rows])), len(np.unique(units[~rows]))) - 1)
    between = own - rest
    drawn = between[1:][np.isfinite(between[1:])]
    values: dict[str, Any] = {
        "auc": _plain(own[0]),
        "rest": _plain(rest[0]),
        "gap": _plain(between[0]),
    }
    if np.isfinite(between[0]) and len(drawn) > len(own) // 2:
        error = float(drawn.std(ddof=1))
        reach = float(student.ppf(1 - LEVEL / 2 / looked, freedom)) * error
        values["interval"] = (float(between[0]) - reach, float(between[0]) + reach)
        single = 2 * student.sf(abs(between[0]) / error, freedom) if error > 0 else 1.0
        values["p"] = float(min(1.0, looked * max(single, 1 / (len(drawn) + 1))))
    if answers.binary:
        said, true = answers.answers == 1, answers.labels == 1
        values["sensitivity"] = float(said[rows & true].mean())
        values["specificity"] = float((~said)[rows & ~true].mean())
    return Gap(gap.column, gap.part, gap.images, gap.events, **values)


def _draws(answers: Answers) -> Float[np.ndarray, "resample image"]:
    units = unit_numbers(answers.groups)
    number = int(units.max()) + 1
    size = int(min(RESAMPLES, max(200, 6_000_000 // max(1, len(units)))))
    return np.concatenate([block[:, units] for block in resample(number, size, 0)])


def _auc(answers: Answers, draws: np.ndarray, rows: np.ndarray) -> Float[np.ndarray, " resample"]:
    """AUC of some images under each draw; of more than two classes the mean over those with images."""
    labels, chance, weights = answers.labels[rows], answers.probabilities[rows], draws[:, rows]
    classes = (
        [1] if answers.binary else [c for c in range(len(answers.classes)) if (labels == c).any()]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.stack([roc_auc(weights, labels == c, chance[:, c]) for c in classes])
    return mean_defined(each)


def _events(answers: Answers) -> Bool[np.ndarray, " image"]:
    """Images of the positive class; of more than two, all that are not of the commonest."""
    if answers.binary:
        positive: np.ndarray = answers.labels == 1
        return positive
    most = int(np.bincount(answers.labels).argmax()) if len(answers.labels) else 0
    others: np.ndarray = answers.labels != most
    return others


def in_order(text: str) -> tuple[int, float, str]:
    """Return what parts of a column are sorted by: numbers first, by their first one."""
    first = text.split(" ", maxsplit=1)[0]
    try:
        return 0, float(first), text
    except ValueError:
        return 1, 0.0, text


def _plain(value: float) -> float | None:
    return None if not np.isfinite(value) else float(value)
