"""Means over windows of a map's valid cells: the one identity that both stages rest on.

A gate that is constant over a window commutes with the mean over it, and means of means that weigh by
their counts compose; so a store pooled over 4 x 4 cells serves every multiple of 4. Cells that show only
padding are left out. Sums are taken in float32 whatever the type of the maps.

    cells = valid_cells([(1024, 768)], (64, 64), 16)
    pooled = pool_valid(maps, cells, 4)
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

__all__ = [
    "masked_mean",
    "pool",
    "pool_valid",
    "shares_of",
    "to_map",
    "to_tokens",
    "valid_cells",
    "window_sums",
]


def valid_cells(
    valid: Sequence[tuple[int, int]], grid: tuple[int, int], patch: int
) -> Bool[Tensor, "image row col"]:
    """Mark the map cells that show any picture.

    Args:
        valid: Height and width of the picture in encoder-input pixels, for each image.
        grid: Map height and width, in cells.
        patch: Side of a cell, in encoder-input pixels.
    """
    extent = torch.tensor(valid, dtype=torch.int64).reshape(-1, 2)
    rows = torch.arange(grid[0]) * patch < extent[:, :1]
    cols = torch.arange(grid[1]) * patch < extent[:, 1:]
    return rows[:, :, None] & cols[:, None, :]


def window_sums(
    values: Float[Tensor, "*lead row col"], window: int
) -> Float[Tensor, "*lead down across"]:
    """Return sums over windows of window x window cells; the last ones are smaller where it does not divide.

    Args:
        values: Three or four axes.
        window: Side of a window, in cells.
    """
    edge = (0, -values.shape[-1] % window, 0, -values.shape[-2] % window)
    return functional.avg_pool2d(functional.pad(values, edge), window, divisor_override=1)


def pool_valid(
    maps: Float[Tensor, "image channel row col"],
    cells: Bool[Tensor, "image row col"],
    window: int,
) -> Float[Tensor, "image channel pooled_row pooled_col"]:
    """Average each map over windows, counting only the cells that show picture.

    A window without any such cell pools to zero. Where the window does not divide the map, the last
    one is smaller.

    Args:
        maps: Any floating type.
        cells: From `valid_cells`.
        window: Side of a window, in cells.

    Returns:
        float32.
    """
    mask = cells.to(maps.device)
    masked = maps.float() * mask[:, None]
    if window == 1:
        return masked
    counts = window_sums(mask.float(), window)
    return window_sums(masked, window) / counts.clamp(min=1)[:, None]


def pool(
    maps: Float[Tensor, "image channel row col"],
    counts: Float[Tensor, "image row col"],
    factor: int,
) -> tuple[Float[Tensor, "image channel down across"], Float[Tensor, "image down across"]]:
    """Average over factor x factor windows, each cell weighing as many cells as it stands for.

    Pools compose: `pool(*pool(x, n, 4), 2)` equals `pool(x, n, 8)`, also where the grid is no
    multiple of the window, since the windows start at the same corner and the last ones hold fewer
    cells.

    Args:
        maps: Maps, pooled before or not.
        counts: Number of valid map cells under each cell: 0 or 1 for a map never pooled.
        factor: Side of the window, in cells of `maps`.

    Returns:
        The means over valid cells, 0 for a window that has none, and the windows' counts.
    """
    if factor == 1:
        return maps, counts
    count = window_sums(counts, factor)
    return window_sums(maps * counts[:, None], factor) / count.clamp(min=1)[:, None], count


def shares_of(counts: Float[Tensor, "image token"]) -> Float[Tensor, "image token"]:
    """Each token's share of its image's valid cells; all 0 for an image that has none."""
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


def masked_mean(
    tokens: Float[Tensor, "image token channel"], counts: Float[Tensor, "image token"]
) -> Float[Tensor, "image channel"]:
    """Mean over the valid cells of each image; 0 for an image that has none.

    Args:
        tokens: Window means.
        counts: Number of valid map cells under each token.
    """
    return torch.bmm(shares_of(counts)[:, None], tokens)[:, 0]


def to_tokens(
    maps: Float[Tensor, "image channel row col"],
) -> Float[Tensor, "image token channel"]:
    """Return maps as tokens, row by row, contiguous."""
    return maps.flatten(2).transpose(1, 2).contiguous()


def to_map(
    tokens: Float[Tensor, "image token channel"], rows: int
) -> Float[Tensor, "image channel row col"]:
    """Tokens as maps of so many rows: the inverse of `to_tokens`."""
    images, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(images, channels, rows, -1)
