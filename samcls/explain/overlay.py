"""Evidence over a picture, in the picture's own coordinates.

A window is drawn as it is, with sharp edges: nothing is interpolated, and no resolution is invented. Orange speaks for
the class and blue against it; orange is light and blue is dark, so that they stay apart in grey print and to eyes that
see colours otherwise. What adds nothing leaves the picture as it is, in grey of less contrast.

    drawn = overlay(picture, values, side, extent, scale)
"""

import numpy as np
from jaxtyping import Float, Int, UInt8

__all__ = ["AGAINST", "FOR", "GREY", "coloured", "fitted", "overlay", "places_in", "shrunk"]

FOR = (255, 176, 0)  # RGB, light
AGAINST = (0, 46, 138)  # dark
STRONGEST = 0.8  # share of the colour where evidence reaches the scale
DARKEST, CONTRAST = 50, 0.7  # of the picture in grey: neither colour is lost on black or white
GREY = np.array([0.299, 0.587, 0.114])

Picture = UInt8[np.ndarray, "row col 3"]


def overlay(
    picture: Picture,
    values: Float[np.ndarray, "down across"],
    side: float,
    extent: Float[np.ndarray, " 2"],
    scale: float,
) -> Picture:
    """Return a picture, in grey, with the evidence of its windows over it; as large as the picture.

    Args:
        picture: RGB.
        values: What each window adds, in logits, from the frame's upper left corner.
        side: Of a window, as a share of the frame's.
        extent: Height and width of the picture, as shares of the frame.
        scale: Logits at which a colour is strongest.
    """
    rows, cols = places_in(picture.shape[:2], values.shape, side, extent)
    shown = values[rows[:, None], cols]
    grey = np.repeat((DARKEST + CONTRAST * (picture @ GREY))[:, :, None], 3, 2)
    return coloured(shown, scale, grey)


def places_in(
    size: tuple[int, ...], windows: tuple[int, ...], side: float, extent: Float[np.ndarray, " 2"]
) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " col"]]:
    """Return the window that each row and each column of a picture lies in.

    Args:
        size: Rows and columns of the picture.
        windows: Rows and columns of windows.
        side: Of a window, as a share of the frame's.
        extent: Height and width of the picture, as shares of the frame.
    """
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) / n * share / side).astype(np.int64), most - 1)
        for n, share, most in zip(size, extent.tolist(), windows, strict=True)
    )
    return rows, cols


def coloured(
    values: Float[np.ndarray, "row col"], scale: float, under: Float[np.ndarray, "row col 3"]
) -> Picture:
    """Return values as colours over something.

    Args:
        values: In logits.
        scale: At which a colour is strongest.
        under: RGB, 0..255.
    """
    strength = np.clip(np.abs(values) / scale if scale else np.abs(values) * 0, 0, 1)
    weight = (STRONGEST * strength)[:, :, None]
    colour = np.where((values > 0)[:, :, None], FOR, AGAINST)
    found: np.ndarray = np.clip(under * (1 - weight) + colour * weight + 0.5, 0, 255).astype(
        np.uint8
    )
    return found


def fitted(picture: Picture, most: int) -> UInt8[np.ndarray, "_row _col 3"]:
    """Return a picture of about so many pixels a side: shrunk, or each pixel repeated.

    Args:
        picture: RGB.
        most: Pixels of the longer side.
    """
    times = max(1, most // max(picture.shape[:2]))
    return shrunk(picture, most) if times == 1 else picture.repeat(times, 0).repeat(times, 1)


def shrunk(picture: Picture, most: int) -> UInt8[np.ndarray, "_row _col 3"]:
    """Return a picture no side of which is longer than so many pixels: means of whole blocks."""
    step = max(1, -(-max(picture.shape[:2]) // most))
    height, width = (max(1, n // step) for n in picture.shape[:2])
    part = picture[: height * step, : width * step]
    if step == 1 or min(picture.shape[:2]) < step:
        return np.ascontiguousarray(picture[::step, ::step])
    found: np.ndarray = part.reshape(height, step, width, step, 3).mean((1, 3)).astype(np.uint8)
    return found
