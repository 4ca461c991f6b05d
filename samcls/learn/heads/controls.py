"""The heads that stand beside a run as its controls, with the run's own settings.

beside = dict(plain_controls(config))
"""

from collections.abc import Iterator
from dataclasses import replace

from samcls.config import defaults_of
from samcls.learn.heads.registry import head_class, reads
from samcls.learn.settings import TrainConfig

__all__ = [
    "COLUMNS",
    "IMAGE",
    "MEANINGS",
    "REGRESSIONS",
    "SAME_WINDOWS",
    "SHORT",
    "SHUFFLED",
    "columns_alone",
    "judges",
    "plain_controls",
    "references",
    "regressions",
    "slca_control",
]

IMAGE, COLUMNS = "image alone", "columns alone"  # of a run with columns beside the image
SHUFFLED = "slca, shuffled"  # SLCA on features that were shuffled between images
REGRESSIONS = ("logistic", "logistic-statistics", "logistic-windows")
# What sees all that SLCA sees, and gates nothing.
SAME_WINDOWS = ("logistic-statistics", "logistic-windows", "regressions")

SHORT = ("majority", "logistic", "regressions")  # baselines that a short table has
# What tables call what stands beside a run.
MEANINGS = {
    "majority": "majority class",
    "logistic": "logistic regression",
    "logistic-statistics": "logistic, windows' statistics",
    "logistic-windows": "logistic, all windows",
    "regressions": "the three regressions, averaged",
    IMAGE: "image alone, same head",
    COLUMNS: "columns alone (logistic)",
    "linear": "linear head",
    "se": "one global window (se)",
    SHUFFLED: "slca, shuffled images",
}


def references(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Return what stands beside every run: regressions on means and windows, and the mean of what they say."""
    yield from regressions(config)
    yield "regressions", _solved(config, "regressions")


def regressions(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Return the regressions on the features that a config names.

    Equal features and class weights give equal configs, so that none need be solved twice.
    """
    for name in REGRESSIONS:
        yield name, _solved(config, name)


def judges(config: TrainConfig) -> tuple[str, ...]:
    """Return the controls that say whether attention pays: they see the same windows, and weigh none.

    An ensemble is judged by what it is without its heads, where these attend.
    """
    kind = head_class(config.head)
    heads = [part for part in kind.heads(config) if head_class(part.head).attends()]
    if not heads:
        return ()
    return ("regressions",) if kind.fitting == "ensemble" else SAME_WINDOWS


def columns_alone(config: TrainConfig) -> TrainConfig:
    """Return the regression on the columns beside the image, without the image."""
    return _solved(config, "logistic")


def plain_controls(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Return the plainest heads: without attention, and with one gate."""
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


def _solved(config: TrainConfig, head: str) -> TrainConfig:
    """Return the settings that a solution depends on, of features that are there already."""
    usual = defaults_of(TrainConfig, "form", "member", "step")
    del usual["class_weights"]
    return replace(config, **usual | {"head": head})
