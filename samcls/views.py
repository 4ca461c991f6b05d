"""Views: the symmetries of a square under which an image is encoded, and its pixels are shown.

The encoder sees the transformed image, so a view's map lies in the transformed image's own
coordinates; views that swap the sides swap height and width of what is valid. Free rotation is not
among them: features of a picture turned by another angle are not features of the cached picture.
"""

import numpy as np
from jaxtyping import UInt8

from samcls.errors import ConfigError

__all__ = ["VIEWS", "VIEW_SETS", "symmetry", "transform", "view_names"]

# Each view is a quarter-turn count, counter-clockwise, after an optional mirroring left to right.
VIEWS = {
    "identity": (0, False),
    "rot90": (1, False),
    "rot180": (2, False),
    "rot270": (3, False),
    "flip": (0, True),
    "transpose": (1, True),
    "flip_vertical": (2, True),
    "antitranspose": (3, True),
}

VIEW_SETS = {"none": ("identity",), "flip": ("identity", "flip"), "d4": tuple(VIEWS)}


def view_names(views: str) -> tuple[str, ...]:
    """Return the views of a set, identity first.

    Raises:
        ConfigError: there is no such set.
    """
    if views not in VIEW_SETS:
        raise ConfigError(f"views is {views!r}; expected one of {', '.join(VIEW_SETS)}")
    return VIEW_SETS[views]


def symmetry(view: str) -> tuple[int, bool]:
    """Return a view's quarter turns, counter-clockwise, and whether it is mirrored before them.

    Raises:
        ConfigError: there is no such view.
    """
    if view not in VIEWS:
        raise ConfigError(f"unknown view {view!r}; expected one of {', '.join(VIEWS)}")
    return VIEWS[view]


def transform(image: UInt8[np.ndarray, "row col 3"], view: str) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the image as a view shows it; a copy only where memory order asks for one."""
    turns, mirrored = symmetry(view)
    seen = image[:, ::-1] if mirrored else image
    return np.ascontiguousarray(np.rot90(seen, turns))
