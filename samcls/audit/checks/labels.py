"""`label-suspect`: images whose label the other images speak against. A list to look at, never a verdict.

Both witnesses must agree: the probability that a logistic regression gives the label, learned on the four fifths
of the images that the image and its group are not in, and the labels of its nearest others. They are ranked by the
product of both.

    suspects = suspicion(features, labels, groups)      # of each image, 0..1
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from samcls.audit.finding import Finding
from samcls.audit.material import NEIGHBOURS, Material
from samcls.audit.nearest import nearest, unit
from samcls.learn.features.folds import unit_names

__all__ = ["find", "out_of_fold", "suspicion"]

FOLDS = 5
FEWEST = 20  # labelled images below which nothing is said
C = 0.01  # strongly regularised: features are many, images few


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield suspects of each task."""
    if material.features is None or material.near is None:
        return
    features = material.features
    for column, (task, classes) in enumerate(material.tasks.items()):
        labels = material.labels[material.rows, column]
        known = np.flatnonzero(labels >= 0)
        counts = np.bincount(labels[known], minlength=len(classes))
        if len(known) < FEWEST or (counts >= FOLDS).sum() < 2 or not np.ptp(features[known]):
            note(
                f"task {task}: too few labelled images of two classes to say which labels are doubtful"
            )
            continue
        groups = [material.groups[row] for row in material.rows[known].tolist()]
        if all(groups) and len(set(groups)) < 2:
            note(
                f"task {task}: all images are of one group, so that none is independent of the others"
            )
            continue
        own = out_of_fold(features[known], labels[known], groups, len(classes))
        near = _votes(labels, material.near[0][known], len(classes))
        given = np.arange(len(known)), labels[known]
        claimed = _claimed(own, labels[known])
        suspects = (claimed != labels[known]) & (claimed == _claimed(near, labels[known]))
        doubt = 1 - np.sqrt(own[given] * near[given])
        for at in np.flatnonzero(suspects).tolist():
            row = int(material.rows[known[at]])
            told = (
                f"{material.ids[row]}: {task} is {classes[labels[known[at]]]}, to which the other images give "
                f"probability {own[at, labels[known[at]]]:.2f}; {classes[claimed[at]]} "
                f"{own[at, claimed[at]]:.2f}, and so are {100 * near[at, claimed[at]]:.0f} % of its neighbours"
            )
            yield material.finding("label-suspect", [row], told, doubt[at])


def _claimed(
    said: Float[np.ndarray, "image class"], labels: Int[np.ndarray, " image"]
) -> Int[np.ndarray, " image"]:
    """Return the class that claims each image as surely as it commonly claims its own, or the label where none does.

    That is confident learning's rule (Northcutt et al., 2021), by which a rare class is not suspected for being rare.
    """
    classes = np.unique(labels)
    usual = np.full(said.shape[1], np.inf)
    usual[classes] = [said[labels == label, label].mean() for label in classes]
    claimed = np.where(said >= usual, said, -np.inf)
    found: np.ndarray = np.where(np.isfinite(claimed.max(1)), claimed.argmax(1), labels)
    return found


def suspicion(
    features: Float[np.ndarray, "image number"],
    labels: Int[np.ndarray, " image"],
    groups: Sequence[str],
) -> Float[np.ndarray, " image"]:
    """Return how much the others speak against each label, 0..1.

    Args:
        features: Of each image.
        labels: Class indices, none missing.
        groups: Patient or lesion; empty where there is none.
    """
    classes = int(labels.max()) + 1
    given = np.arange(len(labels)), labels
    own = out_of_fold(features, labels, groups, classes)[given]
    near = _votes(labels, nearest(unit(features), NEIGHBOURS)[0], classes)[given]
    found: np.ndarray = 1 - np.sqrt(own * near)
    return found


def out_of_fold(
    features: Float[np.ndarray, "image number"],
    labels: Int[np.ndarray, " image"],
    groups: Sequence[str],
    classes: int,
) -> Float[np.ndarray, "image class"]:
    """Return what a regression on the other folds says of each image."""
    from sklearn.linear_model import LogisticRegression

    said = np.full((len(labels), classes), 1e-6)
    for rest, held in _parts(labels, groups):
        deviation = features[rest].std(0)
        scale = np.where(deviation > 0, deviation, 1)
        mean = features[rest].mean(0)
        if len(np.unique(labels[rest])) < 2:
            said[held, labels[rest][0]] = 1
            continue
        model = LogisticRegression(C=C, max_iter=1000).fit(
            (features[rest] - mean) / scale, labels[rest]
        )
        said[np.ix_(held, model.classes_)] = model.predict_proba((features[held] - mean) / scale)
    return said


def _parts(
    labels: Int[np.ndarray, " image"], groups: Sequence[str]
) -> Iterator[tuple[Int[np.ndarray, " rest"], Int[np.ndarray, " held"]]]:
    """Yield the images of the other folds and of each; groups are whole and stratified by their first image."""
    from sklearn.model_selection import StratifiedKFold

    names = unit_names(groups, np.arange(len(labels)))
    _, first, units = np.unique(names, return_index=True, return_inverse=True)
    folds = StratifiedKFold(min(FOLDS, len(first)), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for _, held in folds.split(first, labels[first]):
            inside = np.isin(units, held)
            yield np.flatnonzero(~inside), np.flatnonzero(inside)


def _votes(
    labels: Int[np.ndarray, " all"], near: Int[np.ndarray, "image near"], classes: int
) -> Float[np.ndarray, "image class"]:
    """Return each class's share of the nearest others, as if one more image of every class were near.

    Args:
        labels: Class indices, -1 where missing: those have no vote.
        near: Places of the nearest of each image.
        classes: How many there are.
    """
    shares = np.vstack([np.eye(classes), np.zeros(classes)])[labels]
    counted = shares[near].sum(1) + 1
    found: np.ndarray = counted / counted.sum(1, keepdims=True)
    return found
