"""What gates add to a network: parameters, and multiplications for one image.

Counted while an empty image runs through the network on PyTorch's meta device, which holds shapes
and no values. Added by gates from SAM's five levels, pooled to 16 x 16 windows:

    network                 pixels  encoder  reduction  parameters  multiplications
    resnet152                  224  vit_b           16      0.48 %           0.57 %
    resnet152                  224  vit_h           16      1.03 %           1.26 %
    resnet152                  224  vit_h           24      0.68 %           0.87 %
    legacy_senet154            224  vit_h           16      0.53 %           0.71 %
    swinv2_base_window8_256    256  vit_h           16      0.59 %           0.64 %

Pooled to 8 x 8 windows (`--window 8`) they cost a quarter of the multiplications: 0.35 % for ResNet152.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from samcls.learn.heads.base import NetworkHead, Shape
from samcls.learn.heads.guided.gates import GatedPoint, switched_off

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """A network's own cost, and what its gates add.

    Attributes:
        parameters: Of the network and its classifier.
        parameters_added: Of the gates.
        macs: Multiply-accumulates of the network and its classifier for one image.
        macs_added: Of the gates, from tokens to gated maps.
    """

    parameters: int
    parameters_added: int
    macs: int
    macs_added: int

    def __str__(self) -> str:
        return (
            f"gates add {self.parameters_added:,} parameters to {self.parameters:,} "
            f"({self.parameters_added / self.parameters:.2%}) and {self.macs_added / 1e9:.4f} GMACs "
            f"an image to {self.macs / 1e9:.3f} ({self.macs_added / self.macs:.2%})"
        )


def cost_of(net: NetworkHead, points: Sequence[GatedPoint], shape: Shape) -> Cost:
    """Count a network's parameters and multiplications, and those of its gates.

    Args:
        net: On any device; neither its weights nor its mode are changed.
        points: Its gated points.
        shape: What it was built for.
    """
    added = sum(value.numel() for point in points for value in point.parameters())
    own = sum(value.numel() for value in net.parameters()) - added
    gated = _macs(net, shape) + sum(point.values for point in points)
    with switched_off(points):
        plain = _macs(net, shape)
    return Cost(own, added, plain, gated - plain)


def _macs(net: NetworkHead, shape: Shape) -> int:
    state = {k: v.to("meta") for k, v in [*net.named_parameters(), *net.named_buffers()]}
    cells = {level: rows * cols for level, (rows, cols) in shape.grids.items()}
    tokens = {k: torch.empty(1, cells[k], c, device="meta") for k, c in shape.channels.items()}
    counts = {k: torch.empty(1, n, device="meta") for k, n in cells.items()}
    pixels = torch.empty(1, 3, net.size, net.size, device="meta")
    training = net.training
    net.eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            functional_call(net, state, (tokens, counts), {"pixels": pixels})
    finally:
        net.train(training)
    return int(counter.get_total_flops()) // 2  # which counts a multiplication and an addition each
