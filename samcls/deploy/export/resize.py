"""`make_frame` inside a graph: Pillow's antialiased bilinear filter as two products with dense weights.

The weights are worked out in the graph from the picture's own height and width, so that any size may
come; every number of Pillow's 8 bit path is kept: coefficients in double precision, rounded to 22
bits, sums of integers, one rounding to 0..255 between the passes and one after them. Rows beyond the
picture have no weight, which is the padding. A product of 2000 x 3000 x 3 by 3000 x 224 takes some
0.3 s on one core.

    frames, extent = resized(images, 224, "longest", vertical_first=vertical_first())
"""

from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from samcls.config import Resize
from samcls.data.images import make_frame
from samcls.errors import ExportError

__all__ = ["axis_weights", "new_sides", "resized", "vertical_first"]

PRECISION = 2.0**22  # Pillow's Resample.c: PRECISION_BITS is 32 - 8 - 2


def new_sides(
    height: Float[Tensor, ""], width: Float[Tensor, ""], size: int, resize: Resize
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Height and width of a picture inside its frame, in pixels, by the rule of `make_frame`.

    Args:
        height: Of the picture, float64.
        width: Likewise.
        size: Side of the frame.
        resize: "longest" keeps the aspect, "stretch" does not.
    """
    whole = torch.full((), float(size), dtype=torch.float64)
    if resize == "stretch":
        return whole, whole
    # Of a number by a tensor torch would make a product with the reciprocal: another rounding.
    scale = whole / torch.maximum(height, width)
    first, second = (torch.floor(side * scale + 0.5).clamp(min=1.0) for side in (height, width))
    return first, second


def axis_weights(
    length: int | torch.SymInt, new: Float[Tensor, ""], size: int
) -> Float[Tensor, "size _length"]:
    """Weights of one axis as whole numbers: 2 ** 22 times what each pixel counts for each new one.

    The arithmetic is that of `precompute_coeffs` and `normalize_coeffs_8bpc` in Pillow's Resample.c.

    Args:
        length: Of the axis, in pixels.
        new: How many pixels it becomes, float64, at most `size`.
        size: Rows of the result; those from `new` on are 0.
    """
    old = torch.scalar_tensor(length, dtype=torch.float64)
    scale = old / new
    wide = scale.clamp(min=1.0)  # half of what a new pixel sees: never less than one old one
    places = torch.arange(size, dtype=torch.float64)[:, None]
    pixels = torch.arange(length, dtype=torch.float64)[None]
    centre = (places + 0.5) * scale
    first = torch.floor(centre - wide + 0.5).clamp(min=0.0)
    last = torch.minimum(torch.floor(centre + wide + 0.5), old)
    distance = ((pixels - centre + 0.5) * (1.0 / wide)).abs()
    seen = (pixels >= first) & (pixels < last) & (places < new)
    raw = (1.0 - distance).clamp(min=0.0) * seen.to(torch.float64)
    total = raw.sum(1, keepdim=True)
    share = raw / torch.where(total > 0, total, torch.ones_like(total))
    return torch.floor(share * PRECISION + 0.5)


def vertical_first() -> bool:
    """Ask Pillow, by a picture, in which order it resizes one that is tall; see `resized`.

    Raises:
        ExportError: in neither, so that this Pillow resizes by a rule that no graph here knows.
    """
    picture = np.random.default_rng(0).integers(0, 256, (97, 7, 3), dtype=np.uint8)
    given = torch.from_numpy(picture).permute(2, 0, 1)[None]
    frame = torch.from_numpy(make_frame(picture, 32, "stretch").pixels).permute(2, 0, 1)
    for order in (False, True):
        found, _ = resized(given, 32, "stretch", vertical_first=order)
        if torch.equal(found[0], frame.float()):
            return order
    raise ExportError(
        "this version of Pillow resizes pictures by a rule that a graph does not know; "
        "install pillow 13.0, train again where the features were extracted with it, and export that"
    )


def resized(
    images: UInt8[Tensor, "image 3 row col"],
    size: int,
    resize: Resize,
    *,
    vertical_first: bool = False,
) -> tuple[Float[Tensor, "image 3 size size"], tuple[Float[Tensor, ""], Float[Tensor, ""]]]:
    """Bring pictures of one size to a square frame, as `make_frame` does.

    Args:
        images: RGB, 0..255.
        size: Side of the frame, in pixels.
        resize: As for `make_frame`.
        vertical_first: Whether tall pictures are resized down their columns first, as Pillow does
            from version 13 on where the height loses more than twice what the width does. Between
            the passes values are rounded, so that the order shows, by one grey level.

    Returns:
        The frames, whole numbers 0..255 in float32, 0 right of and below the picture; and the
        picture's height and width in them, float64.
    """
    rows, cols = images.shape[2], images.shape[3]
    height = torch.scalar_tensor(rows, dtype=torch.float64)
    width = torch.scalar_tensor(cols, dtype=torch.float64)
    down, across = new_sides(height, width, size, resize)
    values = images.to(torch.float64)
    by_row = axis_weights(rows, down, size)
    by_col = axis_weights(cols, across, size).transpose(0, 1)
    if not vertical_first:
        frames = _rounded(by_row @ _rounded(values @ by_col))
        return frames.to(torch.float32), (down, across)
    # Both orders, but the one that is not wanted on no pixels at all: its answer is 0.
    tall = (height > down) & (height - down > 2 * (width - across))
    wide_rows, tall_cols = _none_if(tall, rows), _none_if(~tall, cols)
    first = _rounded(values.narrow(2, 0, wide_rows) @ by_col)
    frames = _rounded(by_row.narrow(1, 0, wide_rows) @ first)
    first = _rounded(by_row @ values.narrow(3, 0, tall_cols))
    frames = frames + _rounded(first @ by_col.narrow(0, 0, tall_cols))
    return frames.to(torch.float32), (down, across)


def _none_if(empty: Bool[Tensor, ""], length: int | torch.SymInt) -> int | torch.SymInt:
    """Return a length, or 0: in a graph too, where it is known only when it runs."""
    found: Any = torch.where(empty, torch.zeros((), dtype=torch.int64), length).item()
    torch._check(found >= 0)  # noqa: SLF001 - how torch has a tracer told of bounds
    torch._check(found <= length)  # noqa: SLF001
    return cast("int", found)


def _rounded(sums: Tensor) -> Tensor:
    """Return sums of pixels times weights as pixels; Pillow adds a half and shifts."""
    return torch.floor((sums + PRECISION / 2) / PRECISION).clamp(0.0, 255.0)
