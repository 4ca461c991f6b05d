"""`ensemble:<head>`: heads of several seeds and three regressions, averaged in probability.

The regressions see the means, the windows' statistics and all windows; together they weigh three
quarters, the heads the last one. `regressions` is the same without the heads, and so the control that
says what they add. What the shares and the number of heads were chosen by: `docs/explanation.md`.

    config = TrainConfig(head="ensemble:slca", members=2)
    [part.head for part in EnsembleHead.parts(config)]
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from samcls.learn.heads.base import ComposedHead, Counts, Head, Reads, Shape, Tokens, split_logits
from samcls.learn.heads.contributions import Contributions, mean_of
from samcls.learn.heads.controls import regressions
from samcls.learn.heads.registry import build_head, head_class, unknown_head
from samcls.learn.settings import TrainConfig

__all__ = ["EnsembleHead", "RegressionsHead"]

MARK = "ensemble:"


class EnsembleHead(ComposedHead):
    """The mean of what its parts say, each fitted as if it were alone.

    Args:
        config: Says the head and how many of it.
        shape: What the parts are given and what they answer.
        generator: Source of the initial weights.
    """

    def __init__(self, config: TrainConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        own, solved = self.heads(config), list(regressions(config))
        parts = [*own, *(part for _, part in solved)]
        self.parts_ = nn.ModuleList(build_head(part, shape, generator) for part in parts)
        families = len(solved) + bool(own)
        self.shares = [1 / families / len(own) for _ in own] + [1 / families for _ in solved]
        self.classes = tuple(shape.classes.values())

    @classmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "Head":
        """Return one whose parts are not fitted yet."""
        return cls(config, shape, generator)

    @classmethod
    def heads(cls, config: TrainConfig) -> list[TrainConfig]:
        """Return a config for each of its heads; the first one's seed is the config's own."""
        seeds = [config.seed, *(_derived(config.seed, k) for k in range(1, config.members))]
        plain = replace(config, head=_inner(config), members=TrainConfig.members)
        return [replace(plain, seed=seed) for seed in seeds]

    @classmethod
    def parts(cls, config: TrainConfig) -> list[TrainConfig]:
        """Return a config for each part: its heads, then the regressions."""
        return [*cls.heads(config), *(part for _, part in regressions(config))]

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return what stands against its head, which must be one that is trained on features."""
        inner = _inner(config)
        if not inner:
            return ["head ensemble: names no head behind its colon; take ensemble:slca, say"]
        unknown = unknown_head(inner)
        if unknown:
            return unknown
        kind = head_class(inner)
        if kind.fitting != "members":
            problem = (
                f"head {config.head}: {inner} is not trained on features by steps, and an ensemble is of "
                "heads that are, such as ensemble:slca or ensemble:attention-pool"
            )
            return [problem]
        return kind.problems(replace(config, head=inner), shape)

    @classmethod
    def reads(cls, config: TrainConfig) -> Reads:
        """Return what its head reads."""
        inner = _inner(config)
        if unknown_head(inner):
            return super().reads(config)
        return head_class(inner).reads(replace(config, head=inner))

    @property
    def fitted_values(self) -> int:
        """Those of all parts."""
        return sum(part.fitted_values for part in self._parts())

    @property
    def untraceable(self) -> str:
        """What stands against any of its parts."""
        return next((part.untraceable for part in self._parts() if part.untraceable), "")

    def take(self, heads: Sequence[Head]) -> None:
        """Put fitted heads in the places of its parts."""
        self.parts_ = nn.ModuleList(heads)

    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        """Logarithms of each task's mean probabilities, averaged in double precision."""
        del generator
        said = [split_logits(part(tokens, counts), self.classes) for part in self._parts()]
        found = []
        for task in zip(*said, strict=True):
            weighed = [
                logits.double().log_softmax(1) + math.log(share)
                for logits, share in zip(task, self.shares, strict=True)
            ]
            found.append(torch.stack(weighed).logsumexp(0).float())
        return torch.cat(found, 1)

    def contributions(self, tokens: Tokens, counts: Counts) -> Contributions:
        """Return the parts' mean, which sums to their mean logit; the answer, a mean of probabilities, is near it."""
        return mean_of([part.contributions(tokens, counts) for part in self._parts()], self.shares)

    def window_gates(
        self, tokens: Tokens, counts: Counts
    ) -> dict[str, Float[Tensor, "image _channel _token"]]:
        """Return the mean over those of its parts that have gates."""
        found = [one for part in self._parts() if (one := part.window_gates(tokens, counts))]
        return (
            {k: torch.stack([one[k] for one in found]).mean(0) for k in found[0]} if found else {}
        )

    def _parts(self) -> list[Head]:
        return [part for part in self.parts_ if isinstance(part, Head)]


class RegressionsHead(EnsembleHead):
    """The mean of the three regressions: what an ensemble is without its heads."""

    learns_order = False

    @classmethod
    def heads(cls, config: TrainConfig) -> list[TrainConfig]:
        """None."""
        del config
        return []

    @classmethod
    def problems(cls, config: TrainConfig, shape: Shape) -> list[str]:
        """Return that regressions know no cumulative link."""
        return head_class("logistic").problems(config, shape)

    @classmethod
    def reads(cls, config: TrainConfig) -> Reads:
        """As most heads."""
        return Reads(config.window)


def _inner(config: TrainConfig) -> str:
    return config.head.removeprefix(MARK)


def _derived(seed: int, number: int) -> int:
    """Return the seed of a further head, far from all others."""
    (state,) = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    return int(state >> np.uint64(1))
