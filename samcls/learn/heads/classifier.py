"""The classifier that most heads end in: pooled features to logits."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from samcls.learn.heads.layers import CumulativeLink, dropout, linear
from samcls.learn.settings import TrainConfig

__all__ = ["Classifier"]


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
        self.inputs = inputs
        links = {i: n for i, (task, n) in enumerate(classes.items()) if task in config.ordinal}
        self.widths = [1 if i in links else n for i, n in enumerate(classes.values())]
        self.hidden = linear(inputs, hidden, generator) if hidden else None
        self.output = linear(hidden or inputs, sum(self.widths), generator)
        self.links = nn.ModuleDict({str(i): CumulativeLink(n) for i, n in links.items()})

    @property
    def additive(self) -> bool:
        """Whether logits are linear in the features: without a hidden layer and without cumulative links."""
        return self.hidden is None and not self.links

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
