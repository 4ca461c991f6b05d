"""Predictions to named figures, with bootstrap intervals; MedMNIST's conventions.

A resample is a row of weights: how often each image was drawn. Every figure of `figures.FIGURES` is
computed for all rows at once, so 1,000 resamples of 400 images in five classes take 0.2 s. Figures
are plain floats or None, ready for JSON.

    table = score(labels, probabilities, {"grade": classes}, majority={"grade": 0})
    table["auc"], table["auc_interval"]
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from samcls.learn.calibration import cooled
from samcls.learn.figures import FIGURES, area, figures, mean_defined

__all__ = ["auc", "labelled", "majority_class", "mean_intervals", "resample", "score"]

BLOCK_VALUES = 250_000  # weights held at once: 2 MB, and as much again for each of some figures

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
    temperatures: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The table of one split.

    AUC and accuracy follow MedMNIST. Two classes: the score of the last class, its ROC AUC,
    accuracy at a score above 0.5. More: unweighted mean of one-versus-rest AUCs, accuracy of the
    most probable class. A class that has no image in the split, or all of them, has no AUC: the
    mean is over the other classes, and the table names the class under `absent_classes`. A figure
    that nothing defines is None. `figures.figures` says what the other figures are.

    Intervals hold the middle 95 % of the resamples in which the figure is defined: images drawn
    with replacement, the same draws for every figure and task.

    Args:
        labels: Class indices; -1 where a label is missing, which the task then leaves out.
        probabilities: For each task, probabilities in [0, 1], "image class".
        tasks: Class names of each task, in the order of the label columns.
        majority: For each task, the training split's largest class.
        resamples: Number of resamples; 0 leaves the intervals out.
        seed: Of the draws.
        temperatures: For each task, a temperature fitted on validation: the table then has
            `temperature` and `ece_scaled`, the calibration error of the scaled probabilities.

    Returns:
        For one task its figures: each of `FIGURES`, each with `_interval`, and `majority` (the
        accuracy of always answering the majority class), `images`, `absent_classes`. For several the means over tasks, and each task's table under `tasks`.
    """
    values = _drawn(labels, probabilities, tasks, resamples, seed)
    tables = {}
    for i, (task, classes) in enumerate(tasks.items()):
        _, y, p = labelled(labels[:, i], probabilities[task])
        tables[task] = _table(values[i]) | {
            "majority": float(np.mean(y == majority[task])) if len(y) else None,
            "images": len(y),
            "absent_classes": [name for c, name in enumerate(classes) if not np.any(y == c)],
        }
        if temperatures is not None:
            scaled = figures(np.ones((1, len(y))), y, cooled(p, temperatures[task]))
            tables[task]["temperature"] = temperatures[task]
            tables[task]["ece_scaled"] = _plain(scaled[FIGURES.index("ece"), 0])
    if len(tables) == 1:
        return next(iter(tables.values()))
    rates = [t["majority"] for t in tables.values() if t["majority"] is not None]
    return _table(mean_defined(values)) | {
        "majority": float(np.mean(rates)) if rates else None,
        "images": len(labels),
        "tasks": tables,
    }


def mean_intervals(
    labels: Int[np.ndarray, "image task"],
    answers: Sequence[Mapping[str, Float[np.ndarray, "image _class"]]],
    tasks: Mapping[str, tuple[str, ...]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Intervals of figures that are means over several models, such as one config's seeds.

    Images are drawn with replacement, the same for all models, and a figure's mean over the models
    is taken in each resample: what other images would change, with these models as they are.

    Args:
        labels: As in `score`.
        answers: Each model's probabilities, as in `score`.
        tasks: As in `score`.
        resamples: Number of resamples, at least 1.
        seed: Of the draws.

    Returns:
        `<figure>_interval` of each of `FIGURES`; for several tasks of the mean over them, and each
        task's own under `tasks`.
    """
    every = np.stack([_drawn(labels, one, tasks, resamples, seed) for one in answers])
    values = mean_defined(every)
    tables = {task: _intervals(_table(one)) for task, one in zip(tasks, values, strict=True)}
    if len(tables) == 1:
        return next(iter(tables.values()))
    return {**_intervals(_table(mean_defined(values))), "tasks": tables}


def auc(
    labels: Int[np.ndarray, "image task"],
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
) -> float | None:
    """The mean over tasks of their AUCs, as in `score`; None where no task has one."""
    values = []
    for i, of_task in enumerate(probabilities.values()):
        _, y, p = labelled(labels[:, i], of_task)
        ones = np.ones((1, len(y)))
        positives = [1] if p.shape[1] == 2 else range(p.shape[1])
        values.append(mean_defined(np.stack([area(ones, y == c, p[:, c]) for c in positives])))
    return _plain(mean_defined(np.stack(values))[0])


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


def labelled(
    labels: Labels, probabilities: Probabilities
) -> tuple[
    Bool[np.ndarray, " image"],
    Int[np.ndarray, " labelled"],
    Float[np.ndarray, "labelled class"],
]:
    """Which images have a label, and the labels and probabilities of those."""
    kept = labels >= 0
    return kept, labels[kept], probabilities[kept]


def _drawn(
    labels: Int[np.ndarray, "image task"],
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
    tasks: Mapping[str, tuple[str, ...]],
    resamples: int,
    seed: int,
) -> Float[np.ndarray, "task figure resample"]:
    """Every figure in every resample, the first of which is the sample itself."""
    known = [labelled(labels[:, i], probabilities[task]) for i, task in enumerate(tasks)]
    blocks = []
    for weights in resample(len(labels), resamples, seed):
        found = [figures(weights[:, kept], y, p) for kept, y, p in known]
        blocks.append(np.stack(found))
    return np.concatenate(blocks, axis=2)


def _intervals(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name.endswith("_interval")}


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
