"""Which cells of a map show picture, and averages over those alone, on whatever device the maps are.

Pooling before anything leaves the device makes what is copied and stored window^2 times smaller.
Sums are taken in float32 whatever the type of the maps.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

__all__ = ["pool_valid", "valid_cells"]


def valid_cells(
    valid: Sequence[tuple[int, int]], grid: tuple[int, int], patch: int
) -> Bool[Tensor, "image row col"]:
    """Mark the map cells that show any picture.

    Args:
        valid: height and width of the picture in encoder-input pixels, for each image.
        grid: map height and width, in cells.
        patch: side of a cell, in encoder-input pixels.
    """
    extent = torch.tensor(valid, dtype=torch.int64).reshape(-1, 2)
    rows = torch.arange(grid[0]) * patch < extent[:, :1]
    cols = torch.arange(grid[1]) * patch < extent[:, 1:]
    return rows[:, :, None] & cols[:, None, :]


def pool_valid(
    maps: Float[Tensor, "image channel row col"],
    cells: Bool[Tensor, "image row col"],
    window: int,
) -> Float[Tensor, "image channel pooled_row pooled_col"]:
    """Average each map over windows, counting only the cells that show picture.

    A window without any such cell pools to zero. Where the window does not divide the map, the last
    one is smaller.

    Args:
        maps: any floating type.
        cells: from `valid_cells`.
        window: side of a window, in cells.

    Returns:
        float32.
    """
    mask = cells.to(maps.device)[:, None]
    masked = maps.float() * mask
    if window == 1:
        return masked
    edge = [-side % window for side in maps.shape[2:]]
    padding = (0, edge[1], 0, edge[0])
    sums = functional.avg_pool2d(functional.pad(masked, padding), window, divisor_override=1)
    counts = functional.avg_pool2d(
        functional.pad(mask.float(), padding), window, divisor_override=1
    )
    return sums / counts.clamp(min=1)
