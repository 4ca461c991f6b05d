"""Attention with segment_anything's relative position bias, exact and without a matrix of all pairs.

The bias is written for a tile of queries at a time and handed to PyTorch's fused attention; nothing
of tokens x tokens is kept. `block.py` builds the whole transformer block on it; `samcls bench
encoder` measures it. The GPU branch has not been run on a GPU.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 the field's own name

__all__ = [
    "Method",
    "Scratch",
    "Tables",
    "appended_attention",
    "relative_table",
    "tiled_attention",
    "window_index",
]

Method = Literal["tiled", "appended"]

NARROW = 1024  # tokens in a group


class Scratch:
    """Buffers that the blocks of one forward pass hand on to each other.

    Fresh memory costs page faults, 0.28 ms a MB on a CPU: as much as a tenth of a block. A Scratch
    lives for one pass and belongs to one thread; what it gave out under a name is overwritten by
    the next `take` of that name.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, tuple[int, ...], torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor with `like`'s type and device."""
        key = (name, shape, like.dtype, like.device)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(shape, dtype=like.dtype, device=like.device)
        return self._buffers[key]


@dataclass(frozen=True)
class Tables:
    """Relative position embeddings by (query coordinate, channel, key coordinate)."""

    rows: Float[Tensor, "row channel row"]
    cols: Float[Tensor, "col channel col"]


def relative_table(
    embeddings: Float[Tensor, "distance channel"], size: int
) -> Float[Tensor, "query channel key"]:
    """Gather the embedding of the distance between each two coordinates along one axis.

    Args:
        embeddings: One row for each distance, from -(n - 1) to n - 1, in a grid of any length n;
            interpolated linearly when n is not `size`.
        size: The grid's length, in patches.

    Returns:
        The embedding of distance `query - key` at `[query, :, key]`.
    """
    span = 2 * size - 1
    if len(embeddings) != span:
        embeddings = F.interpolate(embeddings.t()[None], size=span, mode="linear")[0].t()
    at = torch.arange(size, device=embeddings.device)
    distance = at[:, None] - at[None, :] + (size - 1)
    return embeddings[distance].transpose(1, 2).contiguous()


def _relative_bias(
    q: Float[Tensor, "group head token channel"], tables: Tables
) -> tuple[
    Float[Tensor, "group head row col krow"],
    Float[Tensor, "group head row col kcol"],
]:
    """Return each query's bias for the keys' rows and for the keys' columns."""
    rows, cols = len(tables.rows), len(tables.cols)
    groups, heads, _, channels = q.shape
    grid = q.reshape(groups, heads, rows, cols, channels)
    # One matrix product for each row (or column) of queries, over all groups and heads at once:
    # twice as fast as matmul's broadcasting, which copies the table for each of them.
    by_row = torch.bmm(grid.permute(2, 0, 1, 3, 4).reshape(rows, -1, channels), tables.rows)
    by_col = torch.bmm(grid.permute(3, 0, 1, 2, 4).reshape(cols, -1, channels), tables.cols)
    return (
        by_row.view(rows, groups, heads, cols, rows).permute(1, 2, 0, 3, 4),
        by_col.view(cols, groups, heads, rows, cols).permute(1, 2, 3, 0, 4),
    )


def tiled_attention(
    q: Float[Tensor, "group head token channel"],
    k: Float[Tensor, "group head token channel"],
    v: Float[Tensor, "group head token channel"],
    tables: Tables,
    scale: float,
    tile_bytes: int,
    scratch: Scratch,
) -> Float[Tensor, "group head token channel"]:
    """Attend with the relative position bias written out for some rows of queries at a time.

    Args:
        q: Queries, row by row over the grid of one image or window.
        k: Keys, in the same order.
        v: Values, in the same order.
        tables: The gathered relative position embeddings of the grid.
        scale: What the inner products of queries and keys are multiplied with.
        tile_bytes: The bias of one tile takes about this much memory.
        scratch: Where the tile is kept from call to call.
    """
    groups, heads, tokens, _ = q.shape
    cols = len(tables.cols)
    relative = _relative_bias(q, tables)
    rows = max(1, tile_bytes // (groups * heads * cols * tokens * q.element_size()))
    out = torch.empty_like(q.transpose(1, 2)).transpose(1, 2)
    for top in range(0, tokens, rows * cols):
        tile = slice(top, min(tokens, top + rows * cols))
        bias = scratch.take("bias", (groups, heads, tile.stop - top, tokens), q)
        _write_bias(relative, slice(top // cols, tile.stop // cols), bias)
        out[:, :, tile] = F.scaled_dot_product_attention(
            q[:, :, tile], k, v, attn_mask=bias, scale=scale
        )
    return out


def _write_bias(
    relative: tuple[Tensor, Tensor], rows: slice, out: Float[Tensor, "group head query token"]
) -> None:
    """Write the bias of some rows of queries for all keys."""
    by_row, by_col = (part[:, :, rows] for part in relative)
    key_rows, key_cols = by_row.shape[-1], by_col.shape[-1]
    if key_rows * key_cols <= NARROW:
        # A sum's inner loop over so few columns is slower than a product with one-hot codes:
        # 4 ms instead of 13 ms for the 108 windows and heads of a tile in bfloat16.
        both = torch.cat([by_row.flatten(2, 3), by_col.flatten(2, 3)], dim=-1)
        torch.mm(both.flatten(0, 2), _codes(key_rows, key_cols, both).t(), out=out.flatten(0, 2))
    else:
        shape = (*by_row.shape, key_cols)
        torch.add(by_row[..., :, None], by_col[..., None, :], out=out.view(shape))


def _codes(rows: int, cols: int, like: Tensor) -> Float[Tensor, "{rows}*{cols} {rows}+{cols}"]:
    """Return each token's one-hot row beside its one-hot column."""
    at = torch.arange(rows * cols, device=like.device)
    codes = torch.cat([F.one_hot(at // cols, rows), F.one_hot(at % cols, cols)], dim=-1)
    return codes.to(like.dtype)


def appended_attention(
    q: Float[Tensor, "group head token channel"],
    k: Float[Tensor, "group head token channel"],
    v: Float[Tensor, "group head token channel"],
    tables: Tables,
    scale: float,
) -> Float[Tensor, "group head token channel"]:
    """Attend with the relative position bias as part of the inner product, without a mask.

    `(q, by_row, by_col) . (k, one-hot row, one-hot column) = q . k + bias`, so a kernel that takes
    no mask gives the exact result, for rows + columns more channels. Arguments as in
    `tiled_attention`.
    """
    channels = q.shape[-1]
    codes = _codes(len(tables.rows), len(tables.cols), q)
    relative = [part.flatten(2, 3) for part in _relative_bias(q, tables)]
    wide_q = torch.cat([q * scale, *relative], dim=-1)
    wide_k = torch.cat([k, codes.expand(*k.shape[:2], -1, -1)], dim=-1)
    wide_v = F.pad(v, (0, codes.shape[1]))
    return F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)[..., :channels]


def window_index(grid: tuple[int, int], side: int) -> Int64[Tensor, "window place"]:
    """Say which token stands at which place of the windows that a grid is cut into.

    Args:
        grid: Rows and columns of tokens; cut from its top left.
        side: The windows' height and width. The last ones are padded right and bottom.

    Returns:
        For each window, row by row, the number of the token at each of its places; -1 for padding.
    """
    down, across = (math.ceil(length / side) for length in grid)
    token = torch.full((down * side, across * side), -1)
    token[: grid[0], : grid[1]] = torch.arange(grid[0] * grid[1]).view(grid)
    return token.view(down, side, across, side).transpose(1, 2).reshape(down * across, side**2)
