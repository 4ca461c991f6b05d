"""Layers whose every random number comes from a generator that the caller hands over.

PyTorch's own layers draw from one global stream, so what ran before a run would change it. Here two
runs with equally seeded generators are equal bit for bit, whatever else the process does.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["dropout", "linear"]


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with PyTorch's usual initial values: uniform in +-1 / sqrt(inputs)."""
    # Made without values first: PyTorch would fill them from its global stream.
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
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
    mask = torch.empty_like(values).bernoulli_(1 - rate, generator=generator)
    return values * mask / (1 - rate)
