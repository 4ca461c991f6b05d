"""`slca`: Spatially Localized Channel Attention on each level, our reading of arXiv 2505.06217.

The attention itself is in `slca.py`.
"""

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from samcls.learn.heads.base import Counts, Reads, Shape, Tokens
from samcls.learn.heads.slca import SLCA
from samcls.learn.heads.weighing import (
    Parts,
    WeighingHead,
    attentions,
    gate_problems,
    gates_stack,
)
from samcls.learn.settings import TrainConfig
from samcls.pooling import masked_mean, shares_of, to_map, to_tokens

__all__ = ["SLCAHead"]


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
        self.attention = attentions(config, shape, window, generator)

    @classmethod
    def reads(cls, config: TrainConfig) -> Reads:
        """Whole maps where the full form is needed, else the config's window."""
        return Reads(None if config.upsampling == "bilinear" else config.window)

    @property
    def stacks(self) -> bool:
        """In the pooled form."""
        return self.pooled and gates_stack(self, self.attention)

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return what stands against C_out, or against the form that upsampling or the window need."""
        found = gate_problems(config, shape)
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
        return self._means_of_maps(*self._maps(tokens, counts))

    def weighed(self, tokens: Tokens, counts: Counts) -> Parts:
        """Gated tokens, each with its share of the valid cells."""
        if self.pooled:
            return {k: (slca(tokens[k]), shares_of(counts[k])) for k, slca in self._by_level()}
        maps, valid = self._maps(tokens, counts)
        return {
            k: (
                to_tokens(slca.gate_maps(maps[k], valid[k])),
                shares_of(valid[k].flatten(1).to(maps[k].dtype)),
            )
            for k, slca in self._by_level()
        }

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

    def window_gates(
        self, tokens: Tokens, counts: Counts
    ) -> dict[str, Float[Tensor, "image _channel _token"]]:
        """Return A of each level's windows, of whole maps that of their cells."""
        with torch.no_grad():
            if self.pooled:
                return {
                    k: slca.attention(tokens[k]).transpose(1, 2) for k, slca in self._by_level()
                }
            maps, valid = self._maps(tokens, counts)
            return {k: slca.gates(maps[k], valid[k]).flatten(2) for k, slca in self._by_level()}

    def _maps(self, tokens: Tokens, counts: Counts) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return tokens as maps, and which cells show picture."""
        maps = {k: to_map(tokens[k], self.rows[k]) for k in self.levels}
        valid = {k: to_map(counts[k][:, :, None], self.rows[k])[:, 0] > 0 for k in self.levels}
        return maps, valid

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
