"""Heads by name. A new head is one file with a class that keeps to `Head`, and one line in `HEADS`.

All heads stand on the same footing: the same standardised tokens, loop, choice on validation and
tables. SLCA over five levels of 256 channels has 44,882 parameters, `linear` 2,562. A head's module is
imported when it is asked for, so that the names alone cost nothing.

    shape = Shape(channels={"neck": 256}, classes={"grade": 5}, grids={"neck": (4, 4)}, window=4)
    head = build_head(config, shape, generator)
    logits = head({"neck": tokens}, {"neck": counts})
"""

from importlib import import_module
from typing import TYPE_CHECKING

from samcls.errors import ConfigError
from samcls.files import meant
from samcls.learn.settings import TrainConfig

if TYPE_CHECKING:
    import torch

    from samcls.learn.heads.base import Head, Reads, Shape

__all__ = [
    "HEADS",
    "build_head",
    "head_class",
    "head_problems",
    "known_heads",
    "learns_order",
    "reads",
    "unknown_head",
]

# The class of each head; a name that ends with a colon is followed by a name of the head's own choice.
HEADS = {
    "slca": "samcls.learn.heads.slca_head.SLCAHead",
    "linear": "samcls.learn.heads.pooled.LinearHead",
    "se": "samcls.learn.heads.se.SEHead",
    "attention-pool": "samcls.learn.heads.attention_pool.AttentionPoolHead",
    "mlp": "samcls.learn.heads.pooled.MLPHead",
    "knn": "samcls.learn.heads.closed.KNNHead",
    "logistic": "samcls.learn.heads.closed.LogisticHead",
    "logistic-statistics": "samcls.learn.heads.closed.LogisticStatisticsHead",
    "logistic-windows": "samcls.learn.heads.windows.LogisticWindowsHead",
    "regressions": "samcls.learn.heads.ensemble.RegressionsHead",
    "ensemble:": "samcls.learn.heads.ensemble.EnsembleHead",
    "guided:": "samcls.learn.heads.guided.net.GuidedNet",
}
# What help calls the name behind a colon.
FOLLOWED = {"ensemble:": "<head>", "guided:": "<timm model>"}


def known_heads() -> str:
    """All names, as help and errors list them."""
    return ", ".join(name + FOLLOWED.get(name, "") for name in HEADS)


def head_class(name: str) -> "type[Head]":
    """Return the class of a head's name.

    Raises:
        ConfigError: where no head has that name.
    """
    key = _key(name)
    if key is None:
        raise ConfigError("\n  ".join(unknown_head(name)))
    module, _, called = HEADS[key].rpartition(".")
    found: type[Head] = getattr(import_module(module), called)
    return found


def unknown_head(name: str) -> list[str]:
    """Return a sentence where no head has that name."""
    if _key(name) is not None:
        return []
    return [f"unknown head {name}; known heads: {known_heads()}{meant(name, HEADS)}"]


def build_head(config: TrainConfig, shape: "Shape", generator: "torch.Generator") -> "Head":
    """Return the head that the config names, with fresh weights.

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
    return head_class(config.head).build(config, shape, generator)


def head_problems(config: TrainConfig, shape: "Shape") -> list[str]:
    """Return a sentence for everything that stands against building the head that the config names."""
    return unknown_head(config.head) or head_class(config.head).problems(config, shape)


def learns_order(name: str) -> bool:
    """Whether a head can learn classes as steps of one scale; an unknown one cannot."""
    return _key(name) is not None and head_class(name).learns_order


def reads(config: TrainConfig) -> "Reads":
    """Return what the config's head reads of a store; an unknown one as most heads do."""
    from samcls.learn.heads.base import Head

    return (Head if _key(config.head) is None else head_class(config.head)).reads(config)


def _key(name: str) -> str | None:
    """Return the key of `HEADS` that a name belongs to."""
    key = name[: name.find(":") + 1] or name
    return key if key in HEADS else None
