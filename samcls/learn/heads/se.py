"""`se`: the same gates with one window over the whole map, the control for being local (1709.01507)."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from samcls.learn.heads.base import Counts, Shape, Tokens
from samcls.learn.heads.slca import SLCA
from samcls.learn.heads.weighing import (
    Parts,
    WeighingHead,
    attentions,
    gate_problems,
    gates_stack,
)
from samcls.learn.settings import TrainConfig
from samcls.pooling import masked_mean, shares_of

__all__ = ["SEHead"]


class SEHead(WeighingHead):
    """SLCA with one window over the whole map: Squeeze-and-Excitation (1709.01507).

    The gate is then the same for all cells, so the head needs each level's mean alone. It is the
    control for what SLCA gains by being local.
    """

    means_suffice = True

    def prepare(self, config: TrainConfig, shape: Shape, generator: torch.Generator) -> None:
        """Make one SLCA for each level."""
        self.attention = attentions(config, shape, shape.window, generator)

    @property
    def stacks(self) -> bool:
        """As SLCA's pooled form."""
        return gates_stack(self, self.attention)

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return what stands against C_out."""
        return gate_problems(config, shape)

    def means(self, tokens: Tokens, counts: Counts) -> list[Float[Tensor, "image _channel"]]:
        """Each level's gated mean."""
        return [
            slca(masked_mean(tokens[level], counts[level])[:, None])[:, 0]
            for level, slca in zip(self.levels, self.attention, strict=True)
        ]

    def weighed(self, tokens: Tokens, counts: Counts) -> Parts:
        """Tokens under the one gate of their level, each with its share of the valid cells."""
        found = {}
        for level, attention in zip(self.levels, self.attention, strict=True):
            slca, values = cast("SLCA", attention), tokens[level]
            gate = slca.attention(masked_mean(values, counts[level])[:, None])
            found[level] = (slca.gated(values, gate), shares_of(counts[level]))
        return found
