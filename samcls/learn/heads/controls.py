"""The heads that stand beside a run as its controls, with the run's own settings.

beside = dict(plain_controls(config))
"""

from collections.abc import Iterator
from dataclasses import replace

from samcls.learn.heads.registry import reads
from samcls.learn.settings import TrainConfig

__all__ = [
    "MEANINGS",
    "SAME_WINDOWS",
    "SHUFFLED",
    "plain_controls",
    "references",
    "slca_control",
]

SHUFFLED = "slca, shuffled"  # SLCA on features that were shuffled between images
SAME_WINDOWS = ("logistic-statistics", "logistic-windows")  # see what SLCA sees, and gate nothing

# What tables call what stands beside a run.
MEANINGS = {
    "majority": "majority class",
    "logistic": "logistic regression",
    "logistic-statistics": "logistic, windows' statistics",
    "logistic-windows": "logistic, all windows",
    "linear": "linear head",
    "se": "one global window (se)",
    SHUFFLED: "slca, shuffled images",
}


def references(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Return what stands beside every run: regressions on means and on windows' statistics."""
    for name in ("logistic", "logistic-statistics"):
        yield name, _plain(config, name)


def plain_controls(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Return a regression on all windows, and the plainest heads: without attention, and with one gate.

    The regression holds all windows of all images at once, which a store of whole maps may have too many of.
    """
    for name in ("logistic-windows", "linear", "se"):
        yield name, _plain(config, name)


def slca_control(config: TrainConfig) -> tuple[str, TrainConfig]:
    """SLCA, to be trained on shuffled labels.

    A network's upsampling is from windows to stages; SLCA's own needs whole maps, which a network does
    not read.
    """
    upsampling = "nearest" if reads(config).pixels else config.upsampling
    return SHUFFLED, replace(config, head="slca", upsampling=upsampling)


def _plain(config: TrainConfig, head: str) -> TrainConfig:
    """Return the run's settings for a head that knows neither a hidden layer nor a cumulative link."""
    return replace(config, head=head, hidden=0, ordinal=())
