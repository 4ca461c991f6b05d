"""Features as an audit compares them: what no symmetry of the picture changes, and each channel's mean.

Of each channel of each level: its mean, the logarithm of its deviation, and the magnitudes of the lowest
frequencies of its cosine transform, (u, v) and (v, u) together. An encoder's answer to a turned picture is not
its answer turned, so that this is less sure than pixels are. 2,750 images of `lite0` take some three seconds.

    invariant, means = described_maps(store, rows)
"""

import numpy as np
from jaxtyping import Float, Int

from samcls.audit.nearest import unit
from samcls.store.feature_store import FeatureStore

__all__ = ["compressed", "described_maps"]

FREQUENCIES = 4
BLOCK = 256  # images read at once
MEASURED = 4096  # rows that components are found on, evenly spaced
COMPONENTS = 256


def described_maps(
    store: FeatureStore, rows: Int[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, "row number"], Float[np.ndarray, "row channel"]]:
    """Read each image's maps of the first view once.

    Returns:
        What no symmetry changes, brought to at most `COMPONENTS` numbers of length 1; and the means.
    """
    wide, means = [], []
    projection: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    sample = rows[np.linspace(0, len(rows) - 1, min(MEASURED, len(rows))).astype(np.int64)]
    if len(sample) < len(rows):
        projection = _components(np.concatenate([w for w, _ in _described(store, sample)]))
    for numbers, mean in _described(store, rows):
        wide.append(numbers if projection is None else _project(numbers, projection))
        means.append(mean)
    flat = np.concatenate(wide)
    if projection is None:
        flat = _project(flat, _components(flat))
    return unit(flat), np.concatenate(means)


def compressed(
    means: Float[np.ndarray, "row channel"], most: int = 64
) -> Float[np.ndarray, "row component"]:
    """Return standardised features along the directions in which they vary most."""
    deviation = means.std(0)
    scaled = (means - means.mean(0)) / np.where(deviation > 1e-6, deviation, 1)
    count = max(1, min(most, *scaled.shape))
    sample = scaled[np.linspace(0, len(scaled) - 1, min(MEASURED, len(scaled))).astype(np.int64)]
    values, vectors = np.linalg.eigh(sample.T @ sample)
    del values
    found: np.ndarray = (scaled @ vectors[:, ::-1][:, :count]).astype(np.float32)
    return found


def _described(store: FeatureStore, rows: Int[np.ndarray, " row"]):  # type: ignore[no-untyped-def]
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        numbers, means = [], []
        for level in store.levels:
            maps = store.read(level, block)[:, 0].astype(np.float32)
            cells = store.counts(level, block).astype(np.float32)[:, None]
            total = np.maximum(cells.sum((2, 3)), 1)
            mean = (maps * cells).sum((2, 3)) / total
            away = (maps - mean[:, :, None, None]) * (cells > 0)
            spread = np.sqrt((away**2 * cells).sum((2, 3)) / total)
            means.append(mean)
            numbers += [mean, np.log(spread + 1e-4)]
            count = min(FREQUENCIES, *maps.shape[2:])
            down, across = (_cosines(side, count) for side in maps.shape[2:])
            waves = np.abs(np.einsum("ur,ncrs,vs->ncuv", down, away, across, optimize=True))
            both = waves + waves.transpose(0, 1, 3, 2)
            upper = [(u, v) for u in range(count) for v in range(u, count) if (u, v) != (0, 0)]
            numbers += [both[:, :, u, v] for u, v in upper]
        yield np.concatenate(numbers, 1), np.concatenate(means, 1)


def _components(
    numbers: Float[np.ndarray, "row number"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, deviation and directions, each divided by the square root of its deviation."""
    from sklearn.utils.extmath import randomized_svd

    mean, deviation = numbers.mean(0), numbers.std(0)
    deviation = np.where(deviation > 1e-6, deviation, np.inf).astype(np.float32)
    scaled = (numbers - mean) / deviation
    count = max(1, min(COMPONENTS, *scaled.shape))
    _, lengths, basis = randomized_svd(scaled, count, random_state=0, n_iter=3)
    along = lengths / np.sqrt(len(scaled))
    weights = np.where(along > 1e-6, 1 / np.sqrt(np.maximum(along, 1e-6)), 0)
    return mean, deviation, (basis.T * weights).astype(np.float32)


def _project(numbers: np.ndarray, parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    mean, deviation, basis = parts
    found: np.ndarray = ((numbers - mean) / deviation) @ basis
    return found


def _cosines(side: int, count: int) -> Float[np.ndarray, "count side"]:
    waves = np.cos(np.pi * np.outer(np.arange(count), np.arange(side) + 0.5) / side)
    found: np.ndarray = (waves * np.sqrt(2 / side)).astype(np.float32)
    return found
