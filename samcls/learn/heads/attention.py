"""Heads that weigh: SLCA, its control with one window over all (SE), and attention pooling."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from samcls.learn.heads.base import Classifier, Counts, Head, Reads, Shape, Tokens
from samcls.learn.heads.layers import linear
from samcls.learn.heads.slca import SLCA
from samcls.learn.settings import TrainConfig
from samcls.pooling import masked_mean, to_map, to_tokens

__all__ = ["AttentionPoolHead", "SEHead", "SLCAHead", "WeighingHead"]


def _attentions(
    config: TrainConfig, shape: Shape, window: int, generator: torch.Generator
) -> nn.ModuleList:
    """One SLCA for each level, with the config's options."""
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


def _gate_problems(config: TrainConfig, shape: Shape) -> list[str]:
    asked = config.gate_channels
    return [
        f"gate_channels is {asked}, which does not divide the {channels} channels of level {level}"
        for level, channels in shape.channels.items()
        if asked and channels % asked
    ]


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

    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        """Logits from the means of all levels."""
        logits: Tensor = self.classifier(torch.cat(self.means(tokens, counts), 1), generator)
        return logits


def _stacks(head: "SLCAHead | SEHead") -> bool:
    """Without links, and with a gate for each channel, arithmetic is that of stacked members."""
    gates = [cast("SLCA", slca) for slca in head.attention]
    return not head.classifier.links and all(slca.spread == 1 for slca in gates)


class SLCAHead(WeighingHead):
    """SLCA on each level, mean over the valid cells, all levels side by side, then a classifier.

    Given tokens that are already pooled over SLCA's windows it runs the pooled form, which nearest
    upsampling makes exact; given whole maps, the full form.
    """

    def prepare(self, config: TrainConfig, shape: Shape, generator: torch.Generator) -> None:
        """Make one SLCA for each level."""
        self.rows = {level: rows for level, (rows, _) in shape.grids.items()}
        window = config.window or shape.window
        self.pooled = window == shape.window and config.upsampling == "nearest"
        self.attention = _attentions(config, shape, window, generator)

    @classmethod
    def reads(cls, config: TrainConfig) -> Reads:
        """Whole maps where the full form is needed, else the config's window."""
        return Reads(None if config.upsampling == "bilinear" else config.window)

    @property
    def stacks(self) -> bool:
        """In the pooled form."""
        return self.pooled and _stacks(self)

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return what stands against C_out, or against the form that upsampling or the window need."""
        found = _gate_problems(config, shape)
        if config.upsampling == "bilinear" and shape.window != 1:
            found.append(
                "bilinear upsampling needs whole maps (window 1), and these are pooled over window "
                f"{shape.window}; extract with --window 1, or take nearest upsampling"
            )
        return found

    def means(self, tokens: Tokens, counts: Counts) -> list[Float[Tensor, "image _channel"]]:
        """Each level's gated mean, by the pooled form where it is exact."""
        if self.pooled:
            return [slca.gated_mean(tokens[k], counts[k]) for k, slca in self._by_level()]
        maps = {k: to_map(tokens[k], self.rows[k]) for k in self.levels}
        valid = {k: to_map(counts[k][:, :, None], self.rows[k])[:, 0] > 0 for k in self.levels}
        return self._means_of_maps(maps, valid)

    def from_maps(
        self,
        maps: Mapping[str, Float[Tensor, "image _channel _row _col"]],
        valid: Mapping[str, Bool[Tensor, "image _row _col"]],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "image logit"]:
        """Logits from whole maps; with nearest upsampling equal to the pooled form's to rounding.

        Args:
            maps: For each level, standardised maps, "image channel row col".
            valid: For each level, cells that show picture rather than padding.
            generator: Source of dropout's masks in training; None means evaluation.
        """
        means = torch.cat(self._means_of_maps(maps, valid), 1)
        logits: Tensor = self.classifier(means, generator)
        return logits

    def _means_of_maps(
        self, maps: Mapping[str, Tensor], valid: Mapping[str, Tensor]
    ) -> list[Tensor]:
        means = []
        for level, slca in self._by_level():
            gated = to_tokens(slca.gate_maps(maps[level], valid[level]))
            means.append(masked_mean(gated, valid[level].flatten(1).to(gated.dtype)))
        return means

    def _by_level(self) -> Iterator[tuple[str, SLCA]]:
        for level, slca in zip(self.levels, self.attention, strict=True):
            yield level, cast("SLCA", slca)


class SEHead(WeighingHead):
    """SLCA with one window over the whole map: Squeeze-and-Excitation (1709.01507).

    The gate is then the same for all cells, so the head needs each level's mean alone. It is the
    control for what SLCA gains by being local.
    """

    means_suffice = True

    def prepare(self, config: TrainConfig, shape: Shape, generator: torch.Generator) -> None:
        """Make one SLCA for each level."""
        self.attention = _attentions(config, shape, shape.window, generator)

    @property
    def stacks(self) -> bool:
        """As SLCA's pooled form."""
        return _stacks(self)

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return what stands against C_out."""
        return _gate_problems(config, shape)

    def means(self, tokens: Tokens, counts: Counts) -> list[Float[Tensor, "image _channel"]]:
        """Each level's gated mean."""
        return [
            slca(masked_mean(tokens[level], counts[level])[:, None])[:, 0]
            for level, slca in zip(self.levels, self.attention, strict=True)
        ]


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
        means = []
        for level, inner, score in zip(self.levels, self.inner, self.score, strict=True):
            scores = score(torch.tanh(inner(tokens[level])))[:, :, 0]
            weights = (scores - scores.amax(1, keepdim=True)).exp() * counts[level]
            means.append(masked_mean(tokens[level], weights))
        return means
