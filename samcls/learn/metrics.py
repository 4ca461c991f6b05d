"""Predictions to named figures, with bootstrap intervals; MedMNIST's conventions.

A resample is a row of weights: how often each image was drawn. Every figure is computed for all
rows at once, so 1,000 resamples of 400 images in five classes take 0.08 s. Figures are plain floats
or None, ready for JSON.

    table = score(labels, probabilities, {"grade": classes}, majority={"grade": 0})
    table["auc"], table["auc_interval"]
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["auc", "majority_class", "resample", "score"]

BLOCK_VALUES = 4_000_000  # weights held at once: 32 MB
FIGURES = ("auc", "accuracy", "balanced_accuracy")

Weights = Float[np.ndarray, "resample image"]
Labels = Int[np.ndarray, " image"]
Probabilities = Float[np.ndarray, "image class"]


def score(
    labels: Int[np.ndarray, "image task"],
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
    tasks: Mapping[str, tuple[str, ...]],
    majority: Mapping[str, int],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The table of one split.

    AUC and accuracy follow MedMNIST. Two classes: the score of the last class, its ROC AUC,
    accuracy at a score above 0.5. More: unweighted mean of one-versus-rest AUCs, accuracy of the
    most probable class. A class that has no image in the split, or all of them, has no AUC: the
    mean is over the other classes, and the table names the class under `absent_classes`. A figure
    that nothing defines is None. Balanced accuracy is the mean recall of the classes present.

    Intervals hold the middle 95 % of the resamples in which the figure is defined: images drawn
    with replacement, the same draws for every figure and task.

    Args:
        labels: Class indices; -1 where a label is missing, which the task then leaves out.
        probabilities: For each task, probabilities in [0, 1], "image class".
        tasks: Class names of each task, in the order of the label columns.
        majority: For each task, the training split's largest class.
        resamples: Number of resamples; 0 leaves the intervals out.
        seed: Of the draws.

    Returns:
        For one task its figures: `auc`, `accuracy`, `balanced_accuracy`, each with `_interval`, and
        `majority` (the accuracy of always answering the majority class), `images`,
        `absent_classes`. For several the means over tasks, and each task's table under `tasks`.
    """
    drawn = {task: _labelled(labels[:, i], probabilities[task]) for i, task in enumerate(tasks)}
    blocks = []
    for weights in resample(len(labels), resamples, seed):
        figures = [_figures(weights[:, kept], y, p) for kept, y, p in drawn.values()]
        blocks.append(np.stack(figures))  # task figure resample
    values = np.concatenate(blocks, axis=2)
    tables = {}
    for i, (task, classes) in enumerate(tasks.items()):
        _, y, _ = drawn[task]
        tables[task] = _table(values[i]) | {
            "majority": float(np.mean(y == majority[task])) if len(y) else None,
            "images": len(y),
            "absent_classes": [name for c, name in enumerate(classes) if not np.any(y == c)],
        }
    if len(tables) == 1:
        return next(iter(tables.values()))
    rates = [t["majority"] for t in tables.values() if t["majority"] is not None]
    return _table(_mean_defined(values)) | {
        "majority": float(np.mean(rates)) if rates else None,
        "images": len(labels),
        "tasks": tables,
    }


def auc(
    labels: Int[np.ndarray, "image task"],
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
) -> float | None:
    """The mean over tasks of their AUCs, as in `score`; None where no task has one."""
    values = []
    for i, of_task in enumerate(probabilities.values()):
        kept, y, p = _labelled(labels[:, i], of_task)
        values.append(_auc(np.ones((1, int(kept.sum()))), y, p))
    return _plain(_mean_defined(np.stack(values))[0])


def majority_class(labels: Labels, classes: int) -> int:
    """The largest class, the first of equals; missing labels (-1) do not count."""
    return int(np.argmax(np.bincount(labels[labels >= 0], minlength=classes)))


def resample(images: int, resamples: int, seed: int) -> Iterator[Weights]:
    """How often each image is drawn, in blocks of rows; the very first row is the sample itself.

    Args:
        images: Number of images, which is also the number of draws.
        resamples: Number of rows after the first.
        seed: Of the draws.

    Yields:
        Weights that sum to `images` in each row.
    """
    yield np.ones((1, images))
    generator = np.random.default_rng(seed)
    size = max(1, BLOCK_VALUES // max(1, images))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = generator.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        yield counts.reshape(rows, images).astype(np.float64)


def _labelled(
    labels: Labels, probabilities: Probabilities
) -> tuple[
    Bool[np.ndarray, " image"],
    Int[np.ndarray, " labelled"],
    Float[np.ndarray, "labelled class"],
]:
    """Which images have a label, and the labels and probabilities of those."""
    kept = labels >= 0
    return kept, labels[kept], probabilities[kept]


def _figures(
    weights: Weights, labels: Labels, probabilities: Probabilities
) -> Float[np.ndarray, "figure resample"]:
    """`FIGURES` for each row of weights, NaN where undefined."""
    correct = _predicted(probabilities) == labels
    with np.errstate(invalid="ignore", divide="ignore"):
        recalls = [
            weights[:, of_class] @ correct[of_class] / weights[:, of_class].sum(1)
            for of_class in (labels == c for c in range(probabilities.shape[1]))
        ]
        accuracy = weights @ correct / weights.sum(1)
    return np.stack(
        [_auc(weights, labels, probabilities), accuracy, _mean_defined(np.stack(recalls))]
    )


def _predicted(probabilities: Probabilities) -> Labels:
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] > 0.5).astype(np.int64)
    most_probable: np.ndarray = probabilities.argmax(1)
    return most_probable


def _auc(
    weights: Weights, labels: Labels, probabilities: Probabilities
) -> Float[np.ndarray, " resample"]:
    classes = probabilities.shape[1]
    if classes == 2:
        return _area(weights, labels == 1, probabilities[:, 1])
    areas = [_area(weights, labels == c, probabilities[:, c]) for c in range(classes)]
    return _mean_defined(np.stack(areas))


def _area(
    weights: Weights, positive: Bool[np.ndarray, " image"], scores: Float[np.ndarray, " image"]
) -> Float[np.ndarray, " resample"]:
    """Area under the ROC curve: how often a positive outscores a negative, ties counting half."""
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    above = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    below = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    won = (above * (below.cumsum(1) - 0.5 * below)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area: np.ndarray = won / (above.sum(1) * below.sum(1))
    return area


def _mean_defined(values: Float[np.ndarray, "part ..."]) -> Float[np.ndarray, "..."]:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(defined, values, 0.0).sum(0) / defined.sum(0)
    return mean


def _table(values: Float[np.ndarray, "figure resample"]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, row in zip(FIGURES, values, strict=True):
        table[name] = _plain(row[0])
        if len(row) > 1:
            drawn = row[1:][~np.isnan(row[1:])]
            ends = np.percentile(drawn, (2.5, 97.5)) if len(drawn) else None
            table[f"{name}_interval"] = None if ends is None else [float(end) for end in ends]
    return table


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
