"""Which windows a head's logits come from: terms that sum, with a bias, to the logit.

A linear classifier on a mean of gated windows is additive: its logit *is* a sum of a term for each window, and
nothing is approximated. The gates themselves come from the windows too; a term says what a window adds as it is
gated here, not what would change if it were another. What is not additive (a hidden layer, ordered classes) is divided by
integrated gradients (Sundararajan et al., 2017) on the straight line from the training mean, which standardised
features have at 0, and how far the sum is from the logit is told.

    found = head.contributions(tokens, counts)
    found.maps["neck"]                      # "image logit token", in logits
    found.error.max()                       # |sum + bias - logit|
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "EXACT",
    "GRADIENTS",
    "MEAN_OF_MEMBERS",
    "Contributions",
    "additive",
    "integrated",
    "mean_of",
]

EXACT = "exact"
GRADIENTS = "integrated gradients"
MEAN_OF_MEMBERS = "mean of members"
NODES = 48  # of the quadrature along the line

Tokens = Mapping[str, Float[Tensor, "image _token _channel"]]
Counts = Mapping[str, Float[Tensor, "image _token"]]


@dataclass(frozen=True, eq=False)
class Contributions:
    """Terms of logits.

    Attributes:
        maps: Of each level, "image logit token", double precision; 0 where only padding is shown.
        bias: What no window adds.
        logits: What the terms and the bias sum to: the head's own.
        method: `exact`, or the name of an approximation.
    """

    maps: Mapping[str, Float[Tensor, "image logit _token"]]
    bias: Float[Tensor, "image logit"]
    logits: Float[Tensor, "image logit"]
    method: str = EXACT

    @property
    def error(self) -> Float[Tensor, "image logit"]:
        """How far sum and bias are from the logit."""
        return (sum(values.sum(2) for values in self.maps.values()) + self.bias - self.logits).abs()


def additive(
    parts: Mapping[str, tuple[Tensor, Tensor]],
    weight: Float[Tensor, "logit feature"],
    bias: Float[Tensor, " logit"],
    logits: Float[Tensor, "image logit"],
) -> Contributions:
    """Return the terms of a linear classifier on weighted sums of tokens.

    Args:
        parts: Of each level, values "image token channel" and what each weighs, "image token".
        weight: Of the classifier, the levels' channels side by side.
        bias: Of the classifier.
        logits: What the head said.
    """
    maps, start = {}, 0
    for level, (values, shares) in parts.items():
        own = weight[:, start : start + values.shape[2]].double()
        maps[level] = (shares.double()[:, :, None] * (values.double() @ own.T)).transpose(1, 2)
        start += values.shape[2]
    return Contributions(maps, bias.double().expand(len(logits), -1), logits.double())


def integrated(
    call: Callable[[Tokens], Float[Tensor, "image logit"]], tokens: Tokens
) -> Contributions:
    """Return integrated gradients from the training mean.

    Args:
        call: Logits of standardised tokens.
        tokens: Those of some images.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    with torch.no_grad():
        logits, bias = call(tokens), call({k: torch.zeros_like(v) for k, v in tokens.items()})
    slopes = {
        k: torch.zeros(logits.shape[1], *v.shape, dtype=torch.float64) for k, v in tokens.items()
    }
    for node, part in zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
        with torch.enable_grad():
            at = {k: (v * node).requires_grad_() for k, v in tokens.items()}
            said = call(at)
            for number in range(said.shape[1]):
                found = torch.autograd.grad(
                    said[:, number].sum(), list(at.values()), retain_graph=True, allow_unused=True
                )
                for level, slope in zip(at, found, strict=True):
                    if slope is not None:
                        slopes[level][number] += part * slope.double()
    maps = {k: (slopes[k] * v.double()).sum(3).transpose(0, 1) for k, v in tokens.items()}
    return Contributions(maps, bias.double(), logits.double(), GRADIENTS)


def mean_of(parts: Sequence[Contributions], shares: Sequence[float]) -> Contributions:
    """Return the weighted mean of several heads' terms, which sum to the weighted mean of their logits.

    Args:
        parts: Of the heads.
        shares: What each weighs; 1 together.
    """
    pairs = list(zip(parts, shares, strict=True))
    methods = {part.method for part in parts} - {EXACT, MEAN_OF_MEMBERS}
    return Contributions(
        {
            level: torch.stack([share * part.maps[level] for part, share in pairs]).sum(0)
            for level in parts[0].maps
        },
        torch.stack([share * part.bias for part, share in pairs]).sum(0),
        torch.stack([share * part.logits for part, share in pairs]).sum(0),
        ", ".join([MEAN_OF_MEMBERS, *sorted(methods)]) if len(parts) > 1 else parts[0].method,
    )
