"""`attention-pool`: tokens weighed by learned scores instead of gated channels (1802.04712)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from samcls.learn.heads.base import Counts, Shape, Tokens
from samcls.learn.heads.layers import linear
from samcls.learn.heads.weighing import Parts, WeighingHead
from samcls.learn.settings import TrainConfig
from samcls.pooling import masked_mean, shares_of

__all__ = ["AttentionPoolHead"]


class AttentionPoolHead(WeighingHead):
    """A weighted mean of each level's tokens, the weights learned from the tokens themselves.

    The weight of a token x is the softmax over tokens of v · tanh(U x) (1802.04712, eq. 8), times
    the number of valid cells that it stands for; U has channels / reduction rows.
    """

    def prepare(self, config: TrainConfig, shape: Shape, generator: torch.Generator) -> None:
        """Make U and v for each level."""
        widths = [(c, max(1, c // config.reduction)) for c in shape.channels.values()]
        self.inner = nn.ModuleList(linear(c, h, generator) for c, h in widths)
        # No bias: the same added to all scores changes no weight.
        self.score = nn.ModuleList(linear(h, 1, generator, bias=False) for _, h in widths)

    def means(self, tokens: Tokens, counts: Counts) -> list[Float[Tensor, "image _channel"]]:
        """Each level's mean, weighted by score."""
        weights = self._weights(tokens, counts)
        return [masked_mean(tokens[level], weights[level]) for level in self.levels]

    def weighed(self, tokens: Tokens, counts: Counts) -> Parts:
        """Tokens with their normalised weights."""
        weights = self._weights(tokens, counts)
        return {level: (tokens[level], shares_of(weights[level])) for level in self.levels}

    def _weights(self, tokens: Tokens, counts: Counts) -> dict[str, Float[Tensor, "image _token"]]:
        found = {}
        for level, inner, score in zip(self.levels, self.inner, self.score, strict=True):
            scores = score(torch.tanh(inner(tokens[level])))[:, :, 0]
            found[level] = (scores - scores.amax(1, keepdim=True)).exp() * counts[level]
        return found
