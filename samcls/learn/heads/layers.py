"""Layers whose every random number comes from a generator that the caller hands over.

PyTorch's own layers draw from one global stream, so what ran before a run would change it. Here two
runs with equally seeded generators are equal bit for bit, whatever else the process does.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CumulativeLink", "dropout", "linear"]


class _Blank(nn.Linear):
    """A linear layer whose values are not set: PyTorch would draw them from its global stream."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


def linear(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    """Return a linear layer with PyTorch's usual initial values: uniform in +-1 / sqrt(inputs)."""
    layer = _Blank(inputs, outputs, bias=bias)
    bound = inputs**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


def dropout(
    values: Float[Tensor, "image feature"], rate: float, generator: torch.Generator | None
) -> Float[Tensor, "image feature"]:
    """Zero a random share of the values and scale up the rest, so that the mean stays.

    Args:
        values: Pooled features.
        rate: Share to drop, in [0, 1).
        generator: Source of the mask; None means evaluation, where nothing is dropped.
    """
    if generator is None or rate == 0:
        return values
    # Drawn on the generator's CPU, so that every device and precision drops the same values.
    mask = torch.empty(values.shape).bernoulli_(1 - rate, generator=generator)
    scaled = mask.mul_(1 / (1 - rate))
    return values * scaled.to(values.device, values.dtype, non_blocking=True)


class CumulativeLink(nn.Module):
    """Ordered classes from one score: the proportional-odds model (McCullagh 1980).

    P(class > k) = sigmoid(score - threshold_k), with thresholds that rise and are the same for all
    images. They start evenly spread over +-1.

    Args:
        classes: Number of ordered classes, at least 2.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.full((1,), -1.0 if classes > 2 else 0.0))
        step = torch.full((classes - 2,), 2 / max(1, classes - 2))
        # The inverse of softplus, through which each step stays positive.
        self.steps = nn.Parameter(step.expm1().log())

    def thresholds(self) -> Float[Tensor, " threshold"]:
        """Return the boundaries between neighbouring classes, rising."""
        return torch.cat([self.first, functional.softplus(self.steps)]).cumsum(0)

    def forward(self, score: Float[Tensor, "image 1"]) -> Float[Tensor, "image class"]:
        """Logarithms of the classes' probabilities, which softmax leaves as they are.

        Their gradients do not vanish, however far a score is on the wrong side.
        """
        apart = score - self.thresholds()
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), and between neighbouring
        # thresholds 1 - exp(b - a) is the sigmoid of their step: no logarithm of a small number.
        within = functional.pad(functional.logsigmoid(self.steps), (1, 1))
        above = functional.pad(functional.logsigmoid(apart), (1, 0))
        below = functional.pad(functional.logsigmoid(-apart), (0, 1))
        return above + below + within
