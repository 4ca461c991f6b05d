"""What heads share that weigh tokens, with SLCA's gates or otherwise, before one classifier."""

from abc import abstractmethod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from samcls.learn.heads.base import Counts, Head, Shape, Tokens
from samcls.learn.heads.classifier import Classifier
from samcls.learn.heads.contributions import Contributions, additive
from samcls.learn.heads.slca import SLCA
from samcls.learn.settings import TrainConfig

Parts = dict[str, tuple[Float[Tensor, "image _token _channel"], Float[Tensor, "image _token"]]]

__all__ = ["Parts", "WeighingHead", "attentions", "gate_problems", "gates_stack"]


class WeighingHead(Head):
    """What heads share that weigh tokens: each level's weighted mean, side by side, classified.

    Args:
        config: Its options of the weights and of the classifier.
        shape: What the head is given and what it answers.
        generator: Source of the initial weights.
    """

    def __init__(self, config: TrainConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.levels = tuple(shape.channels)
        # First, as initial weights are drawn in this order.
        self.prepare(config, shape, generator)
        self.classifier = Classifier(shape.width, config, shape.classes, config.hidden, generator)

    @classmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "Head":
        """Return a fresh head with the config's options."""
        return cls(config, shape, generator)

    @abstractmethod
    def prepare(self, config: TrainConfig, shape: Shape, generator: torch.Generator) -> None:
        """Make the layers that weigh.

        Args:
            config: As for the head.
            shape: As for the head.
            generator: As for the head.
        """

    @abstractmethod
    def means(self, tokens: Tokens, counts: Counts) -> list[Float[Tensor, "image _channel"]]:
        """Each level's weighted mean.

        Args:
            tokens: For each level, standardised window means.
            counts: For each level, number of valid map cells under each token.
        """

    @abstractmethod
    def weighed(self, tokens: Tokens, counts: Counts) -> Parts:
        """Each level's tokens as they are weighed: values and shares whose weighted sum is the level's mean.

        Args:
            tokens: As for `means`.
            counts: As for `means`.
        """

    def contributions(self, tokens: Tokens, counts: Counts) -> Contributions:
        """Exact where the classifier is linear: weights times weighed tokens."""
        if not self.classifier.additive:
            return super().contributions(tokens, counts)
        with torch.no_grad():
            output = self.classifier.output
            parts = self.weighed(tokens, counts)
            return additive(parts, output.weight, output.bias, self(tokens, counts))

    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        """Logits from the means of all levels."""
        logits: Tensor = self.classifier(torch.cat(self.means(tokens, counts), 1), generator)
        return logits


def attentions(
    config: TrainConfig, shape: Shape, window: int, generator: torch.Generator
) -> nn.ModuleList:
    """Return one SLCA for each level, with the config's options."""
    return nn.ModuleList(
        SLCA(
            channels,
            window=window,
            reduction=config.reduction,
            gate=config.gate or "multiply",
            upsampling=config.upsampling,
            bias=config.gate_bias,
            gate_channels=config.gate_channels or None,
            generator=generator,
        )
        for channels in shape.channels.values()
    )


def gate_problems(config: TrainConfig, shape: Shape) -> list[str]:
    """Return what stands against the number of gates asked for."""
    asked = config.gate_channels
    return [
        f"gate_channels is {asked}, which does not divide the {channels} channels of level {level}"
        for level, channels in shape.channels.items()
        if asked and channels % asked
    ]


def gates_stack(head: WeighingHead, gates: nn.ModuleList) -> bool:
    """Tell whether, without links and with a gate for each channel, the arithmetic is that of stacked members."""
    whole = all(cast("SLCA", slca).spread == 1 for slca in gates)
    return whole and not head.classifier.links
