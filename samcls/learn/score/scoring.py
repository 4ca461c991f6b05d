"""Predictions to named figures, with intervals; MedMNIST's conventions.

Every figure of `metrics.FIGURES` is computed for many weightings of the images at once;
`intervals` says what an interval is. Figures are plain floats or None, ready for JSON.

    table = score(labels, probabilities, {"grade": classes}, majority={"grade": 0})
    table["auc"], table["auc_interval"]
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from samcls.learn.score.calibration import temperature_scaled
from samcls.learn.score.intervals import intervals, left_out, support, unit_numbers
from samcls.learn.score.metrics import FIGURES, SMALLEST, bounds, figures, mean_defined, roc_auc
from samcls.learn.score.operating import answered

__all__ = [
    "AT_THRESHOLD",
    "auc",
    "labelled",
    "log_loss",
    "majority_class",
    "mean_intervals",
    "resample",
    "score",
]

# Figures that are told again at the threshold that validation fixed, as `<figure>_at_threshold`.
AT_THRESHOLD = ("sensitivity", "specificity", "balanced_accuracy", "accuracy", "f1")
BLOCK_VALUES = 250_000  # weights held at once: 2 MB, and as much again for each of some figures

Weights = Float[np.ndarray, "resample image"]
Labels = Int[np.ndarray, " image"]
Probabilities = Float[np.ndarray, "image class"]


def score(
    labels: Int[np.ndarray, "image task"],
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
    tasks: Mapping[str, tuple[str, ...]],
    majority: Mapping[str, int],
    parts: int = 1000,
    groups: Sequence[str] = (),
    temperatures: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """Return the table of one split.

    AUC and accuracy follow MedMNIST. Two classes: the score of the last class, its ROC AUC,
    accuracy at a score above 0.5. More: unweighted mean of one-versus-rest AUCs, accuracy of the
    most probable class. A class that has no image in the split, or all of them, has no AUC: the
    mean is over the other classes, and the table names the class under `absent_classes`. A figure
    that nothing defines is None. `figures.figures` says what the other figures are.

    Intervals take the images of one group together. A figure has none where fewer than
    `intervals.FEWEST` groups of a class are behind it, and the calibration error never has one.

    Args:
        labels: Class indices; -1 where a label is missing, which the task then leaves out.
        probabilities: For each task, probabilities in [0, 1], "image class".
        tasks: Class names of each task, in the order of the label columns.
        majority: For each task, the training split's largest class.
        parts: Most parts of the images that are left out in turn; 0 leaves the intervals out.
        groups: Patient or lesion of each image, "" where it has none; none given means that no
            image has one.
        temperatures: For each task, a temperature fitted on validation: the table then has
            `temperature` and `ece_scaled`, the calibration error of the scaled probabilities.
        thresholds: For each task of two classes, a threshold fixed on validation: the table then has
            `threshold`, and each of `AT_THRESHOLD` there, such as `sensitivity_at_threshold`.

    Returns:
        For one task its figures: each of `FIGURES`, each with `_interval`, and `majority` (the
        accuracy of always answering the majority class), `images`, `absent_classes`, and with the
        intervals `units`: what they rest on. For several the means over tasks, and each task's
        table under `tasks`.
    """
    ground = _Ground.of(labels, tasks, groups)
    values = ground.values(probabilities, parts)
    tables = {}
    for i, (task, classes) in enumerate(tasks.items()):
        _, y, p = labelled(labels[:, i], probabilities[task])
        tables[task] = (
            _table(values[i])
            | ground.intervals_of(i, values[i])
            | {
                "majority": float(np.mean(y == majority[task])) if len(y) else None,
                "images": len(y),
                "absent_classes": [name for c, name in enumerate(classes) if not np.any(y == c)],
            }
        )
        if temperatures is not None:
            scaled = figures(np.ones((1, len(y))), y, temperature_scaled(p, temperatures[task]))
            tables[task]["temperature"] = temperatures[task]
            tables[task]["ece_scaled"] = _plain(scaled[FIGURES.index("ece"), 0])
    for task, found in _at_thresholds(ground, probabilities, parts, thresholds or {}).items():
        tables[task] |= found
    if len(tables) == 1:
        return next(iter(tables.values()))
    rates = [t["majority"] for t in tables.values() if t["majority"] is not None]
    return (
        _table(mean_defined(values))
        | ground.intervals(values)
        | {
            "majority": float(np.mean(rates)) if rates else None,
            "images": len(labels),
            "tasks": tables,
        }
    )


def _at_thresholds(
    ground: "_Ground",
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
    parts: int,
    thresholds: Mapping[str, float | None],
) -> dict[str, dict[str, Any]]:
    """Return what each task's table says of the answers at its threshold."""
    known = {task: one for task, one in thresholds.items() if one is not None}
    if not known:
        return {}
    # As scores of 0 and 1 the answers go through the same figures and the same intervals.
    hard = {
        task: np.eye(2, dtype=np.float32)[answered(p, known[task])] if task in known else p
        for task, p in probabilities.items()
    }
    values, found = ground.values(hard, parts), {}
    for i, task in enumerate(ground.tasks):
        if task not in known:
            continue
        table = _table(values[i]) | ground.intervals_of(i, values[i])
        found[task] = {"threshold": known[task]} | {
            f"{name}_at_threshold{part}": table[f"{name}{part}"]
            for name in AT_THRESHOLD
            for part in ("", "_interval")
            if f"{name}{part}" in table
        }
    return found


def mean_intervals(
    labels: Int[np.ndarray, "image task"],
    answers: Sequence[Mapping[str, Float[np.ndarray, "image _class"]]],
    tasks: Mapping[str, tuple[str, ...]],
    parts: int = 1000,
    groups: Sequence[str] = (),
) -> dict[str, Any]:
    """Intervals of figures that are means over several models, such as one config's seeds.

    The same images are left out for all models, and a figure's mean over the models is taken each
    time: what other images would change, with these models as they are.

    Args:
        labels: As in `score`.
        answers: Each model's probabilities, as in `score`.
        tasks: As in `score`.
        parts: As in `score`, at least 1.
        groups: As in `score`.

    Returns:
        `<figure>_interval` of each of `FIGURES`, and `units`; for several tasks the intervals of
        the mean over them, and each task's own under `tasks`.
    """
    ground = _Ground.of(labels, tasks, groups)
    values = mean_defined(np.stack([ground.values(one, parts) for one in answers]))
    tables = {task: ground.intervals_of(i, values[i]) for i, task in enumerate(tasks)}
    if len(tables) == 1:
        return next(iter(tables.values()))
    return {**ground.intervals(values), "tasks": tables}


def auc(
    labels: Int[np.ndarray, "image task"],
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
) -> float | None:
    """Return the mean over tasks of their AUCs, as in `score`; None where no task has one."""
    values = []
    for i, of_task in enumerate(probabilities.values()):
        _, y, p = labelled(labels[:, i], of_task)
        ones = np.ones((1, len(y)))
        positives = [1] if p.shape[1] == 2 else range(p.shape[1])
        values.append(mean_defined(np.stack([roc_auc(ones, y == c, p[:, c]) for c in positives])))
    return _plain(mean_defined(np.stack(values))[0])


def log_loss(
    labels: Int[np.ndarray, "image task"],
    probabilities: Mapping[str, Float[np.ndarray, "image _class"]],
) -> float:
    """Return the mean over tasks of the mean negative logarithm of each label's probability.

    Args:
        labels: Class indices; images with -1 are left out of a task.
        probabilities: By task, in the order of the label columns.
    """
    values = []
    for i, of_task in enumerate(probabilities.values()):
        known = labels[:, i] >= 0
        likely = np.clip(of_task[known, labels[known, i]], SMALLEST, 1)
        values.append(float(-np.log(likely).mean()) if known.any() else 0.0)
    return float(np.mean(values))


def majority_class(labels: Labels, classes: int) -> int:
    """Return the largest class, the first of equals; missing labels (-1) do not count."""
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


@dataclass(frozen=True, eq=False)
class _Ground:
    """What intervals rest on: the images, their labels by task, and the units that they form."""

    labels: Int[np.ndarray, "image task"]
    tasks: Mapping[str, tuple[str, ...]]
    units: Int[np.ndarray, " image"]
    grouped: bool

    @classmethod
    def of(
        cls,
        labels: Int[np.ndarray, "image task"],
        tasks: Mapping[str, tuple[str, ...]],
        groups: Sequence[str],
    ) -> "_Ground":
        names = groups or [""] * len(labels)
        return cls(labels, tasks, unit_numbers(names), any(names))

    def values(
        self, probabilities: Mapping[str, Float[np.ndarray, "image _class"]], parts: int
    ) -> Float[np.ndarray, "task figure part"]:
        """Every figure of all images, then with each part of them left out."""
        known = [labelled(self.labels[:, i], probabilities[k]) for i, k in enumerate(self.tasks)]
        blocks = [
            np.stack([figures(weights[:, kept], y, p) for kept, y, p in known])
            for weights in left_out(self.units, parts)
        ]
        return np.concatenate(blocks, axis=2)

    def intervals_of(self, task: int, values: Float[np.ndarray, "figure part"]) -> dict[str, Any]:
        """Return a task's intervals, and what they rest on: units that have a label of the task."""
        parts = values.shape[1] - 1
        if not parts:
            return {}
        known = self.labels[:, task] >= 0
        classes = list(self.tasks.values())[task]
        counts, behind = self._support(task)
        # Parts without a labelled image change nothing and are no part of this task.
        held = np.concatenate(
            [(rows[:, known] == 0).any(1) for rows in left_out(self.units, parts)]
        )
        held[0] = True  # all images
        told = values[:, held]
        behind = np.minimum(behind, told.shape[1] - 1)
        return _named(intervals(told, bounds(len(classes)), behind)) | {
            "units": {
                "images": int(known.sum()),
                "groups": len(np.unique(self.units[known])),
                "grouped": self.grouped,
                "classes": dict(zip(classes, counts.tolist(), strict=True)),
            }
        }

    def intervals(self, values: Float[np.ndarray, "task figure part"]) -> dict[str, Any]:
        """Intervals of the means over tasks: as sure as the task with the least behind it."""
        if values.shape[2] == 1:
            return {}
        every = np.stack([self._support(i)[1] for i in range(len(self.tasks))])
        undefined = np.isnan(values[:, :, 0])
        behind = np.where(undefined, values.shape[2] - 1, every).min(0)
        behind = np.minimum(behind, values.shape[2] - 1)
        ends = np.stack([bounds(len(classes)) for classes in self.tasks.values()]).max(0)
        return _named(intervals(mean_defined(values), ends, behind))

    def _support(self, task: int) -> tuple[Int[np.ndarray, " class"], Int[np.ndarray, " figure"]]:
        classes = list(self.tasks.values())[task]
        return support(self.labels[:, task], self.units, len(classes))


def _named(ends: Sequence[list[float] | None]) -> dict[str, Any]:
    return {f"{name}_interval": pair for name, pair in zip(FIGURES, ends, strict=True)}


def _table(values: Float[np.ndarray, "figure part"]) -> dict[str, Any]:
    return {name: _plain(row[0]) for name, row in zip(FIGURES, values, strict=True)}


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
