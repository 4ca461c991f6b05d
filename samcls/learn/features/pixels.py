"""The images that stand beside cached features, under the same views: what a guided network looks at.

Pixels are kept once, as the identity view shows them; the other views' are made by turning what
shows picture and padding it again, right and bottom, as stage one does before it encodes a view. So
a map and its pixels always show the same.

    images = pixels.batch(rows, torch.device("cpu"))
    images.values, images.shown               # 0..1, "image 3 row col"; "image 1 row col"
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from samcls.learn.features.mapped import scratch_tensor
from samcls.store.feature_store import FeatureStore
from samcls.views import symmetry

__all__ = ["Images", "Pixels", "extents_of", "jittered"]

BLOCK_ROWS = 256  # images read at once


@dataclass(frozen=True, eq=False)
class Images:
    """A batch of images.

    Attributes:
        values: RGB, 0..1; what lies beyond the picture is 0.
        shown: Which pixels show picture rather than padding.
    """

    values: Float[Tensor, "image 3 size size"]
    shown: Bool[Tensor, "image 1 size size"]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of every image.

    Attributes:
        values: RGB, 0..255, as the identity view shows them, padded right and bottom.
        extents: Height and width of what shows picture.
        views: Names of the views, in the order of the features' rows.
    """

    values: UInt8[Tensor, "image size size 3"]
    extents: Int64[Tensor, "image 2"]
    views: tuple[str, ...] = ("identity",)

    @property
    def size(self) -> int:
        """Side of the images."""
        return int(self.values.shape[1])

    @classmethod
    def load(
        cls, store: FeatureStore, rows: Int64[Tensor, " image"], memory: int | None = None
    ) -> "Pixels":
        """Read some images of a store.

        Args:
            store: One that keeps pixels.
            rows: Of the store.
            memory: Bytes that they may take; where they would take more they lie in a scratch file.
                None sets no limit.

        Raises:
            StoreError: where the store keeps none, or they are damaged.
            RunError: where there is no room for the scratch file.
        """
        size = store.pixel_size
        shape = (len(rows), size, size, 3)
        scratch = memory is not None and math.prod(shape) > memory
        values = (scratch_tensor if scratch else torch.empty)(shape, dtype=torch.uint8)
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS].numpy()
            values[start : start + len(block)] = torch.from_numpy(store.pixels(block))
        valid = torch.from_numpy(store.valid[rows.numpy()].astype(np.int64))
        extents = extents_of(values, valid, store.fingerprint.input_size)
        return cls(values, extents, store.fingerprint.views)

    def picked(self, rows: Int64[Tensor, " row"]) -> "Pixels":
        """Return some images, in the order given."""
        return Pixels(self.values[rows], self.extents[rows], self.views)

    def batch(self, rows: Int64[Tensor, " view"], device: torch.device) -> Images:
        """Images under their views, on a device.

        Args:
            rows: View v of image i is row i * views + v, as in the features.
            device: Where the batch is wanted.
        """
        images, views = rows // len(self.views), rows % len(self.views)
        raw = self.values[images.to(self.values.device)].to(device, non_blocking=True)
        frames = raw.permute(0, 3, 1, 2)
        extents = self.extents[images]
        shown = torch.zeros(len(rows), 1, self.size, self.size, dtype=torch.bool, device=device)
        turned = torch.zeros_like(frames)
        whole = (extents == self.size).all(1)
        for view in sorted(set(views.tolist())):
            name = self.views[view]
            full = torch.nonzero((views == view) & whole).flatten().to(device)
            turned[full] = _turned(frames[full], name)
            shown[full] = True
            for i in torch.nonzero((views == view) & ~whole).flatten().tolist():
                height, width = extents[i].tolist()
                picture = _turned(frames[i, :, :height, :width], name)
                turned[i, :, : picture.shape[1], : picture.shape[2]] = picture
                shown[i, :, : picture.shape[1], : picture.shape[2]] = True
        return Images(turned.float() / 255, shown)


def extents_of(
    values: UInt8[Tensor, "image size size 3"], valid: Int64[Tensor, "image 2"], input_size: int
) -> Int64[Tensor, "image 2"]:
    """Height and width of what shows picture in each image.

    The encoder's own side was rounded, so that of the image is known to a pixel or two; which it is,
    the padding says, being 0. Only a picture whose last row is black all along can be taken for one
    that ends before it.

    Args:
        values: Images, padded right and bottom.
        valid: Height and width of the picture in the encoder's frame, in its pixels.
        input_size: Side of the encoder's frame.
    """
    size = int(values.shape[1])
    scaled, half = valid.double() * size / input_size, 0.5 * size / input_size
    least = (scaled - half + 0.5).floor().clamp(1, size).long()
    most = (scaled + half + 0.5).floor().clamp(1, size).long()
    least[valid == 1] = 1  # what rounds to less is one pixel all the same
    # The longer side fills both frames; of a frame that is full both ways nothing more is known.
    least[valid == input_size] = size
    found = least.clone()
    for image, axis in torch.nonzero(least < most).tolist():
        first, last = int(least[image, axis]), int(most[image, axis])
        lines = values[image].narrow(axis, first, last - first)
        shown = torch.nonzero(lines.movedim(axis, 0).flatten(1).any(1)).flatten()
        if len(shown):
            found[image, axis] = first + int(shown[-1]) + 1
    return found


def jittered(images: Images, amount: float, generator: torch.Generator) -> Images:
    """Images of other brightness and contrast; where things are does not change.

    Args:
        images: A batch.
        amount: Brightness and contrast are each multiplied by a factor drawn evenly from
            1 - amount to 1 + amount, contrast about the mean of what shows picture; 0 changes
            nothing and draws nothing.
        generator: Source of the factors, on the CPU.
    """
    if not amount:
        return images
    # Image by image, so that a batch in parts is drawn as one would be that is whole.
    drawn = torch.empty(len(images.values), 2, 1, 1, 1).uniform_(
        1 - amount, 1 + amount, generator=generator
    )
    bright, contrast = drawn.to(images.values.device).unbind(1)
    values = images.values * bright
    cells = images.shown.sum((1, 2, 3), keepdim=True).clamp(min=1)
    mean = (values * images.shown).sum((1, 2, 3), keepdim=True) / (3 * cells)
    changed = ((values - mean) * contrast + mean).clamp(0, 1)
    return Images(changed * images.shown, images.shown)


def _turned(frames: Tensor, view: str) -> Tensor:
    """Frames "... row col" as a view shows them."""
    turns, mirrored = symmetry(view)
    seen = frames.flip(-1) if mirrored else frames
    return torch.rot90(seen, turns, (-2, -1))
