"""What a head that looks at pictures is shown, inside a graph: as `samcls.learn.features.pixels` does it.

The store keeps a picture once, as the identity view shows it, and its height and width are read off
the padding; other views are turns of what shows picture. The same here, with the extents as tensors.

    images = shown_images(frames, valid, views, input_size)
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from samcls.learn.features.pixels import Images
from samcls.store.schema import TRANSPOSED
from samcls.views import symmetry, transform

__all__ = ["extents_in_graph", "shown_images", "turned"]


def turned(values: Shaped[Tensor, "*lead row col"], view: str) -> Shaped[Tensor, "*lead _ _"]:
    """Return pictures as a view shows them, as `samcls.views.transform` does.

    Args:
        values: Any number of axes before rows and columns.
        view: One of the views' names.
    """
    turns, mirrored = symmetry(view)
    seen = values.flip(-1) if mirrored else values
    # Quarter turns written out: each is a swap of the axes and a mirroring.
    if turns % 2:
        seen = seen.transpose(-1, -2)
    backward = {0: [], 1: [-2], 2: [-2, -1], 3: [-1]}[turns]
    return seen.flip(backward) if backward else seen


def extents_in_graph(
    frames: Float[Tensor, "image 3 size size"], valid: Int64[Tensor, "image 2"], input_size: int
) -> Int64[Tensor, "image 2"]:
    """Height and width of what shows picture, by the rule of `extents_of`.

    Args:
        frames: Pictures, 0..255, padded right and bottom with 0.
        valid: Height and width of the picture in the encoder's frame, in its pixels.
        input_size: Side of the encoder's frame.
    """
    size = frames.shape[-1]
    scaled, half = valid.double() * size / input_size, 0.5 * size / input_size
    least = (scaled - half + 0.5).floor().clamp(1, size).long()
    most = (scaled + half + 0.5).floor().clamp(1, size).long()
    least = torch.where(valid == 1, torch.ones_like(least), least)
    least = torch.where(valid == input_size, torch.full_like(least, size), least)
    place = torch.arange(size)[None]
    lit = frames.amax(1)
    found = []
    for axis, other in ((0, 2), (1, 1)):
        first, last = least[:, axis : axis + 1], most[:, axis : axis + 1]
        seen = (lit.amax(other) > 0) & (place >= first) & (place < last)
        after = torch.where(seen, place + 1, torch.zeros_like(place)).amax(1, keepdim=True)
        found.append(torch.maximum(first, after))
    return torch.cat(found, 1)


def shown_images(
    frames: Float[Tensor, "image 3 size size"],
    valid: Int64[Tensor, "image 2"],
    views: Sequence[str],
    input_size: int,
) -> Images:
    """Return pictures under all views, those of a picture one after another.

    Args:
        frames: Pictures as the identity view shows them, 0..255, padded right and bottom with 0.
        valid: Height and width of the picture in the encoder's frame, in its pixels.
        views: Names of the views.
        input_size: Side of the encoder's frame.
    """
    size = frames.shape[-1]
    extents = extents_in_graph(frames, valid, input_size)
    whole = frames * _within(extents, size)[:, None].to(frames.dtype)
    values, shown = [], []
    for view in views:
        own = extents.flip(1) if view in TRANSPOSED else extents
        # Where the picture's corner came to lie says which sides the padding is on now.
        corner = np.zeros((2, 2, 3), dtype=np.uint8)
        corner[0, 0] = 1
        low = np.argwhere(transform(corner, view)[..., 0])[0]
        seen = turned(whole, view)
        for axis in (0, 1):
            if low[axis]:
                seen = _shifted(seen, size - own[:, axis], axis + 2)
        values.append(seen)
        shown.append(_within(own, size)[:, None])
    return Images(torch.stack(values, 1).flatten(0, 1) / 255, torch.stack(shown, 1).flatten(0, 1))


def _within(extents: Int64[Tensor, "image 2"], size: int) -> Bool[Tensor, "image size size"]:
    place = torch.arange(size)[None]
    rows, cols = place < extents[:, :1], place < extents[:, 1:]
    return rows[:, :, None] & cols[:, None, :]


def _shifted(values: Tensor, by: Int64[Tensor, " image"], axis: int) -> Tensor:
    """Move each picture's content towards the start of an axis; what falls off comes back at its end."""
    size = values.shape[axis]
    index = (torch.arange(size)[None] + by[:, None]) % size
    index = index[:, None, :, None] if axis == 2 else index[:, None, None, :]
    return torch.gather(values, axis, index.expand_as(values))
