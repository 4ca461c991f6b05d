"""Which cells of a network's last map its logits come from.

The gradient of a logit times the map, summed over channels (HiResCAM, 2011.08891). Where a mean and a linear layer
follow the map, as in ResNet, that is class activation mapping and sums with a bias to the logit; how far it is from it
elsewhere is told. Cells that show only padding take no part: what they add counts as bias.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from samcls.errors import InputError
from samcls.learn.features.pixels import Images
from samcls.learn.heads.base import Counts, Tokens
from samcls.learn.heads.contributions import Contributions

if TYPE_CHECKING:
    from samcls.learn.heads.guided.net import GuidedNet

__all__ = ["LAST", "of_last_map"]

LAST = "last map"
METHOD = "gradient times last map"
FRAMES = 4  # axes of a batch of maps


def of_last_map(net: "GuidedNet", tokens: Tokens, counts: Counts, images: Images) -> Contributions:
    """Return the terms of a batch, "image logit cell".

    Args:
        net: In any mode; it is left in evaluation.
        tokens: For each level, standardised window means.
        counts: For each level, number of valid map cells under each token.
        images: The same images.

    Raises:
        InputError: the network ends in no map.
    """
    net.eval()
    for point in net.points():
        point.feed(tokens, counts)
    with torch.enable_grad():
        last: Tensor = (
            cast("Any", net.body).forward_features(net.normalise(images)).detach().requires_grad_()
        )
        if last.ndim != FRAMES or last.shape[1] != net.classifier.inputs:
            raise InputError(
                f"the network ends in a map of shape {tuple(last.shape)}, not in channels by rows by columns: its "
                "cells cannot be told; look at its gates with --what gate"
            )
        logits = _ended(net, last)
        slopes = [
            torch.autograd.grad(logits[:, k].sum(), last, retain_graph=True)[0]
            for k in range(logits.shape[1])
        ]
    with torch.no_grad():
        terms = (torch.stack(slopes, 1).double() * last[:, None].double()).sum(2)
        kept = terms * functional.adaptive_max_pool2d(images.shown.double(), terms.shape[2:])
        bias = _ended(net, torch.zeros_like(last)).double() + (terms - kept).sum((2, 3))
    return Contributions({LAST: kept.flatten(2)}, bias, logits.detach().double(), METHOD)


def _ended(net: "GuidedNet", last: Tensor) -> Tensor:
    """Return the logits of a last map."""
    logits: Tensor = net.classifier(cast("Any", net.body).forward_head(last), None)
    return logits
