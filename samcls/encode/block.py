"""One transformer block of segment_anything's, prepared for one grid and one precision.

Attention is in `attention.py`, with what was measured; here are the windows, the projections and the
MLP around it, each a tile of tokens at a time, and only real tokens pass the linear layers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 the field's own name

from samcls.encode.attention import (
    Method,
    Scratch,
    Tables,
    appended_attention,
    relative_table,
    tiled_attention,
    window_index,
)

__all__ = ["FastBlock"]

# A CPU tile should stay in the caches; on a GPU one kernel should see as much work as fits.
TILE_BYTES = {"cpu": 16 << 20}
TILE_BYTES_ELSEWHERE = 512 << 20
FLASH_HEAD_LIMIT = 256


@dataclass(frozen=True)
class Norm:
    """A layer norm in float32, whatever the type of the products behind it."""

    weight: Float32[Tensor, " channel"]
    bias: Float32[Tensor, " channel"]
    epsilon: float

    @classmethod
    def of(cls, layer: Any) -> "Norm":
        """Take a LayerNorm's weights as they are now."""
        return cls(layer.weight.detach(), layer.bias.detach(), layer.eps)

    def __call__(
        self, tokens: Float32[Tensor, "token channel"], dtype: torch.dtype
    ) -> Float[Tensor, "token channel"]:
        """Normalise each token and round the result to `dtype`."""
        shape = self.weight.shape
        return F.layer_norm(tokens, shape, self.weight, self.bias, self.epsilon).to(dtype)


class FastBlock:
    """One of segment_anything's transformer blocks, prepared for one grid and one precision.

    It computes what the block computes, in another order. In float32 it shares the block's
    weights; in other types it holds its own copies, and the block may be dropped. It does not
    follow the block when that is changed or moved to another device afterwards.

    Args:
        block: A `segment_anything.modeling.image_encoder.Block`, in float32, on its device.
        grid: Rows and columns of tokens that `forward` will be given.
        dtype: float32, bfloat16 or float16 for the matrix products. The residual stream, layer
            norms and the softmax's sums stay in float32.
        method: How the relative position bias reaches the attention kernel. By default `tiled`;
            on CUDA in 16 bits `appended`, where the flash kernel takes that many channels.
        tile_bytes: About how much memory one tile takes; by default 16 MiB on a CPU.
    """

    def __init__(
        self,
        block: nn.Module,
        grid: tuple[int, int],
        dtype: torch.dtype = torch.float32,
        method: Method | None = None,
        tile_bytes: int | None = None,
    ) -> None:
        parts: Any = block
        self.grid = grid
        self.dtype = dtype
        self.heads = int(parts.attn.num_heads)
        self.scale = float(parts.attn.scale)
        self._norm1, self._norm2 = Norm.of(parts.norm1), Norm.of(parts.norm2)
        self._activation = parts.mlp.act
        self._qkv = self._linear(parts.attn.qkv)
        self._proj = self._linear(parts.attn.proj)
        self._lin1 = self._linear(parts.mlp.lin1)
        self._lin2 = self._linear(parts.mlp.lin2)
        weight = self._qkv[0]
        self.window = int(parts.window_size)
        self._index = window_index(grid, self.window).to(weight.device) if self.window else None
        self.tables = self._gather_tables(parts.attn)
        self.tile_bytes = tile_bytes or TILE_BYTES.get(weight.device.type, TILE_BYTES_ELSEWHERE)
        self.method: Method = method or self._best_method(weight)

    def _linear(self, layer: Any) -> tuple[Tensor, Tensor]:
        weight = layer.weight.detach()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        return weight.to(self.dtype), bias.to(self.dtype)

    def _gather_tables(self, attention: Any) -> Tables:
        rows, cols = (self.window, self.window) if self.window else self.grid
        if attention.use_rel_pos:
            by_row, by_col = attention.rel_pos_h.detach(), attention.rel_pos_w.detach()
        else:
            by_row = by_col = self._qkv[0].new_zeros(1, len(self._proj[0]) // self.heads)
        return Tables(
            relative_table(by_row, rows).to(self.dtype), relative_table(by_col, cols).to(self.dtype)
        )

    def _best_method(self, weight: Tensor) -> Method:
        channels = len(self._proj[0]) // self.heads + len(self.tables.rows) + len(self.tables.cols)
        flash = weight.is_cuda and self.dtype != torch.float32 and channels <= FLASH_HEAD_LIMIT
        return "appended" if flash else "tiled"

    @torch.no_grad()
    def forward(
        self, tokens: Float32[Tensor, "image row col channel"], scratch: Scratch | None = None
    ) -> Float32[Tensor, "image row col channel"]:
        """Run the block.

        Args:
            tokens: The residual stream; not changed.
            scratch: Shared by the blocks of one pass, to spare each the cost of fresh memory.

        Returns:
            A new tensor of the same shape: the block's output.

        Raises:
            ValueError: the tokens stand in another grid than the block was prepared for.
        """
        if tuple(tokens.shape[1:3]) != self.grid:
            raise ValueError(
                f"tokens in a grid of {tuple(tokens.shape[1:3])}, but the block was prepared for "
                f"{self.grid}. Make a FastBlock for each grid."
            )
        scratch = scratch or Scratch()
        flat = tokens.reshape(-1, tokens.shape[-1])
        qkv = self._project(flat, scratch)
        return self._finish(flat, self._mix(qkv, len(tokens), scratch), scratch).view(tokens.shape)

    __call__ = forward

    def _tiles(self, tokens: int, width: int) -> Iterator[slice]:
        """Cut a number of tokens into even tiles of about `tile_bytes`, `width` channels each."""
        most = max(1, self.tile_bytes // (width * self._qkv[0].element_size()))
        step = math.ceil(tokens / math.ceil(tokens / most))
        return (slice(top, top + step) for top in range(0, tokens, step))

    def _project(
        self, tokens: Float32[Tensor, "token channel"], scratch: Scratch
    ) -> Float[Tensor, "token+1 3*channel"]:
        """Return each token's query, key and value; and last those of a padded, zero token."""
        weight, bias = self._qkv
        qkv = scratch.take("qkv", (len(tokens) + 1, len(weight)), weight)
        for tile in self._tiles(len(tokens), len(weight)):
            torch.addmm(bias, self._norm1(tokens[tile], self.dtype), weight.t(), out=qkv[:-1][tile])
        qkv[-1] = bias
        return qkv

    def _mix(
        self, qkv: Float[Tensor, "row qkv_channel"], images: int, scratch: Scratch
    ) -> Float[Tensor, "row-1 qkv_channel//3"]:
        """Let the tokens of each image, or of each window, attend to each other."""
        mixed = scratch.take("mixed", (len(qkv), qkv.shape[1] // 3), qkv)
        if self._index is None:
            self._mix_images(qkv, mixed, images, scratch)
        else:
            self._mix_windows(qkv, mixed, self._image_windows(self._index, images), scratch)
        return mixed[:-1]

    def _mix_images(self, qkv: Tensor, mixed: Tensor, images: int, scratch: Scratch) -> None:
        """Attend within whole images, as many heads at once as fit a tile."""
        each = qkv[:-1].view(images, -1, 3, self.heads, mixed.shape[1] // self.heads)
        out = mixed[:-1].view(images, -1, self.heads, each.shape[-1]).transpose(1, 2)
        pairs = self._pairs(each.shape[1])
        image_step, head_step = max(1, pairs // self.heads), min(pairs, self.heads)
        for top in range(0, images, image_step):
            for first in range(0, self.heads, head_step):
                chunk = each[top : top + image_step, :, :, first : first + head_step]
                # Keys are read once for each tile of queries: worth packing.
                packed = chunk.permute(2, 0, 3, 1, 4).contiguous()
                answer = self._kernel(packed, scratch)
                out[top : top + image_step, first : first + head_step] = answer

    def _mix_windows(
        self, qkv: Tensor, mixed: Tensor, index: Int64[Tensor, "window place"], scratch: Scratch
    ) -> None:
        """Attend within windows, as many at once as fit a tile."""
        windows, places = index.shape
        step = max(1, self._pairs(places) // self.heads)
        for top in range(0, windows, step):
            rows = index[top : top + step].flatten()
            spread = scratch.take("spread", (len(rows), qkv.shape[1]), qkv)
            torch.index_select(qkv, 0, rows, out=spread)
            each = spread.view(-1, places, 3, self.heads, mixed.shape[1] // self.heads)
            answer = self._kernel(each.permute(2, 0, 3, 1, 4), scratch)
            # Padded places write to the row after the last token, which nobody reads.
            mixed.index_copy_(0, rows, answer.transpose(1, 2).reshape(len(rows), -1))

    def _image_windows(
        self, index: Int64[Tensor, "window place"], images: int
    ) -> Int64[Tensor, "window*{images} place"]:
        """Give each token its number through all images; a padded place has the number after the last."""
        tokens = self.grid[0] * self.grid[1]
        first = torch.arange(images, device=index.device)[:, None, None] * tokens
        return torch.where(index < 0, images * tokens, index + first).flatten(0, 1)

    def _pairs(self, tokens: int) -> int:
        """How many attention matrices of this many tokens a tile may hold, at least one."""
        return max(1, self.tile_bytes // (tokens * tokens * self._qkv[0].element_size()))

    def _kernel(self, qkv: Tensor, scratch: Scratch) -> Tensor:
        q, k, v = qkv
        if self.method == "appended":
            return appended_attention(q, k, v, self.tables, self.scale)
        return tiled_attention(q, k, v, self.tables, self.scale, self.tile_bytes, scratch)

    def _finish(
        self,
        tokens: Float32[Tensor, "token channel"],
        mixed: Float[Tensor, "token channel"],
        scratch: Scratch,
    ) -> Float32[Tensor, "token channel"]:
        """Project the attention's answer, add it, and add the MLP's: a tile of tokens at a time."""
        out = torch.empty_like(tokens)
        weight, bias = self._lin1
        for tile in self._tiles(len(tokens), len(weight)):
            stream = out[tile]
            torch.add(tokens[tile], F.linear(mixed[tile], *self._proj), out=stream)
            normed = self._norm2(stream, self.dtype)
            hidden = scratch.take("hidden", (len(stream), len(weight)), weight)
            torch.addmm(bias, normed, weight.t(), out=hidden)
            stream += F.linear(self._activate(hidden), *self._lin2)
        return out

    def _activate(self, hidden: Tensor) -> Tensor:
        if isinstance(self._activation, nn.GELU):
            # In place: the output's fresh memory would cost four times what the function does.
            return F.gelu(hidden, approximate=self._activation.approximate, out=hidden)  # type: ignore[call-arg]
        return self._activation(hidden)  # type: ignore[no-any-return]
