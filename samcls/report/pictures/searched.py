"""Pictures of a sweep, as the sweep itself draws them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samcls.report.pictures.drawing import Drawing
from samcls.sweep.efficiency import Point
from samcls.sweep.leaderboard import leaderboard
from samcls.sweep.outcomes import read_runs
from samcls.sweep.plots import data_efficiency, marginals
from samcls.sweep.scales import varied
from samcls.sweep.space import load_space

__all__ = ["learning_curve", "settings"]

INTERVALS = ("interval", "difference_interval")  # which JSON holds as lists


def learning_curve(points: Sequence[Mapping[str, Any]], split: str) -> Drawing:
    """AUC by the share of training images.

    Args:
        points: As `leaderboard.json` holds them.
        split: Whose AUC it is.
    """
    made = [Point(**{**one, **{name: _pair(one[name]) for name in INTERVALS}}) for one in points]
    heads = ", ".join(dict.fromkeys(point.head for point in made))
    return Drawing(
        data_efficiency(made, split),
        "Learning curve",
        f"{split} AUC of {heads} against the share of the training images",
        "Each head's best configuration on shares of the training images, each drawn anew by every seed.",
        "leaderboard.json",
    )


def settings(folder: Path) -> Drawing | None:
    """AUC by each setting that varied; None where none did.

    Args:
        folder: Of the sweep.
    """
    space, runs = load_space(folder / "space.toml"), read_runs(folder)
    rows = [row for row in leaderboard(runs, space) if row.rank is not None]
    if not rows or not varied(rows, space):
        return None
    return Drawing(
        marginals(rows, space),
        "What was tried",
        f"validation AUC of {len(rows)} configurations against each setting that varied",
        "Every configuration, by each setting that varied; the star is the winner, lines are medians.",
        "results.csv",
    )


def _pair(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (ends[0], ends[1])
