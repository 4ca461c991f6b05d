"""Whether evidence lies where an expert drew: the pointing game, and the share of evidence inside a mask.

scores = mask_scores(subject, "melanoma", Path("masks"), pictures, notes)
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from samcls.data.images import read_image
from samcls.errors import ImageError, InputError
from samcls.explain.maps import centre, random_maps, shown
from samcls.explain.overlay import places_in
from samcls.explain.scores import HIGHER, Score, answered_for, score_of
from samcls.explain.subject import Subject

__all__ = ["mask_scores"]

ENDS = (".png", "_segmentation.png", "_mask.png", ".jpg", ".bmp", ".tif")
ROUNDED = 0.01
HALF = 0.5  # of a window, from which it counts as marked
DRAWN = 127  # grey level above which a mask marks; one of 0 and 1 marks by 1

Pictures = Mapping[int, UInt8[np.ndarray, "_row _col 3"]]


def mask_scores(
    subject: Subject, task: str, folder: Path, pictures: Pictures, notes: list[str]
) -> dict[str, Score]:
    """Return how often the strongest window lies in the mask, and how much of what speaks for the answer does.

    Args:
        subject: What is explained.
        task: Whose evidence.
        folder: Of masks, `ID.png`, `ID_segmentation.png` or `ID_mask.png`, as large as the pictures or in the same
            proportions.
        pictures: Not needed but for their proportions.
        notes: Given a sentence on masks that are not there.

    Raises:
        InputError: there is no mask.
    """
    evidence = subject.evidence
    grid, _, side = answered_for(evidence, task)
    count = grid.shape[1]
    marked = _marked(subject, folder, pictures, (side, count), notes)
    if not marked:
        raise InputError(
            f"{folder} has no mask of any image; expected files such as {subject.ids[0]}.png"
        )
    if len(marked) < len(subject.ids):
        notes.append(f"masks are there of {len(marked)} of {len(subject.ids)} images")
    rows = list(marked)
    share, extents = np.stack(list(marked.values())), evidence.extents[rows]
    own = shown(extents, side, count)
    maps = {
        "evidence": np.maximum(grid[rows], 0),
        "random": random_maps((len(rows), count, count), 0),
        "centre": centre(extents, side, count) + 1,  # 0..1: nothing is farther than 1
    }
    point, mass = {}, {}
    for name, values in maps.items():
        weight = np.where(own, values, 0)
        best = np.where(own, values, -np.inf).reshape(len(rows), -1).argmax(1)
        inside = share.reshape(len(rows), -1)[np.arange(len(rows)), best]
        point[name] = (inside >= HALF).astype(np.float64)
        total = weight.sum((1, 2))
        mass[name] = (weight * share).sum((1, 2)) / np.where(total > 0, total, np.inf)
    groups = tuple(subject.groups[row] for row in rows)
    return {
        "pointing game": score_of(HIGHER, point, groups),
        "mass in the mask": score_of(HIGHER, mass, groups),
    }


def _marked(
    subject: Subject, folder: Path, pictures: Pictures, windows: tuple[float, int], notes: list[str]
) -> dict[int, Float[np.ndarray, "row col"]]:
    """Return, of each image that has a mask, which share of each window it marks."""
    side, count = windows
    found = {}
    there = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    for number, name in enumerate(subject.ids):
        file = next((there[name + end] for end in ENDS if name + end in there), None)
        if file is None:
            continue
        try:
            grey = read_image(str(file))[:, :, 0]
        except ImageError as error:
            notes.append(f"mask of {name} is left out: {error}")
            continue
        mask = grey > (DRAWN if grey.max(initial=0) > 1 else 0)
        if not mask.any():
            notes.append(f"mask of {name} is left out: it marks nothing")
            continue
        picture = pictures.get(number)
        if picture is not None and not _alike(mask.shape, picture.shape):
            notes.append(f"mask of {name} is left out: its proportions are not the picture's")
            continue
        at = places_in(mask.shape, (count, count), side, subject.evidence.extents[number])
        share, pixels = np.zeros((count, count)), np.zeros((count, count))
        np.add.at(share, (at[0][:, None], at[1]), mask)
        np.add.at(pixels, (at[0][:, None], at[1]), 1)
        found[number] = share / np.maximum(pixels, 1)
    return found


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two pictures have the same proportions, but for a pixel by which sides were rounded."""
    apart = abs(one[0] * other[1] / (one[1] * other[0]) - 1)
    return apart <= 1 / min(*one[:2], *other[:2]) + ROUNDED
