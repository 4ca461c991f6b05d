"""How many training images a head needs: AUC against the share that it learned from.

Of each head the configuration that the leaderboard ranks first is followed down the shares, so that
the curve is of one set of settings. Its interval is Student's over seeds and folds: each seed draws
its own nested share, its own weights and order, so it holds what another draw of training images
would change, a share's groups whole. What other images to be scored on would change it does not hold:
they are the same for all, and heads stand beside each other on the same
shares: differences between heads are paired, and surer than the two intervals suggest.

    for point in efficiency(leaderboard(records, space), records, space):
        point.head, point.fraction, point.auc, point.interval

The settings were chosen on the largest share, at which the curve is therefore a little too high.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from samcls.config import digest
from samcls.learn.heads.registry import head_class
from samcls.learn.runs.folder import Run
from samcls.learn.settings import TrainConfig
from samcls.sweep.leaderboard import Row
from samcls.sweep.space import Space

__all__ = ["Point", "aucs_at", "efficiency", "followed"]


@dataclass(frozen=True)
class Point:
    """A head at one share of the training split.

    Attributes:
        head: Its name, with that of its control where a guided network has one.
        configuration: Digest of the configuration that is followed.
        fraction: Share of the training split.
        auc: Mean AUC over seeds and folds.
        interval: 95 % around the mean; None of a single run.
        runs: Number of runs.
        difference: Mean difference to the first head of the leaderboard on the same seeds and
            folds; None for that head itself.
        difference_interval: 95 % around it.
    """

    head: str
    configuration: str
    fraction: float
    auc: float
    interval: tuple[float, float] | None
    runs: int
    difference: float | None
    difference_interval: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def efficiency(
    rows: Sequence[Row],
    records: Mapping[str, Run],
    space: Space,
    scores: Mapping[str, float | None] | None = None,
) -> list[Point]:
    """Return the curve of each head, heads in the order of the leaderboard, shares rising.

    Shares at which a run is missing, failed, or has no AUC are left out.

    Args:
        rows: The leaderboard.
        records: Finished runs by the digest of their config.
        space: Says which shares, seeds and folds there are.
        scores: AUC of runs by digest; None takes those of validation.
    """
    if scores is None:
        scores = {key: record.auc for key, record in records.items()}
    best = followed(rows)
    first = next(iter(best), None)
    points = []
    for fraction in space.fractions:
        leading = aucs_at(best[first], fraction, scores, space) if first is not None else None
        for head, configuration in best.items():
            found = aucs_at(configuration, fraction, scores, space)
            if found is None:
                continue
            gap = None if head == first or leading is None else found - leading
            points.append(
                Point(
                    head=head,
                    configuration=digest(configuration),
                    fraction=fraction,
                    auc=float(found.mean()),
                    interval=_interval(found),
                    runs=len(found),
                    difference=None if gap is None else float(gap.mean()),
                    difference_interval=None if gap is None else _interval(gap),
                )
            )
    heads = list(best)
    return sorted(points, key=lambda point: (heads.index(point.head), point.fraction))


def followed(rows: Sequence[Row]) -> dict[str, TrainConfig]:
    """Each head's best configuration, heads in the order of the leaderboard."""
    best: dict[str, TrainConfig] = {}
    for row in sorted((r for r in rows if r.rank is not None), key=lambda r: r.rank or 0):
        best.setdefault(_named(row.configuration), row.configuration)
    return best


def _named(config: TrainConfig) -> str:
    """Return a head's name; a guided network and each of its controls stand apart."""
    return head_class(config.head).title(config)


def aucs_at(
    configuration: TrainConfig,
    fraction: float,
    scores: Mapping[str, float | None],
    space: Space,
) -> np.ndarray | None:
    """AUC of each seed and fold at one share; None where one is missing.

    Args:
        configuration: Neutral, as the space gives it.
        fraction: Share of the training split.
        scores: AUC of runs by digest.
        space: Says which seeds and folds there are.
    """
    members = space.trial(configuration, (fraction,)).members
    found = [scores.get(digest(member)) for member in members]
    values = [value for value in found if value is not None]
    return np.array(values) if len(values) == len(members) else None


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    margin = float(student.ppf(0.975, len(values) - 1)) * error
    middle = float(values.mean())
    return middle - margin, middle + margin
