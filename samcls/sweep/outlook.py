"""What more training images would bring: a power law through a sweep's shares, checked on the last of them.

    for one in outlooks(rows, records, space, scores):
        one.auc, one.interval                        # about, at twice the images
        one.foreseen, one.measured                   # of the largest share, from the smaller ones

A sweep needs `fractions`, three or more for an outlook and four for its check, and several seeds or folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from samcls.config import digest
from samcls.learn.runs.folder import Run
from samcls.learn.score.power_law import FEWEST_SIZES, fit_power_law
from samcls.sweep.efficiency import aucs_at, followed
from samcls.sweep.leaderboard import Row
from samcls.sweep.space import Space

__all__ = ["Outlook", "outlooks"]


@dataclass(frozen=True)
class Outlook:
    """What a head would come to with twice the training images.

    Attributes:
        head: Its name.
        images: Training images of the largest share, on the mean.
        auc: At twice as many, by the law.
        interval: 95 % around it, of another such set of training images and the same test images.
        foreseen: AUC at the largest share by the law through the smaller ones; None where these are
            fewer than three.
        foreseen_interval: 95 % around it.
        measured: The mean AUC that the largest share has.
    """

    head: str
    images: float
    auc: float
    interval: tuple[float, float]
    foreseen: float | None
    foreseen_interval: tuple[float, float] | None
    measured: float

    @property
    def held(self) -> bool | None:
        """Whether the largest share came out where the smaller ones said."""
        if self.foreseen_interval is None:
            return None
        low, high = self.foreseen_interval
        return low <= self.measured <= high

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, whether the check held, and the sentences, as JSON knows them."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return plain | {"held": self.held, "said": str(self)}

    def __str__(self) -> str:
        """Say it in a sentence or two."""
        low, high = self.interval
        said = (
            f"{self.head}: AUC {self.measured:.3f} with {self.images:.0f} training images; with twice as "
            f"many about {self.auc:.3f} ({low:.3f} to {high:.3f})"
        )
        if self.foreseen is None or self.foreseen_interval is None:
            return said
        low, high = self.foreseen_interval
        verdict = "held" if self.held else "DID NOT HOLD: do not count on it"
        return (
            f"{said}. Check: from the smaller shares {self.foreseen:.3f} ({low:.3f} to {high:.3f}) was "
            f"foreseen for all of them, which {verdict}"
        )


def outlooks(
    rows: Sequence[Row],
    records: Mapping[str, Run],
    space: Space,
    scores: Mapping[str, float | None],
) -> list[Outlook]:
    """Return the outlook of each head that has enough shares and runs, in the order of the leaderboard.

    Args:
        rows: The leaderboard.
        records: Finished runs by the digest of their config.
        space: Says which shares, seeds and folds there are.
        scores: AUC of runs by digest, on the split that it is of.
    """
    found = []
    for head, configuration in followed(rows).items():
        shares, sizes, columns = [], [], []
        for fraction in space.fractions:
            values = aucs_at(configuration, fraction, scores, space)
            members = space.trial(configuration, (fraction,)).members
            own = [records[digest(one)] for one in members if digest(one) in records]
            if values is not None and len(own) == len(members):
                shares.append(fraction)
                sizes.append(float(np.mean([one.metrics["images"]["train"] for one in own])))
                columns.append(values)
        if len(sizes) < FEWEST_SIZES or len(columns[0]) < 2:
            continue
        curve = np.stack(columns, axis=1)
        whole = sizes[-1] / shares[-1]
        auc, interval = fit_power_law(shares, whole, curve).at(2 * sizes[-1])
        foreseen, around = None, None
        if len(sizes) > FEWEST_SIZES:
            foreseen, around = fit_power_law(shares[:-1], whole, curve[:, :-1]).at(
                sizes[-1], another=False
            )
        measured = float(curve[:, -1].mean())
        found.append(Outlook(head, sizes[-1], auc, interval, foreseen, around, measured))
    return found
