"""What a guided network answers, and what it is fed: every image's own features, or another's.

rows = features.flat(features.rows("test"))
logits = answered(net, features.tokens, features.counts, features.pixels, rows)
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from samcls.errors import InputError
from samcls.learn.features.pixels import Pixels
from samcls.learn.features.tensors import Features
from samcls.learn.fit.prediction import select_rows
from samcls.learn.heads.base import Head
from samcls.learn.heads.guided.net import GuidedNet

__all__ = ["answered", "feeding", "partners"]

BATCH = 64  # images answered at once


def answered(
    net: Head,
    tokens: Mapping[str, Any],
    counts: Mapping[str, Tensor],
    pixels: Pixels | None,
    rows: Int64[Tensor, " row"],
    feeding: Int64[Tensor, " view"] | None = None,
) -> Float[Tensor, "row logit"]:
    """Logits without dropout, a batch at a time, on the CPU.

    Args:
        net: Its mode is left as evaluation.
        tokens: For each level, standardised window means, "image-and-view token channel".
        counts: For each level, number of valid map cells under each token.
        pixels: Of the same images, under the same views.
        rows: Which of them, on the CPU.
        feeding: As `feeding` says.

    Raises:
        InputError: where there are no pixels, or they are of another size than the network's.
    """
    if not isinstance(net, GuidedNet):
        raise TypeError(f"got a {type(net).__name__}, expected a network that looks at images")
    if pixels is None or pixels.size != net.size:
        got = "none" if pixels is None else f"images of {pixels.size} pixels"
        raise InputError(
            f"this network looks at images of {net.size} pixels, and got {got}; give those of a "
            f"store that was extracted with --keep-pixels {net.size}"
        )
    net.eval()
    device = next(net.parameters()).device
    found = []
    with torch.no_grad():
        for part in torch.split(rows, BATCH):
            images = net.normalise(pixels.batch(part, device))
            fed = part if feeding is None else feeding[part]
            own, shown = select_rows(tokens, counts, fed) if net.needs_features else ({}, {})
            found.append(net(own, shown, pixels=images).float().cpu())
    return torch.cat(found)


def feeding(net: Head, features: Features) -> Int64[Tensor, " view"] | None:
    """Which row of tokens and counts feeds the gates of each row of pixels; None for its own.

    Args:
        net: For the control `shuffled` another image's feed it, under the same view.
        features: All of them.
    """
    seed = net.partner_seed
    return None if seed is None else features.flat(partners(features, seed))


def partners(features: Features, seed: int) -> Int64[Tensor, " image"]:
    """For each image another one of its split, each given once; an image alone keeps its own.

    Args:
        features: Whose splits are kept apart.
        seed: Of the order.
    """
    found = torch.arange(len(features.ids))
    for split in sorted(set(features.splits)):
        rows = features.rows(split)
        # A split's order is its own, so that it is the same where no other split is at hand.
        generator = torch.Generator().manual_seed(seed)
        # Everyone gets the next one's around a shuffled circle: nobody gets his own.
        circle = rows[torch.randperm(len(rows), generator=generator)]
        found[circle] = circle.roll(1)
    return found
