"""`imbalance` and `absent-class`: what the labels of each split can carry."""

from collections.abc import Callable, Iterator

import numpy as np

from samcls.audit.finding import Finding
from samcls.audit.material import Material
from samcls.data.manifest import SPLITS

__all__ = ["find"]

RARE = 0.05  # share of a class among the labelled images
FEW = 5  # images of a class in a split, below which its figures are chance


def find(material: Material, note: Callable[[str], None]) -> Iterator[Finding]:
    """Yield classes that are rare, or absent from a split."""
    splits = np.array(material.splits)
    for column, (task, classes) in enumerate(material.tasks.items()):
        labels = material.labels[:, column]
        known = (labels >= 0) & material.there
        if not known.any():
            note(f"task {task}: no image has a label")
            continue
        if len(np.unique(labels[known])) == 1:
            note(
                f"task {task}: every label is {classes[labels[known][0]]}, so nothing can be learned"
            )
            continue
        counts = np.bincount(labels[known], minlength=len(classes))
        for number, name in enumerate(classes):
            if counts[number] < RARE * counts.sum():
                share = 100 * counts[number] / counts.sum()
                told = f"task {task}: class {name} has {counts[number]} images ({share:.1f} %)"
                yield material.finding("imbalance", [], told, 1 - counts[number] / counts.sum())
            for split in SPLITS:
                there = known & (splits == split)
                held = int((labels[there] == number).sum())
                if there.any() and not held:
                    told = f"task {task}: no image of class {name} in split {split}"
                    yield material.finding("absent-class", [], told)
                elif there.any() and held < FEW:
                    told = f"task {task}: {held} images of class {name} in split {split}"
                    yield material.finding("imbalance", [], told, 1 - held / there.sum())
