"""Where a score of two classes becomes an answer: the threshold with the best Youden index on validation.

Sensitivity + specificity - 1 (Youden, 1950) weighs both kinds of error alike, whatever the share of the
positive class. It is fixed on validation and read off, never fitted, elsewhere. Of more than two classes the
most probable one is answered, without a threshold.

    threshold = fit_threshold(labels, probabilities)
    answered(probabilities, threshold)
"""

import numpy as np
from jaxtyping import Float, Int

from samcls.learn.score.metrics import predicted

__all__ = ["EVEN", "answered", "fit_threshold"]

EVEN = 0.5  # where validation tells nothing

Labels = Int[np.ndarray, " image"]
Probabilities = Float[np.ndarray, "image class"]


def fit_threshold(labels: Labels, probabilities: Probabilities) -> float | None:
    """Return the threshold of the last class's probability, in (0, 1); None of more than two classes.

    It lies midway between two neighbouring scores; of equally good ones it is the nearest to 0.5. Where
    the images are not of both classes it is 0.5.

    Args:
        labels: Class indices of the validation split; -1 where a label is missing.
        probabilities: What the model says of the same images.
    """
    if probabilities.shape[1] != 2:
        return None
    known = labels >= 0
    positive = labels[known] == 1
    if not positive.any() or positive.all():
        return EVEN
    scores, places = np.unique(probabilities[known, 1].astype(np.float64), return_inverse=True)
    if len(scores) == 1:
        return EVEN
    hits = np.bincount(places, weights=positive, minlength=len(scores))
    alarms = np.bincount(places, weights=~positive, minlength=len(scores))
    # Answered positive above the midpoint behind each score: what lies further up.
    sensitivity = (hits.sum() - hits.cumsum())[:-1] / hits.sum()
    wrong = (alarms.sum() - alarms.cumsum())[:-1] / alarms.sum()
    gain = np.round(sensitivity - wrong, 12)  # equals are equal whatever the rounding
    middles = (scores[:-1] + scores[1:]) / 2
    best = np.flatnonzero(gain == gain.max())
    return float(middles[best[np.argmin(np.abs(middles[best] - EVEN))]])


def answered(probabilities: Probabilities, threshold: float | None) -> Labels:
    """Return the class answered: of two the last above the threshold, of more the most probable.

    Args:
        probabilities: In [0, 1], rows summing to 1.
        threshold: Of the last class's probability; None of more than two classes.
    """
    if threshold is None:
        return predicted(probabilities)
    return (probabilities[:, 1] > threshold).astype(np.int64)
