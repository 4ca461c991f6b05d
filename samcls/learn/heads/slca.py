"""Spatially localised channel attention (SLCA): one gate for each channel and window of a map.

A gate that is constant over a window commutes with averaging over that window, so SLCA followed by
any linear pooling needs only the pooled map: same logits, window² times less of everything. `samcls
bench train` measures both forms on the machine at hand; logits agree to 1e-6.

    slca = SLCA(256, window=4, reduction=16, gate="multiply", generator=torch.Generator())
    mean = slca.gated_mean(tokens, counts)   # pooled form, "image token channel" -> "image channel"
    gated = slca.gate_maps(maps, valid)      # full form, same parameters
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from samcls.learn.heads.layers import linear
from samcls.learn.settings import Gate, Upsampling
from samcls.pooling import masked_mean, pool, to_map, to_tokens

__all__ = ["SLCA"]


class SLCA(nn.Module):
    """Channel attention from each window's own mean, our reading of arXiv 2505.06217.

    For a map x and windows of k x k cells, stride k::

        p = mean of x over the window's valid cells
        A = sigmoid(W2 relu(W1 p + b1) + b2)       W1: C -> C / reduction,  W2: C / reduction -> C_out
        y = x * up(A)  or  x + x * up(A)           up: to the map's rows and columns

    W1 and W2 are 1 x 1 convolutions; on token-major tensors a 1 x 1 convolution is a linear layer,
    which is what runs. One window over the whole map gives Squeeze-and-Excitation (1709.01507).

    Args:
        channels: C, of the map.
        window: K, in cells of the map that `gate_maps` is given; the pooled form does not need it.
        reduction: The bottleneck has max(1, C // reduction) channels.
        gate: `multiply` for x * A, `residual` for x + x * A.
        upsampling: `nearest` gives every cell its window's gate; `bilinear` interpolates between
            the centres of windows that hold picture, which only the full form can do.
        bias: Whether b1 and b2 are there.
        gate_channels: C_out, a divisor of C; each gate serves C / C_out neighbouring channels. None
            means C.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        channels: int,
        *,
        window: int,
        reduction: int,
        gate: Gate,
        generator: torch.Generator,
        upsampling: Upsampling = "nearest",
        bias: bool = True,
        gate_channels: int | None = None,
    ) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        outputs = gate_channels or channels
        self.window = window
        self.gate = gate
        self.upsampling = upsampling
        self.spread = channels // outputs
        self.squeeze = linear(channels, hidden, generator, bias=bias)
        self.excite = linear(hidden, outputs, generator, bias=bias)

    def attention(
        self, tokens: Float[Tensor, "image token channel"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the gate A of each pooled cell, in (0, 1), spread to all channels."""
        gate: Tensor = self.excite(torch.relu(self.squeeze(tokens)))
        gate.sigmoid_()
        return gate if self.spread == 1 else gate.repeat_interleave(self.spread, 2)

    def forward(
        self, tokens: Float[Tensor, "image token channel"]
    ) -> Float[Tensor, "image token channel"]:
        """Gate maps that are already pooled over this module's windows.

        Args:
            tokens: Window means, token-major. Windows without a valid cell may hold anything
                finite.
        """
        return self.gated(tokens, self.attention(tokens))

    def gated_mean(
        self, tokens: Float[Tensor, "image token channel"], counts: Float[Tensor, "image token"]
    ) -> Float[Tensor, "image channel"]:
        """Return the mean over valid cells of the gated maps, from their pooled form.

        Args:
            tokens: Window means, token-major.
            counts: Number of valid map cells under each token.
        """
        return masked_mean(self(tokens), counts)

    def gate_maps(
        self,
        maps: Float[Tensor, "image channel row col"],
        valid: Bool[Tensor, "image row col"],
    ) -> Float[Tensor, "image channel row col"]:
        """Gate whole maps; averaged over valid cells, nearest upsampling equals the pooled form.

        Args:
            maps: Feature maps; rows and columns need not be multiples of the window.
            valid: Cells that show picture rather than padding.
        """
        return self.gated(maps, self.gates(maps, valid))

    def gates(
        self,
        maps: Float[Tensor, "image channel row col"],
        valid: Bool[Tensor, "image row col"],
    ) -> Float[Tensor, "image channel row col"]:
        """Return A of each cell of whole maps.

        Args:
            maps: As for `gate_maps`.
            valid: As for `gate_maps`.
        """
        rows, cols = maps.shape[2:]
        pooled, counts = pool(maps, valid.to(maps.dtype), self.window)
        gate = to_map(self.attention(to_tokens(pooled)), pooled.shape[2])
        if self.upsampling == "nearest":
            for axis in (2, 3):
                gate = gate.repeat_interleave(self.window, axis)
        else:
            gate = _between(gate, (counts > 0)[:, None].to(gate.dtype), self.window)
        return gate[:, :, :rows, :cols]

    def gated(self, values: Tensor, gate: Tensor) -> Tensor:
        """Return x * A or x + x * A.

        Args:
            values: Features, x.
            gate: Of a shape that spreads to them, A.
        """
        return values * gate if self.gate == "multiply" else values + values * gate


def _between(gate: Tensor, shown: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling in which windows without picture have no say."""
    weight = functional.interpolate(shown, scale_factor=factor, mode="bilinear")
    total = functional.interpolate(gate * shown, scale_factor=factor, mode="bilinear")
    return total / weight.clamp(min=SMALLEST_WEIGHT)


SMALLEST_WEIGHT = 1e-6  # of cells far from any picture, whose gate is never looked at
