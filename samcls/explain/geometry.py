"""Windows as places in a picture: turned back from a view, and summed over levels of different grids.

Places are shares of the encoder's frame, 0..1, in which the picture lies at the upper left and padding fills the rest.
Nothing is interpolated: what a window adds is spread evenly over the part of it that shows picture, so that sums stay
what they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from samcls.store.schema import TRANSPOSED
from samcls.views import symmetry

__all__ = ["Place", "common_side", "grid_count", "on_grid", "overlap", "turned_back"]

ROUNDING = 1e-9

Maps = Float[np.ndarray, "image logit row col"]
Extents = Float[np.ndarray, "image 2"]


@dataclass(frozen=True)
class Place:
    """Where a level's windows lie.

    Attributes:
        rows: Windows down.
        cols: Windows across.
        cell: Side of a cell of the encoder's map, as a share of the frame's.
        window: Side of a window, in cells.
    """

    rows: int
    cols: int
    cell: float
    window: int

    @property
    def side(self) -> float:
        """Side of a window, as a share of the frame's."""
        return self.cell * self.window

    def cells(self, extents: Extents) -> Int[np.ndarray, "image 2"]:
        """Return how many rows and columns of cells show picture."""
        return np.ceil(extents / self.cell - ROUNDING).astype(np.int64)


def turned_back(maps: Maps, place: Place, extents: Extents, view: str) -> Maps:
    """Return what a view's windows add, in the windows of the picture as it is.

    Args:
        maps: In the windows of the turned picture.
        place: Of the level.
        extents: Height and width of the picture as it is, as shares of the frame.
        view: Its name.
    """
    if view == "identity":
        return maps
    turns, mirrored = symmetry(view)
    found = np.zeros_like(maps)
    k = place.window
    shown = place.cells(extents)
    for height, width in np.unique(shown, axis=0).tolist():
        here = (shown == (height, width)).all(1)
        down, across = (width, height) if view in TRANSPOSED else (height, width)
        rows, cols = _under(down, k, place.rows), _under(across, k, place.cols)
        each = maps[here] / np.maximum(rows[:, None] * cols, 1)
        fine = each.repeat(k, 2).repeat(k, 3)[:, :, :down, :across]
        fine = np.rot90(fine, -turns, (2, 3))
        fine = fine[..., ::-1] if mirrored else fine
        whole = np.zeros((*fine.shape[:2], place.rows * k, place.cols * k))
        whole[:, :, :height, :width] = fine
        shape = (*fine.shape[:2], place.rows, k, place.cols, k)
        found[here] = whole.reshape(shape).sum((3, 5))
    return found


def on_grid(
    maps: Mapping[str, Float[np.ndarray, "image _row _col"]],
    places: Mapping[str, Place],
    extents: Extents,
    side: float,
) -> Float[np.ndarray, "image row col"]:
    """Return the sum of all levels in windows of one side, from the frame's upper left corner.

    Args:
        maps: What each window adds, of levels that have places.
        places: Of these.
        extents: Height and width of each picture, as shares of the frame.
        side: Of the windows, as a share of the frame's.
    """
    count = grid_count(side)
    found = np.zeros((len(extents), count, count))
    for level, values in maps.items():
        place = places[level]
        for height, width in np.unique(extents, axis=0).tolist():
            here = (extents == (height, width)).all(1)
            down = overlap(place.side, place.rows, side, count, height)
            across = overlap(place.side, place.cols, side, count, width)
            found[here] += down.T @ values[here] @ across
    return found


def grid_count(side: float) -> int:
    """Return how many windows of a side lie along the frame, the last of which may hang over its edge."""
    return int(np.ceil(1 / side - ROUNDING))


def overlap(
    side: float, number: int, onto: float, count: int, extent: float
) -> Float[np.ndarray, "number count"]:
    """Return which share of each window lies under each window of another side, along one axis, picture alone.

    Args:
        side: Of the windows.
        number: Of them.
        onto: Side of the others.
        count: Of the others.
        extent: Where the picture ends.
    """
    one, other = (
        np.minimum(np.arange(n + 1) * length, extent)
        for n, length in ((number, side), (count, onto))
    )
    common = np.minimum(one[1:, None], other[1:]) - np.maximum(one[:-1, None], other[:-1])
    length = np.diff(one)[:, None]
    found: np.ndarray = np.where(
        length > ROUNDING, np.maximum(common, 0) / np.maximum(length, ROUNDING), 0
    )
    return found


def common_side(places: Mapping[str, Place], most: int | None = None) -> float:
    """Return the side of the finest windows, of those with at most so many along a side, or else of the coarsest."""
    sides = sorted(place.side for place in places.values())
    return next((side for side in sides if most is None or 1 / side <= most + ROUNDING), sides[-1])


def _under(cells: int, window: int, windows: int) -> Int[np.ndarray, " window"]:
    """Return how many cells that show picture lie under each window, along one axis."""
    return np.clip(cells - window * np.arange(windows), 0, window)
