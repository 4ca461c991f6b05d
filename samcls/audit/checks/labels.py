"""`label-suspect`: images whose label the other images speak against. A list to look at, never a verdict.

Both witnesses must agree: the probability that a logistic regression gives the label, learned on the four fifths
of the images that the image and its group are not in, and the labels of its nearest others. They are ranked by the
product of both.

    suspects = suspicion(features, labels, groups)      # of each image, 0..1
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from samcls.audit.finding import Finding
from samcls.audit.maps import compressed
from samcls.audit.material import Material
from samcls.audit.nearest import nearest, unit
from samcls.learn.features.folds import divisions

__all__ = ["find", "out_of_fold", "suspicion"]

FOLDS = 5
NEIGHBOURS = 10
FEWEST = 20  # labelled images below which nothing is said
C = 0.01  # strongly regularised: features are many, images few


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield suspects of each task."""
    if material.means is None:
        return
    features = compressed(material.means[0])
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
        near = _votes(features[known], labels[known], len(classes))
        given = np.arange(len(known)), labels[known]
        suspects = (own.argmax(1) != labels[known]) & (near.argmax(1) != labels[known])
        doubt = 1 - np.sqrt(own[given] * near[given])
        for at in np.flatnonzero(suspects).tolist():
            row = int(material.rows[known[at]])
            told = (
                f"{material.ids[row]}: {task} is {classes[labels[known[at]]]}, to which the other images give "
                f"probability {own[at, labels[known[at]]]:.2f}; {classes[own[at].argmax()]} "
                f"{own[at].max():.2f}, and so are {100 * near[at, own[at].argmax()]:.0f} % of its neighbours"
            )
            yield material.finding("label-suspect", [row], told, doubt[at])


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
    near = _votes(features, labels, classes)[given]
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
    parts = min(FOLDS, len({group or f"image {i}" for i, group in enumerate(groups)}))
    for rest, held in divisions(labels[:, None], groups, parts, 0):
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


def _votes(
    features: Float[np.ndarray, "image number"], labels: Int[np.ndarray, " image"], classes: int
) -> Float[np.ndarray, "image class"]:
    """Return each class's share of the nearest others, as if one more image of every class were near."""
    near, _ = nearest(unit(features), NEIGHBOURS)
    counted = np.eye(classes)[labels][near].sum(1)
    found: np.ndarray = (counted + 1) / (near.shape[1] + classes)
    return found
