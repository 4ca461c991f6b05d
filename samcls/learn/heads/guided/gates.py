"""The gates of a guided network: SLCA from a cached level to a stage, or SE on the stage itself.

A gate A in (0, 1) for each channel of the stage and each window of the level; `residual` turns a
stage's output x into x + x * A, `multiply` into x * A. Both start a tenth away from leaving x as it
is, so that pretrained weights meet what they know and the sigmoid still has a slope to learn by.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from samcls.learn.heads.guided.backbone import Point
from samcls.learn.heads.guided.resize import Resize
from samcls.learn.heads.layers import linear
from samcls.learn.settings import Gate, Upsampling

__all__ = ["GatedPoint", "SelfGate", "StageGate", "switched_off"]

START = 0.1  # how far from identity a gate begins


class StageGate(nn.Module):
    """SLCA's two layers, with as many outputs as the stage has channels.

    Args:
        inputs: Channels of the level.
        outputs: Channels of the stage, C_out.
        reduction: The bottleneck has max(1, inputs // reduction) channels.
        gate: Which identity it starts near.
        bias: Whether the layers have biases; without one the second starts at A = 0.5.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        reduction: int,
        gate: Gate,
        bias: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        hidden = max(1, inputs // reduction)
        self.squeeze = linear(inputs, hidden, generator, bias=bias)
        self.excite = linear(hidden, outputs, generator, bias=bias)
        _start(self.excite, gate)

    def forward(
        self, tokens: Float[Tensor, "image row col channel"]
    ) -> Float[Tensor, "image row col output"]:
        """Return the gate A of each window, in (0, 1)."""
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(tokens))))


class SelfGate(nn.Module):
    """Squeeze-and-Excitation (1709.01507) on the stage's own output: the control for SAM's features.

    Args:
        channels: Of the stage.
        parameters: Of the gate that it stands in for; its bottleneck is as wide as comes closest.
        gate: Which identity it starts near.
        bias: Whether the layers have biases.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        channels: int,
        parameters: int,
        *,
        gate: Gate,
        bias: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        fixed, each = (channels, 2 * channels + 1) if bias else (0, 2 * channels)
        hidden = max(1, round((parameters - fixed) / each))
        self.squeeze = linear(channels, hidden, generator, bias=bias)
        self.excite = linear(hidden, channels, generator, bias=bias)
        _start(self.excite, gate)

    def forward(
        self, maps: Float[Tensor, "image channel row col"]
    ) -> Float[Tensor, "image channel 1 1"]:
        """Return the gate A of each channel, in (0, 1)."""
        means = maps.mean((2, 3))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))
        return gate[:, :, None, None]


class GatedPoint(nn.Module):
    """One point of a network with its gate, to be hooked behind the module there.

    Args:
        point: Of the network.
        gate: `StageGate` or `SelfGate`.
        kind: `residual` or `multiply`.
        level: Of the features that feed a `StageGate`.
        grid: Rows and columns of the level's windows.
        reach: Share of the windows' whole length that lies in the frame.
        upsampling: From windows to the stage's cells.
    """

    def __init__(
        self,
        point: Point,
        gate: StageGate | SelfGate,
        kind: Gate,
        level: str,
        grid: tuple[int, int],
        reach: float,
        upsampling: Upsampling,
    ) -> None:
        super().__init__()
        self.gate = gate
        self.kind = kind
        self.level = level
        self.channels_last = point.channels_last
        self.values = point.channels * point.rows * point.cols  # gated for one image
        self.resize = Resize(grid, (point.rows, point.cols), reach, upsampling)
        self._fed: tuple[Tensor, Tensor] | None = None
        self._kept: Tensor | None = None
        self.keeps = False
        self.off = False

    def feed(self, tokens: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> None:
        """Work the gates of a batch out, before the network runs."""
        if self.off or isinstance(self.gate, SelfGate):
            return
        own, weight = self.resize.pooled(tokens[self.level], counts[self.level])
        # Channels stay innermost in memory, which is how Swin and channels-last networks hold theirs.
        change = (self.gate(own) - self._neutral).permute(0, 3, 1, 2)
        shown = (weight > 0).to(change.dtype)[:, None]
        self._fed = change, shown

    def hook(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Gate what the module answered."""
        del module, inputs
        if self.off:
            return output
        maps = output.permute(0, 3, 1, 2) if self.channels_last else output
        gated = self._gated(maps)
        return gated.permute(0, 2, 3, 1) if self.channels_last else gated

    def taken(self) -> Tensor | None:
        """Return the gates that were kept for each cell of the stage, "image channel row col"."""
        kept, self._kept = self._kept, None
        return kept

    def _gated(self, maps: Tensor) -> Tensor:
        if isinstance(self.gate, SelfGate):
            own: Tensor = self.gate(maps) - self._neutral
            if self.keeps:
                self._kept = (own + self._neutral).expand(-1, -1, *maps.shape[2:]).detach()
            return maps * (1 + own).to(maps.dtype)
        if self._fed is None:
            raise RuntimeError("the gates were not fed before the network ran")
        (change, shown), self._fed = self._fed, None
        if maps.is_contiguous():
            change = change.contiguous()
        if self.keeps:
            self._kept = (self.resize(change, shown) + self._neutral).detach()
        return self.resize.gate(maps, change, shown)

    @property
    def _neutral(self) -> float:
        """The gate that changes nothing."""
        return 0.0 if self.kind == "residual" else 1.0


@contextmanager
def switched_off(points: Sequence[GatedPoint]) -> Iterator[None]:
    """Run a network as if it had no gates."""
    for point in points:
        point.off = True
    try:
        yield
    finally:
        for point in points:
            point.off = False


def _start(layer: nn.Linear, gate: Gate) -> None:
    """Begin near identity, where the layer has a bias to say so."""
    if layer.bias is not None:
        offset = math.log(START / (1 - START))
        nn.init.constant_(layer.bias, offset if gate == "residual" else -offset)
