"""Channels that the storage type rounds too coarsely: their spread set beside their own rounding step.

float16 keeps 11 significant bits, so a channel whose mean is large beside its standard deviation loses its
detail without any error. A sample of finished rows is read back, so that resumed and spread extracts are
judged alike, and the cost does not grow with the number of images.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE

__all__ = ["CoarseLevel", "coarse_levels", "rounding_steps"]

STEPS = 64  # rounding steps that a standard deviation should have at least

ROWS = 64
VALUES = 1 << 24  # of a level, at most so many are read
BITS = {"float16": 10, "float32": 23}
SMALLEST_EXPONENT = {"float16": -14, "float32": -126}


@dataclass(frozen=True)
class CoarseLevel:
    """What storage keeps of one level's channels.

    Attributes:
        level: Name of the level.
        channels: How many it has.
        coarse: How many keep fewer than 64 rounding steps a standard deviation.
        fewest: Steps of the worst channel.
        worst: Its number.
    """

    level: str
    channels: int
    coarse: int
    fewest: float
    worst: int

    def sentence(self, storage: str, keep_bits: int | None) -> str:
        """Say it in words, with the remedy."""
        kept = f"{storage} with --keep-bits {keep_bits}" if keep_bits else storage
        remedy = "--storage float32" if storage == "float16" else "no --keep-bits"
        if keep_bits and storage == "float16":
            remedy = f"no --keep-bits, or with {remedy}"
        return (
            f"level {self.level}: {self.coarse} of {self.channels} channels keep fewer than {STEPS} "
            f"rounding steps of {kept} a standard deviation (channel {self.worst} keeps "
            f"{self.fewest:.1f}), so their detail is lost; extract with {remedy} into a new store"
        )


def coarse_levels(store: FeatureStore) -> list[CoarseLevel]:
    """Judge every level of a store by a sample of its finished rows.

    Raises:
        StoreError: rows that are done cannot be read.
    """
    finished = np.flatnonzero(store.status == DONE)
    if not len(finished):
        return []
    made = store.fingerprint
    found = []
    for level, shape in store.levels.items():
        most = max(2, min(ROWS, VALUES // (shape.values * len(made.views))))
        rows = finished[np.unique(np.linspace(0, len(finished) - 1, most).astype(int))]
        values = _shown(store, level, rows)
        steps = rounding_steps(values, made.storage, made.keep_bits)
        coarse, worst = int((steps < STEPS).sum()), int(steps.argmin())
        found.append(CoarseLevel(level, len(steps), coarse, float(steps[worst]), worst))
    return found


def _shown(store: FeatureStore, level: str, rows: np.ndarray) -> Float[np.ndarray, "cell channel"]:
    """Read the cells of some rows that show picture."""
    values = store.read(level, rows)
    parts = []
    for view in range(values.shape[1]):
        shows = store.counts(level, rows, view) > 0
        parts.append(np.moveaxis(values[:, view], 1, -1)[shows])
    return np.concatenate(parts).astype(np.float32)


def rounding_steps(
    values: Float[np.ndarray, "cell channel"], storage: str, keep_bits: int | None = None
) -> Float[np.ndarray, " channel"]:
    """Return how many rounding steps each channel's standard deviation spans.

    The step is that of the storage type, or of the bits that are kept, at the channel's root mean square.
    A channel that is zero throughout has nothing to lose; one that is constant otherwise, while others
    vary, was rounded to nothing.
    """
    spread = values.std(axis=0, dtype=np.float64)
    size = np.sqrt(np.square(values, dtype=np.float64).mean(axis=0))
    exponent = np.maximum(np.frexp(size)[1] - 1, SMALLEST_EXPONENT[storage])
    step = np.ldexp(1.0, exponent - (keep_bits or BITS[storage]))
    steps: np.ndarray = spread / step
    steps[(size == 0) | (not spread.any())] = np.inf
    return steps
