"""95 % intervals of figures, for images that may share a patient: leave one group out at a time.

What varies independently is a group (a patient, a lesion), or an image where it has none. Each group is
left out in turn and every figure computed again: their spread is the jackknife's standard error
(Efron and Stein 1981), images of a group together. The interval has Wilson's form at the number of
images that a figure of this error is worth, so it stays within the figure's range, with Student's t
in place of the normal; its degrees of freedom are Satterthwaite's, few where few groups carry the
figure. There is no chance in it: the same predictions have the same intervals.

So many of 100 intervals held the truth (1,000 samples a row, 30 % of patients ill, their AUC 0.80, two
scores of a patient correlate by 0.5; `pytest -m slow -s tests/learn/score/test_coverage.py`), and of
percentiles of bootstrap samples of images:

    images, a patient     AUC    so     Brier  so          images, a patient     AUC    so     Brier  so
    58      1             96.2   92.5   96.4   93.0        156     10            91.8   53.9   96.1   46.7
    58      3             95.3   80.3   94.8   81.0        400     1             96.5   93.7   94.7   93.1
    156     1             95.2   92.3   93.6   92.2        400     3             94.9   81.4   94.5   78.8
    156     3             96.3   82.1   94.5   78.8        400     10            95.4   58.6   95.2   53.3
    58      1, 6 ill      94.3   85.7

58 images of 6 patients have none, nor any figure that rests on fewer than `FEWEST` groups of a class:
around the AUC of five ill patients as few as 91 of 100 held.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

from samcls.learn.score.metrics import FIGURES, mean_defined

__all__ = ["FEWEST", "interval_notes", "intervals", "left_out", "support", "unit_numbers"]

FEWEST = 6  # groups of a class below which no interval is believed
BLOCK_VALUES = 250_000  # weights held at once: 2 MB, and as much again for each of some figures
EXACT = 1e-12  # shares and errors nearer to a bound than this are rounding

Figures = Float[np.ndarray, " figure"]
Units = Int[np.ndarray, " image"]


def unit_numbers(groups: Sequence[str]) -> Units:
    """Return the number of the unit that each image belongs to: its group, or itself where that is ""."""
    keys = [("group", group) if group else ("image", str(i)) for i, group in enumerate(groups)]
    places = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([places[key] for key in keys], dtype=np.int64)


def left_out(units: Units, parts: int) -> Iterator[Float[np.ndarray, "part image"]]:
    """Weights of the images with each unit left out in turn; the very first row leaves out none.

    Args:
        units: The unit of each image.
        parts: Most rows after the first. Where there are more units, each row leaves out some, put
            together at random, always the same.

    Yields:
        Ones and zeros, in blocks of rows.
    """
    yield np.ones((1, len(units)))
    count = int(units.max()) + 1 if len(units) else 0
    if count > parts:
        units = np.random.default_rng(0).permutation(count)[units] % max(1, parts)
    size = max(1, BLOCK_VALUES // max(1, len(units)))
    for start in range(0, min(count, parts), size):
        numbers = np.arange(start, min(start + size, count, parts))
        yield (units != numbers[:, None]).astype(np.float64)


def intervals(
    values: Float[np.ndarray, "figure part"],
    bounds: Float[np.ndarray, "2 figure"],
    support: Int[np.ndarray, " figure"],
    centre: Figures | None = None,
) -> list[list[float] | None]:
    """Return the 95 % interval of each figure.

    Args:
        values: Figures of all images, then with each part left out; NaN where undefined.
        bounds: The least and the most that each can be.
        support: From `support`: groups behind each figure.
        centre: Figures for the interval to stand around, where they are not those of all images.

    Returns:
        For each figure both ends; None where it is undefined or too few groups are behind it.
    """
    lowest, width = bounds[0], bounds[1] - bounds[0]
    share = (values[:, 0] - lowest) / width
    variance, freedom = _error(values[:, 1:] / width[:, None])
    at_bound = (share < EXACT) | (share > 1 - EXACT)
    with np.errstate(invalid="ignore", divide="ignore"):
        worth = np.where(at_bound, np.maximum(support, 1), share * (1 - share) / variance)
        reach = student.ppf(0.975, freedom) ** 2 / worth
    # What no part changes, such as the AUC of scores that are all alike, is certain.
    reach[(variance < EXACT**2) & ~at_bound] = 0.0
    if centre is not None:
        share = (centre - lowest) / width
    share = np.clip(share, 0.0, 1.0)
    middle = (share + reach / 2) / (1 + reach)
    margin = np.sqrt(reach * (share * (1 - share) + reach / 4)) / (1 + reach)
    ends = lowest[:, None] + width[:, None] * np.stack([middle - margin, middle + margin], axis=1)
    shown = (support >= FEWEST) & ~np.isnan(ends).any(1)
    return [pair if known else None for known, pair in zip(shown, ends.tolist(), strict=True)]


def _error(parts: Float[np.ndarray, "figure part"]) -> tuple[Figures, Figures]:
    """Jackknife variance of each figure, and Satterthwaite's degrees of freedom of it."""
    defined = ~np.isnan(parts)
    number = defined.sum(1)
    gaps = np.where(defined, parts - mean_defined(parts.T)[:, None], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = gaps**2 * ((number - 1) / number)[:, None]
        variance = squares.sum(1)
        freedom = 2 * variance**2 / ((squares**2).sum(1) - variance**2 / number)
    most = np.maximum(number - 1, 1).astype(np.float64)
    return variance, np.clip(np.where(np.isfinite(freedom), freedom, most), 1.0, most)


def support(
    labels: Int[np.ndarray, " image"], units: Units, classes: int
) -> tuple[Int[np.ndarray, " class"], Int[np.ndarray, " figure"]]:
    """How many units have an image of each class, and how many are behind each figure.

    A figure of single classes is as sure as the class with the fewest units, of those that the
    images have at all; an average over images as the lesser of the two commonest classes, so that
    images of one class have sensitivity or specificity alone to be sure of. Behind the
    expected calibration error is none: it is too high by more than its spread (it cannot be below
    zero, so that noise only adds), and no interval around it held the truth.
    """
    counts = np.array([len(np.unique(units[labels == c])) for c in range(classes)], dtype=np.int64)
    second = np.sort(counts)[-2]
    rarest = counts[counts > 0].min() if second else 0
    behind = dict.fromkeys(FIGURES, rarest) | {"accuracy": second, "brier": second, "ece": 0}
    if classes == 2:
        behind |= {"specificity": counts[0], "sensitivity": counts[1]}
    return counts, np.array([behind[name] for name in FIGURES], dtype=np.int64)


def interval_notes(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences that belong under a test table: what its intervals hold together, what has none.

    Args:
        table: Of `metrics.score`; one without intervals has no sentences.
    """
    tables = table.get("tasks") or {"": table}
    found = {task: one["units"] for task, one in tables.items() if "units" in one}
    units = {task: _units_note(one) for task, one in found.items()}
    notes = [_of_task(task, note, len(set(units.values())) > 1) for task, note in units.items()]
    for task, one in found.items():
        few = [
            f"{count} {_counted(one, count)} with {name}"
            for name, count in one["classes"].items()
            if 0 < count < FEWEST
        ]
        if sum(count > 0 for count in one["classes"].values()) < 2:
            note = "no interval (-): the labels of the test images are of one class"
            notes.append(_of_task(task, note, len(tables) > 1))
        elif few:
            note = f"no interval (-) where it rests on {' or '.join(few)}: fewer than {FEWEST}"
            notes.append(_of_task(task, note, len(tables) > 1))
    return tuple(dict.fromkeys(notes))


def _units_note(units: Mapping[str, Any]) -> str:
    images = f"95 % intervals: {units['images']} labelled test images"
    if not units["grouped"]:
        return f"{images}, each taken on its own: the store names no groups (patients)"
    return f"{images} of {units['groups']} groups, each group (patient) taken as a whole"


def _counted(units: Mapping[str, Any], count: int) -> str:
    return ("group" if units["grouped"] else "image") + ("" if count == 1 else "s")


def _of_task(task: str, note: str, named: bool) -> str:
    return f"{task}: {note}" if named else note
