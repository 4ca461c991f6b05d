"""What every head keeps to, and the classifier that most of them end in.

A head answers with logits of all tasks side by side, as many for a task as it has classes; softmax
over a task's own logits gives its probabilities, whatever the link behind them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from samcls.learn.heads.layers import CumulativeLink, dropout, linear
from samcls.learn.settings import TrainConfig

__all__ = ["Classifier", "Counts", "Head", "Shape", "Tokens", "split_logits"]

Tokens = Mapping[str, Float[Tensor, "image _token _channel"]]
Counts = Mapping[str, Float[Tensor, "image _token"]]


@dataclass(frozen=True)
class Shape:
    """What a head is given and what it answers.

    Attributes:
        channels: Number of channels of each level, in the order in which the head sees them.
        classes: Number of classes of each task, in the order of the label columns.
        grids: Rows and columns of each level's tokens.
        window: Side of the window under each token, in cells of the encoder's map.
        reach: Share of a level's row of windows that lies in the encoder's frame, for levels whose
            last window hangs over its edge.
        pixels: Side of the images that stand beside the features; 0 where there are none.
    """

    channels: Mapping[str, int]
    classes: Mapping[str, int]
    grids: Mapping[str, tuple[int, int]]
    window: int
    reach: Mapping[str, float] = field(default_factory=dict)
    pixels: int = 0

    @property
    def width(self) -> int:
        """Channels of all levels together."""
        return sum(self.channels.values())

    @property
    def logits(self) -> int:
        """Outputs of all tasks together."""
        return sum(self.classes.values())


class Head(nn.Module, ABC):
    """What every head keeps to: built from a config, called on tokens and counts by level.

    Attributes:
        sees_pixels: Whether it is called with `pixels` too.
        partner_seed: Where features are shuffled between images, of their order; None for one's own.
    """

    sees_pixels: bool = False
    partner_seed: int | None = None

    @classmethod
    @abstractmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "Head":
        """A fresh head.

        Args:
            config: Its options are those of the head that read them.
            shape: What the head is given and what it answers.
            generator: Source of the initial weights.
        """

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """A sentence for everything that stands against building this head."""
        del config, shape
        return []

    @abstractmethod
    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        """Logits of all tasks side by side.

        Args:
            tokens: For each level, standardised window means, "image token channel".
            counts: For each level, number of valid map cells under each token, "image token".
            generator: Source of dropout's masks in training; None means evaluation.
        """


class Classifier(nn.Module):
    """Pooled features to logits: dropout, at most one hidden layer, a link for each task.

    Args:
        inputs: Number of pooled features.
        config: Its dropout and ordinal tasks.
        classes: Number of classes of each task.
        hidden: Width of the hidden layer; 0 means none.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        inputs: int,
        config: TrainConfig,
        classes: Mapping[str, int],
        hidden: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.rate = config.dropout
        links = {i: n for i, (task, n) in enumerate(classes.items()) if task in config.ordinal}
        self.widths = [1 if i in links else n for i, n in enumerate(classes.values())]
        self.hidden = linear(inputs, hidden, generator) if hidden else None
        self.output = linear(hidden or inputs, sum(self.widths), generator)
        self.links = nn.ModuleDict({str(i): CumulativeLink(n) for i, n in links.items()})

    def forward(
        self, means: Float[Tensor, "image feature"], generator: torch.Generator | None
    ) -> Float[Tensor, "image logit"]:
        """Logits of all tasks side by side; dropout only where a generator is given."""
        features = dropout(means, self.rate, generator)
        if self.hidden is not None:
            features = dropout(torch.relu(self.hidden(features)), self.rate, generator)
        logits: Tensor = self.output(features)
        if not self.links:
            return logits
        parts = [
            self.links[str(i)](part) if str(i) in self.links else part
            for i, part in enumerate(torch.split(logits, self.widths, dim=1))
        ]
        return torch.cat(parts, 1)


def split_logits(
    logits: Float[Tensor, "image logit"], classes: Sequence[int]
) -> tuple[Float[Tensor, "image _class"], ...]:
    """One block of logits for each task.

    Args:
        logits: Logits of all tasks side by side.
        classes: Number of classes of each task, in order; two for a binary task.
    """
    return torch.split(logits, list(classes), dim=1)
