"""The figures themselves, each for many weightings of the same images at once.

A weighting is a row that says how often each image counts: all ones is the sample, other rows are
resamples. Everything of the predicted classes comes from matrix products over classes, everything of the
ranking from one sort a class.

    values = figures(weights, labels, probabilities)     # "figure resample", in FIGURES' order
"""

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = [
    "FIGURES",
    "SMALLEST",
    "SPECIFICITY",
    "bounds",
    "figures",
    "mean_defined",
    "predicted",
    "roc_auc",
]

SMALLEST = 1e-12  # probability under which a class's logarithm is cut off
FIGURES = (
    "auc",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "sensitivity",
    "specificity",
    "sensitivity_at_specificity",
    "average_precision",
    "kappa",
    "brier",
    "ece",
)
SPECIFICITY = 0.9  # at which `sensitivity_at_specificity` is read off
BINS = 15  # of the expected calibration error

Weights = Float[np.ndarray, "resample image"]
Labels = Int[np.ndarray, " image"]
Probabilities = Float[np.ndarray, "image class"]
PerResample = Float[np.ndarray, " resample"]


def figures(
    weights: Weights, labels: Labels, probabilities: Probabilities
) -> Float[np.ndarray, "figure resample"]:
    """`FIGURES` for each row of weights, NaN where undefined.

    Of two classes the last is the positive one, answered at a score above 0.5. Of more, a figure of
    one class against the rest (AUC, F1, sensitivity, specificity, average precision) is the
    unweighted mean over the classes that define it.

    - `kappa`: Cohen's, with quadratic weights.
    - `brier`: mean squared error of the positive class's probability; of more classes, summed over
      classes, as in scikit-learn.
    - `ece`: expected calibration error of the answer's probability in 15 bins (1706.04599).
    """
    classes = probabilities.shape[1]
    answers = predicted(probabilities)
    positives = [1] if classes == 2 else list(range(classes))
    curves = np.stack([_ranking(weights, labels == c, probabilities[:, c]) for c in positives])
    auc, sensitivity_at, precision = mean_defined(curves).reshape(3, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(1)
        actual, answered = _counts(weights, labels, classes), _counts(weights, answers, classes)
        hits = _counts(weights * (labels == answers), labels, classes)
        recalls = hits / actual
        f1 = np.where(actual > 0, 2 * hits / (actual + answered), np.nan)
        negatives = total - actual
        specific = (negatives - (answered - hits)) / negatives
        accuracy = hits.sum(0) / total
    return np.stack(
        [
            auc,
            accuracy,
            mean_defined(recalls),
            mean_defined(f1[positives]),
            mean_defined(recalls[positives]),
            mean_defined(specific[positives]),
            sensitivity_at,
            precision,
            _kappa(weights, labels, answers),
            _brier(weights, labels, probabilities),
            _calibration_error(weights, labels, probabilities),
        ]
    )


def bounds(classes: int) -> Float[np.ndarray, "2 figure"]:
    """Return the least and the most that each of `FIGURES` can be."""
    least = dict.fromkeys(FIGURES, 0.0) | {"kappa": -1.0}
    most = dict.fromkeys(FIGURES, 1.0) | {"brier": 1.0 if classes == 2 else 2.0}
    return np.array([[ends[name] for name in FIGURES] for ends in (least, most)])


def predicted(probabilities: Probabilities) -> Labels:
    """Return the class answered: of two the last at a score above 0.5, of more the most probable."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] > 0.5).astype(np.int64)
    most_probable: np.ndarray = probabilities.argmax(1)
    return most_probable


def roc_auc(
    weights: Weights, positive: Bool[np.ndarray, " image"], scores: Float[np.ndarray, " image"]
) -> PerResample:
    """Area under the ROC curve: how often a positive outscores a negative, ties counting half."""
    found: np.ndarray = _ranking(weights, positive, scores)[0]
    return found


def mean_defined(values: Float[np.ndarray, "part ..."]) -> Float[np.ndarray, "..."]:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(defined, values, 0.0).sum(0) / defined.sum(0)
    return mean


def _ranking(
    weights: Weights, positive: Bool[np.ndarray, " image"], scores: Float[np.ndarray, " image"]
) -> Float[np.ndarray, "3 resample"]:
    """AUC, sensitivity at `SPECIFICITY` and average precision of one class against the rest."""
    if not len(scores):
        return np.full((3, len(weights)), np.nan)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sorted_weights = weights[:, order]
    found = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    wrong = np.add.reduceat(sorted_weights * ~positive[order], starts, axis=1)
    # Taken down to a threshold: positives found and negatives wrongly taken for one.
    hits, alarms = found.cumsum(1), wrong.cumsum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (found * (alarms[:, -1:] - alarms + 0.5 * wrong)).sum(1)
        auc /= hits[:, -1] * alarms[:, -1]
        quiet = alarms <= (1 - SPECIFICITY) * alarms[:, -1:] * (1 + 1e-12)
        at = np.where(quiet, hits, 0.0).max(1) / hits[:, -1]
        at[alarms[:, -1] == 0] = np.nan
        answered = hits + alarms
        precision = hits / np.where(answered > 0, answered, 1.0)
        average = (found * precision).sum(1) / hits[:, -1]
    return np.stack([auc, at, average])


def _counts(weights: Weights, values: Labels, classes: int) -> Float[np.ndarray, "class resample"]:
    """Weight of the images of each class."""
    found: np.ndarray = (weights @ (values[:, None] == np.arange(classes)).astype(np.float64)).T
    return found


def _kappa(weights: Weights, labels: Labels, answers: Labels) -> PerResample:
    """Cohen's kappa, whose quadratic weights need no table: moments of labels and answers are enough."""
    first, second = labels.astype(np.float64), answers.astype(np.float64)
    total, seen = weights.sum(1), weights @ (first - second) ** 2
    # Of all pairs of a label and an answer: (a - b)^2 = a^2 - 2ab + b^2.
    squares = total * (weights @ first**2 + weights @ second**2)
    by_chance = squares - 2 * (weights @ first) * (weights @ second)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa: np.ndarray = 1 - seen * total / by_chance
    kappa[by_chance == 0] = np.nan
    return kappa


def _brier(weights: Weights, labels: Labels, probabilities: Probabilities) -> PerResample:
    truth = np.eye(probabilities.shape[1])[labels]
    errors = (probabilities - truth) ** 2
    each = errors[:, 1] if probabilities.shape[1] == 2 else errors.sum(1)
    with np.errstate(invalid="ignore"):
        brier: np.ndarray = weights @ each / weights.sum(1)
    return brier


def _calibration_error(
    weights: Weights, labels: Labels, probabilities: Probabilities
) -> PerResample:
    answers = predicted(probabilities)
    sureness = probabilities[np.arange(len(labels)), answers].astype(np.float64)
    # Bins are open on the left, so that a probability of 1 lies in the last.
    bins = np.clip(np.ceil(sureness * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.zeros((len(labels), BINS))
    gaps[np.arange(len(labels)), bins] = (answers == labels) - sureness
    with np.errstate(invalid="ignore"):
        error: np.ndarray = np.abs(weights @ gaps).sum(1) / weights.sum(1)
    return error
