"""`acquisition`: whether size, colour, border or a `meta:` column tells the label by itself.

For each such column a logistic regression is learned on four fifths of the images, groups whole, and asked for the
rest; the AUC of all answers has the interval that every figure of samcls has. A model may learn the camera instead
of the disease where it is high, and a leak of the label stands out at once.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from samcls.audit.checks.labels import FEWEST, FOLDS, out_of_fold
from samcls.audit.finding import Finding
from samcls.audit.material import Material

__all__ = ["find"]

TELLING = 0.6  # AUC
CHANCE = 0.5
VALUES = 20  # different texts of a column, above which only numbers are looked at
PARTS = 1000


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield each column that tells a task's label."""
    del note
    columns = _columns(material)
    rows = material.rows
    for place, (task, classes) in enumerate(material.tasks.items()):
        labels = material.labels[rows, place]
        known = np.flatnonzero(labels >= 0)
        counts = np.bincount(labels[known], minlength=len(classes))
        if len(known) < FEWEST or (counts >= FOLDS).sum() < 2:
            continue
        groups = [material.groups[row] for row in rows[known].tolist()]
        if all(groups) and len(set(groups)) < 2:
            continue
        for name, values in columns.items():
            if not np.ptp(values[known], axis=0).any():
                continue
            said = out_of_fold(values[known], labels[known], groups, len(classes))
            auc, interval = _auc(task, classes, labels[known], said, groups)
            if auc >= TELLING and interval is not None and interval[0] > CHANCE:
                low, high = interval
                told = f"task {task}: {name} alone tells the label with AUC {auc:.3f} ({low:.3f} to {high:.3f})"
                yield material.finding("acquisition", [], told, auc)


def _columns(material: Material) -> dict[str, Float[np.ndarray, "image number"]]:
    """Return what is known of how each picture was made, as numbers, a row for each image of `rows`."""
    found: dict[str, Float[np.ndarray, "image number"]] = {}
    rows = material.rows
    if material.looks is not None:
        sizes = material.looks.sizes[rows].astype(np.float64)
        seen = material.looks.there[rows]
        sizes[~seen] = np.median(sizes[seen], axis=0) if seen.any() else 1
        found["size"] = np.log(
            np.maximum(np.column_stack([sizes, sizes[:, 0] / sizes[:, 1]]), 1e-3)
        )
        found["mode (grey or coloured)"] = material.looks.grey[rows].astype(np.float64)[:, None]
        found["flat border"] = material.looks.border[rows].astype(np.float64)[:, None]
    elif material.store is not None:
        valid = material.store.valid[rows].astype(np.float64)
        found["aspect"] = (valid[:, 0] / np.maximum(valid[:, 1], 1))[:, None]
    for name, texts in material.meta.items():
        values = _numbers([texts[row] for row in rows.tolist()])
        if values is not None:
            found[f"meta:{name}"] = values
    return found


def _numbers(texts: Sequence[str]) -> Float[np.ndarray, "image number"] | None:
    """Return texts of a few kinds as an indicator of each, and numbers as they are with one of their absence."""
    kinds = sorted(set(texts))
    if 2 <= len(kinds) <= VALUES:
        return np.array([[text == kind for kind in kinds] for text in texts], dtype=np.float64)
    try:
        values = np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return None
    gone = ~np.isfinite(values)
    if gone.all():
        return None
    return np.column_stack([np.where(gone, np.median(values[~gone]), values), gone])


def _auc(
    task: str,
    classes: tuple[str, ...],
    labels: Int[np.ndarray, " image"],
    said: Float[np.ndarray, "image class"],
    groups: Sequence[str],
) -> tuple[float, list[float] | None]:
    """Return the AUC, of more classes than two the mean over them, and its interval if any is believed."""
    from samcls.learn.score.headline import of_task
    from samcls.learn.score.scoring import score  # imports scipy.stats

    share = said / said.sum(1, keepdims=True)
    table = score(labels[:, None], {task: share}, {task: classes}, {task: 0}, PARTS, list(groups))
    found = of_task(table, task)
    auc = found.get("auc")
    return (float("nan") if auc is None else float(auc)), found.get("auc_interval")
