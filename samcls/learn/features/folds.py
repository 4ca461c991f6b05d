"""Images to folds and parts: stratified, groups whole, seeded.

splits = fold_splits(labels, groups, done, folds=5, fold=0)        # train, val and test
for rest, held in divisions(labels, groups, parts=5, seed=0): ...
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from samcls.errors import ConfigError

__all__ = ["divisions", "fold_numbers", "fold_splits", "hold_out", "unit_names"]

INNER = 5  # an inner validation part is a fifth of what a fold leaves


def fold_splits(
    labels: Int[np.ndarray, "image task"],
    groups: Sequence[str],
    done: Bool[np.ndarray, " image"],
    folds: int,
    fold: int,
) -> list[str]:
    """Return splits in which one fold is `test` and a fifth of the others is `val`, all stratified.

    The folds are the same for every seed. All images of a group lie on one side of every line; an
    image without a group is its own. Classes are balanced on the first task, together with the
    other tasks where every combination has enough images.

    Args:
        labels: Class indices; -1 where a label is missing.
        groups: Patient or lesion of each image; empty where there is none.
        done: Images that take part.
        folds: Number of folds.
        fold: Which is `test`, from 0.

    Raises:
        ConfigError: where there are fewer folds than two, or images or groups than folds.
    """
    rows = np.flatnonzero(done)
    names = unit_names(groups, rows)
    found = len(np.unique(names))
    if folds < 2 or fold >= folds:
        raise ConfigError(f"got fold {fold} of {folds} folds; expected at least 2, counted from 0")
    if found < 2 * folds:
        raise ConfigError(
            f"{folds} folds with a validation part need at least {2 * folds} groups; the store has "
            f"{found} groups of {len(rows)} images"
        )
    strata = _strata(labels[rows], folds)
    splits = np.full(len(labels), "train", dtype="<U5")
    rest, test = _divide(folds, 0, strata, names)[fold]
    parts = min(INNER, len(np.unique(names[rest])))
    _, val = _divide(parts, fold, strata[rest], names[rest])[0]
    splits[rows[test]] = "test"
    splits[rows[rest[val]]] = "val"
    return [str(split) for split in splits]


def fold_numbers(
    labels: Int[np.ndarray, "image task"],
    groups: Sequence[str],
    done: Bool[np.ndarray, " image"],
    folds: int,
) -> Int[np.ndarray, " image"]:
    """Return the fold that each image is tested in, as `fold_splits` divides them; -1 where it takes no part."""
    rows = np.flatnonzero(done)
    numbers = np.full(len(labels), -1)
    divided = _divide(folds, 0, _strata(labels[rows], folds), unit_names(groups, rows))
    for number, (_, test) in enumerate(divided):
        numbers[rows[test]] = number
    return numbers


def divisions(
    labels: Int[np.ndarray, "image task"], groups: Sequence[str], parts: int, seed: int
) -> list[tuple[Int[np.ndarray, " rest"], Int[np.ndarray, " held"]]]:
    """Divide images into parts, stratified, groups whole: for each part the others' places and its own.

    Args:
        labels: Class indices; -1 where a label is missing.
        groups: Patient or lesion of each image; empty where there is none.
        parts: Number of parts, of which there are no more than groups.
        seed: Of the division.

    Raises:
        ConfigError: where there are fewer groups than parts.
    """
    names = unit_names(groups, np.arange(len(labels)))
    if len(np.unique(names)) < parts:
        raise ConfigError(
            f"{len(labels)} images of {len(np.unique(names))} groups cannot be divided into {parts} "
            "parts; take fewer"
        )
    return _divide(parts, seed, _strata(labels, parts), names)


def hold_out(
    labels: Int[np.ndarray, " image"], groups: np.ndarray, fraction: float, seed: int
) -> Bool[np.ndarray, " image"] | None:
    """Which images to hold out so that no group is divided, with classes as even as that allows.

    Args:
        labels: One class each.
        groups: Of each image, what must not be divided.
        fraction: Share to hold out, taken to the nearest of 1/2, 1/3, 1/4, ...
        seed: Of the division.

    Returns:
        None where no such division leaves every class something to learn from.
    """
    parts = min(max(2, round(1 / fraction)), len(np.unique(groups)))
    if parts < 2:
        return None
    for rest, held in _divide(parts, seed, labels, groups):
        if len(np.unique(labels[rest])) == len(np.unique(labels)):
            mask = np.zeros(len(labels), bool)
            mask[held] = True
            return mask
    return None


def unit_names(groups: Sequence[str], rows: Int[np.ndarray, " row"]) -> np.ndarray:
    """Return what keeps images together: their group, or for an image without one itself.

    Args:
        groups: Patient or lesion of each image; empty where there is none.
        rows: The images.
    """
    return np.array([groups[i] or f"image {i}" for i in rows.tolist()])


def _strata(labels: Int[np.ndarray, "image task"], folds: int) -> Int[np.ndarray, " image"]:
    """Return combinations of all tasks' labels where each is common enough, else the first task's."""
    _, strata, sizes = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    joint: np.ndarray = strata.reshape(-1) if sizes.min() >= folds else labels[:, 0]
    return joint


def _divide(
    parts: int, seed: int, strata: Int[np.ndarray, " image"], names: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedGroupKFold  # seconds, and a prediction needs none

    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer images than folds is absent from some, which the tables say.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(splitter.split(strata, strata, names))
