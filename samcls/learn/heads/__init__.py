"""Heads: cached features of several levels in, class logits out; one table maps names to classes.

All heads stand on the same footing: the same standardised tokens, loop, choice on validation and
tables. A new head is one class that keeps to `Head`, and a line in `HEADS`. SLCA over five levels of
256 channels has 44,882 parameters, `linear` 2,562.

    shape = Shape(channels={"neck": 256}, classes={"grade": 5}, grids={"neck": (4, 4)}, window=4)
    head = build_head(config, shape, generator)
    logits = head({"neck": tokens}, {"neck": counts})
"""

import torch

from samcls.errors import ConfigError
from samcls.files import meant
from samcls.learn.heads.attention import AttentionPoolHead, SEHead, SLCAHead
from samcls.learn.heads.base import Counts, Head, Shape, Tokens, split_logits
from samcls.learn.heads.closed import ClosedHead, KNNHead, LogisticHead
from samcls.learn.heads.pooled import LinearHead, MLPHead
from samcls.learn.settings import TrainConfig

__all__ = [
    "GUIDED",
    "HEADS",
    "AttentionPoolHead",
    "ClosedHead",
    "Counts",
    "Head",
    "LinearHead",
    "MLPHead",
    "SEHead",
    "SLCAHead",
    "Shape",
    "Tokens",
    "build_head",
    "head_problems",
    "learns_order",
    "split_logits",
    "unknown_head",
]

GUIDED = "guided:"


class _Heads(dict[str, type[Head]]):
    """Heads by name; `guided:` and a model name that timm knows is a network of timm's, gated."""

    def __missing__(self, name: str) -> type[Head]:
        if not name.startswith(GUIDED):
            raise KeyError(name)
        # timm takes seconds to import, which no other head should wait for.
        from samcls.learn.heads.guided.net import GuidedNet

        return GuidedNet

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(GUIDED))


HEADS: dict[str, type[Head]] = _Heads(
    {
        "slca": SLCAHead,
        "linear": LinearHead,
        "se": SEHead,
        "attention-pool": AttentionPoolHead,
        "mlp": MLPHead,
        "knn": KNNHead,
        "logistic": LogisticHead,
    }
)


def build_head(config: TrainConfig, shape: Shape, generator: torch.Generator) -> Head:
    """The head that the config names, with fresh weights.

    Args:
        config: Its options are those of the head that read them.
        shape: What the head is given and what it answers.
        generator: Source of the initial weights.

    Raises:
        ConfigError: where no head has that name, or it cannot be built so.
    """
    problems = head_problems(config, shape)
    if problems:
        raise ConfigError("\n  ".join(problems))
    return HEADS[config.head].build(config, shape, generator)


def head_problems(config: TrainConfig, shape: Shape) -> list[str]:
    """A sentence for everything that stands against building the head that the config names."""
    return unknown_head(config) or HEADS[config.head].problems(config, shape)


def learns_order(head: str) -> bool:
    """Whether a head can learn classes as steps of one scale."""
    return head.startswith(GUIDED) or not issubclass(HEADS.get(head, ClosedHead), ClosedHead)


def unknown_head(config: TrainConfig) -> list[str]:
    """A sentence where no head has the config's name."""
    if config.head in HEADS:
        return []
    known = f"known heads: {', '.join(HEADS)}, guided:<timm model>"
    return [f"unknown head {config.head}; {known}{meant(config.head, HEADS)}"]
