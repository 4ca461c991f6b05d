"""Heads on each level's mean over valid cells: no attention at all, the plainest controls."""

import torch
from jaxtyping import Float
from torch import Tensor

from samcls.learn.heads.base import Counts, Head, Shape, Tokens
from samcls.learn.heads.classifier import Classifier
from samcls.learn.heads.contributions import Contributions, additive
from samcls.learn.settings import TrainConfig
from samcls.pooling import masked_mean, shares_of

__all__ = ["LinearHead", "MLPHead", "pooled_means"]

WIDTH = 256  # of the mlp head's hidden layer where the config names none


def pooled_means(tokens: Tokens, counts: Counts) -> Float[Tensor, "image feature"]:
    """Each image's mean over valid cells, all levels side by side."""
    return torch.cat([masked_mean(tokens[level], counts[level]) for level in tokens], 1)


class LinearHead(Head):
    """One linear layer on the means.

    Args:
        config: Its dropout and ordinal tasks.
        shape: What the head is given and what it answers.
        hidden: Width of a hidden layer; 0 means none.
        generator: Source of the initial weights.
    """

    means_suffice = True

    def __init__(
        self, config: TrainConfig, shape: Shape, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.levels = tuple(shape.channels)
        self.classifier = Classifier(shape.width, config, shape.classes, hidden, generator)

    @classmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "Head":
        """Return a fresh head without a hidden layer."""
        return cls(config, shape, 0, generator)

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return a hidden layer makes it another head."""
        del shape
        asked = f"hidden is {config.hidden}, and the linear head has no hidden layer; take head mlp"
        return [asked] if config.hidden else []

    @property
    def stacks(self) -> bool:
        """Without cumulative links."""
        return not self.classifier.links

    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        """Logits from the means."""
        means = pooled_means({level: tokens[level] for level in self.levels}, counts)
        logits: Tensor = self.classifier(means, generator)
        return logits

    def contributions(self, tokens: Tokens, counts: Counts) -> Contributions:
        """Exact without a hidden layer: weights times tokens."""
        if not self.classifier.additive:
            return super().contributions(tokens, counts)
        with torch.no_grad():
            output = self.classifier.output
            parts = {level: (tokens[level], shares_of(counts[level])) for level in self.levels}
            return additive(parts, output.weight, output.bias, self(tokens, counts))


class MLPHead(LinearHead):
    """One hidden layer on the means, of the config's width or else 256."""

    @classmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "Head":
        """Return a fresh head with one hidden layer."""
        return cls(config, shape, config.hidden or WIDTH, generator)

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Nothing stands against it."""
        del config, shape
        return []
