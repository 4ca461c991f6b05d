"""The heads that stand beside a run as its controls, with the run's own settings.

beside = dict(plain_controls(config))
"""

from collections.abc import Iterator
from dataclasses import replace

from samcls.learn.heads.registry import reads
from samcls.learn.settings import TrainConfig

__all__ = ["MEANINGS", "SHUFFLED", "plain_controls", "reference", "slca_control"]

SHUFFLED = "slca, shuffled"  # SLCA on features that were shuffled between images

# What tables call what stands beside a run.
MEANINGS = {
    "majority": "majority class",
    "logistic": "logistic regression",
    "linear": "linear head",
    "se": "one global window (se)",
    SHUFFLED: "slca, shuffled images",
}


def reference(config: TrainConfig) -> tuple[str, TrainConfig]:
    """Logistic regression, which stands beside every run."""
    return "logistic", _plain(config, "logistic")


def plain_controls(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Return the plainest heads: without attention, and with a gate for the whole map."""
    for name in ("linear", "se"):
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
