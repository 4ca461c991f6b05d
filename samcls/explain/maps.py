"""Maps that evidence is held against: random, the picture's centre, its edges."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, UInt8

from samcls.explain.geometry import overlap
from samcls.explain.overlay import GREY, places_in

__all__ = ["centre", "deleted_shares", "edges", "random_maps", "shown"]

Grid = Float[np.ndarray, "image row col"]
Extents = Float[np.ndarray, "image 2"]


def shown(extents: Extents, side: float, count: int) -> Bool[np.ndarray, "image row col"]:
    """Return which windows show any picture."""
    begins = np.arange(count) * side
    down, across = (begins < extents[:, axis, None] - 1e-9 for axis in (0, 1))
    found: np.ndarray = down[:, :, None] & across[:, None]
    return found


def random_maps(shape: tuple[int, ...], seed: int) -> Grid:
    """Return noise."""
    return np.random.default_rng(seed).random(shape)


def centre(extents: Extents, side: float, count: int) -> Grid:
    """Return how near each window is to the middle of the picture, as a share of its sides."""
    at = (np.arange(count) + 0.5) * side
    down, across = (at / extents[:, axis, None] - 0.5 for axis in (0, 1))
    found: np.ndarray = -np.hypot(down[:, :, None], across[:, None])
    return found


def edges(
    pictures: Mapping[int, UInt8[np.ndarray, "_row _col 3"]],
    extents: Extents,
    side: float,
    count: int,
) -> Grid:
    """Return how much brightness changes from pixel to pixel, in each window; 0 without a picture."""
    found = np.zeros((len(extents), count, count))
    for image, picture in pictures.items():
        slopes = np.hypot(*np.gradient(picture @ GREY)) if min(picture.shape[:2]) > 1 else None
        if slopes is None:
            continue
        rows, cols = places_in(picture.shape[:2], (count, count), side, extents[image])
        total, pixels = np.zeros((count, count)), np.zeros((count, count))
        np.add.at(total, (rows[:, None], cols), slopes)
        np.add.at(pixels, (rows[:, None], cols), 1)
        found[image] = total / np.maximum(pixels, 1)
    return found


def deleted_shares(
    gone: Bool[np.ndarray, "image row col"],
    place_side: float,
    shape: tuple[int, int],
    side: float,
    extents: Extents,
) -> Float[np.ndarray, "image down across"]:
    """Return which share of each of a level's windows lies under windows that are gone.

    Args:
        gone: Of the common windows.
        place_side: Side of the level's windows.
        shape: Rows and columns of these.
        side: Of the common windows.
        extents: Of each picture.
    """
    found = np.zeros((len(gone), *shape))
    for height, width in np.unique(extents, axis=0).tolist():
        here = (extents == (height, width)).all(1)
        down = overlap(place_side, shape[0], side, gone.shape[1], height)
        across = overlap(place_side, shape[1], side, gone.shape[2], width)
        found[here] = down @ gone[here] @ across.T
    return found
