"""SAM's image encoder in plain operations, for tracers: the fast path's tiles and buffers leave no graph.

The blocks compute what `segment_anything`'s own compute, on the same weights. Relative positions enter as
further channels of the inner product (`appended_attention`), so that a graph holds one matrix of all pairs
and not four, and at 1024 pixels that of one head. Equal to the fast path to 1e-5 of a map's spread; a
graph of vit_b at 1024 pixels takes 1.9 times as long, and some 0.9 GB an image.

    maps = encoder.plain()(pixels)           # a tuple in the order of encoder.levels
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from samcls.encode.attention import Tables, appended_attention, relative_table

__all__ = ["PlainBlock", "PlainSam"]

PAIRS = (
    1 << 24
)  # of tokens, whose products a graph holds at once for an image: one head at 1024 pixels


class PlainBlock(nn.Module):
    """One of segment_anything's transformer blocks for one grid.

    Args:
        block: A `segment_anything.modeling.image_encoder.Block`, whose weights are shared.
        grid: Rows and columns of tokens.
        pairs: Of tokens, that attention may hold at once for an image.
    """

    by_row: Tensor
    by_col: Tensor

    def __init__(self, block: nn.Module, grid: tuple[int, int], pairs: int = PAIRS) -> None:
        super().__init__()
        parts: Any = block
        self.norm1, self.norm2, self.mlp = parts.norm1, parts.norm2, parts.mlp
        self.qkv, self.proj = parts.attn.qkv, parts.attn.proj
        self.heads, self.scale = int(parts.attn.num_heads), float(parts.attn.scale)
        self.grid, self.window, self.pairs = grid, int(parts.window_size), pairs
        rows, cols = (self.window, self.window) if self.window else grid
        channels = self.proj.in_features // self.heads
        for name, size in (("row", rows), ("col", cols)):
            source = getattr(parts.attn, "rel_pos_h" if name == "row" else "rel_pos_w", None)
            table = torch.zeros(1, channels) if source is None else source.detach()
            self.register_buffer(f"by_{name}", relative_table(table, size))

    def forward(
        self, x: Float[Tensor, "image row col channel"]
    ) -> Float[Tensor, "image row col channel"]:
        """Return the stream after the block.

        Args:
            x: The residual stream.
        """
        normed = self.norm1(x)
        x = x + (self._windows(normed) if self.window else self._attend(normed))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _windows(self, x: Tensor) -> Tensor:
        """Attend within windows; padded places are zeros, as in segment_anything, and take part."""
        (rows, cols), side, channels = self.grid, self.window, x.shape[-1]
        down, across = -(-rows // side), -(-cols // side)
        x = functional.pad(x, (0, 0, 0, across * side - cols, 0, down * side - rows))
        x = x.view(-1, down, side, across, side, channels).transpose(2, 3)
        x = self._attend(x.reshape(-1, side, side, channels))
        x = x.view(-1, down, across, side, side, channels).transpose(2, 3)
        return x.reshape(-1, down * side, across * side, channels)[:, :rows, :cols]

    def _attend(self, x: Tensor) -> Tensor:
        rows, cols, channels = x.shape[1:]
        each = self.qkv(x).view(-1, rows * cols, 3, self.heads, channels // self.heads)
        q, k, v = each.permute(2, 0, 3, 1, 4).unbind(0)
        tables, step = Tables(self.by_row, self.by_col), max(1, self.pairs // (rows * cols) ** 2)
        parts = []
        for first in range(0, self.heads, step):
            some = slice(first, first + step)
            parts.append(appended_attention(q[:, some], k[:, some], v[:, some], tables, self.scale))
        mixed = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(-1, rows, cols, channels))
        return out


class PlainSam(nn.Module):
    """SAM's image encoder for one size, up to the deepest level that is wanted.

    Args:
        body: segment_anything's own module, whose weights are shared.
        position: The learned positions at the grid of that size, "1 row col channel".
        needs: For each level, after how many blocks it is; past the last one means the neck.
    """

    position: Tensor

    def __init__(self, body: nn.Module, position: Tensor, needs: Mapping[str, int]) -> None:
        super().__init__()
        parts: Any = body
        grid = (int(position.shape[1]), int(position.shape[2]))
        self.patch_embed = parts.patch_embed
        self.register_buffer("position", position)
        self.needs: Sequence[int] = tuple(needs.values())
        blocks = parts.blocks[: max(self.needs)]
        self.blocks = nn.ModuleList(PlainBlock(block, grid) for block in blocks)
        self.neck = parts.neck if "neck" in needs else nn.Identity()
        self.ends = len(parts.blocks) + 1  # the number that stands for the neck

    def forward(self, pixels: Float[Tensor, "image 3 size size"]) -> tuple[Tensor, ...]:
        """Return each level's whole map, "image channel row col".

        Args:
            pixels: Normalised, 0 where padding is shown.
        """
        x = self.patch_embed(pixels) + self.position
        after = {0: x}
        for done, block in enumerate(self.blocks, start=1):
            x = block(x)
            after[done] = x
        maps = {done: stream.permute(0, 3, 1, 2) for done, stream in after.items()}
        if self.ends in self.needs:
            maps[self.ends] = self.neck(x.permute(0, 3, 1, 2))
        return tuple(maps[need] for need in self.needs)
