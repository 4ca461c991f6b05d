"""Features as an audit compares them: each channel's mean, along the directions in which images differ, each to scale.

Where the store holds views, the mean over them is the same for a picture that is turned or mirrored. Directions of
equal weight tell twins from look-alikes better than raw cosines do (`samcls bench audit`): what all images share
weighs no more than what one image has alone.

    means = mean_features(store, rows)
    vectors, own = by_features(means)
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from samcls.audit.nearest import unit
from samcls.store.feature_store import FeatureStore

__all__ = ["by_features", "compressed", "mean_features"]

BLOCK = 256  # images read at once
MEASURED = 4096  # rows that directions are found on, evenly spaced
EQUAL = 256  # directions of twins
MOST = 64  # directions of classes
FEW = 8  # images for each direction
OWN = 64  # images that are compared with their own views


def mean_features(
    store: FeatureStore, rows: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "view row channel"]:
    """Read each image's features once and return each channel's mean over the cells of the picture, by view."""
    blocks = []
    views = range(len(store.fingerprint.views))
    size = max(1, BLOCK // len(views))
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        parts = []
        for level in store.levels:
            maps = store.read(level, block).astype(np.float32)
            cells = np.stack([store.counts(level, block, view) for view in views])
            shares = cells / np.maximum(cells.sum((2, 3), keepdims=True), 1)
            parts.append(_sums(maps, shares.astype(np.float32)))
        blocks.append(np.concatenate(parts, 2))
    found: np.ndarray = np.concatenate(blocks, 1)
    return found


def _sums(
    maps: Float[np.ndarray, "row view channel i j"], shares: Float[np.ndarray, "view row i j"]
) -> Float[np.ndarray, "view row channel"]:
    flat = maps.reshape(*maps.shape[:3], -1)
    weights = shares.transpose(1, 0, 2, 3).reshape(*flat.shape[:2], -1, 1)
    found: np.ndarray = (flat @ weights)[..., 0].transpose(1, 0, 2)
    return found


def by_features(
    means: Float[np.ndarray, "view row channel"],
) -> tuple[Float[np.ndarray, "row component"], Float[np.ndarray, "own copy"] | None]:
    """Return vectors of length 1 whose inner products are similarities, and those of some images to their own views.

    Args:
        means: As `mean_features` gives them.

    Returns:
        The vectors; and the similarity of up to `OWN` images as they are to each of their views, None where
        there are no views.
    """
    project = _directions(means.mean(0), EQUAL, equal=True)
    vectors = unit(project(means.mean(0)))
    if len(means) < 2:
        return vectors, None
    some = np.linspace(0, means.shape[1] - 1, min(OWN, means.shape[1])).astype(np.int64)
    views = np.stack([unit(project(view[some])) for view in means])
    own: np.ndarray = np.einsum("nc,vnc->nv", views[0], views[1:])
    return vectors, own


def compressed(means: Float[np.ndarray, "row channel"]) -> Float[np.ndarray, "row component"]:
    """Return standardised features along the directions in which they vary most."""
    return _directions(means, MOST)(means)


def _directions(
    means: Float[np.ndarray, "row channel"], most: int, *, equal: bool = False
) -> Callable[[Float[np.ndarray, "_row channel"]], Float[np.ndarray, "_row component"]]:
    """Return what projects features on the directions in which these vary most, one at most for `FEW` images.

    Args:
        means: Of each image.
        most: Directions.
        equal: Whether every direction has the same weight.
    """
    mean, deviation = means.mean(0), means.std(0)
    deviation = np.where(deviation > 1e-6, deviation, np.inf).astype(np.float32)
    count = max(1, min(most, means.shape[1], len(means) // FEW))
    chosen = np.linspace(0, len(means) - 1, min(MEASURED, len(means))).astype(np.int64)
    sample = (means[chosen] - mean) / deviation
    values, vectors = np.linalg.eigh(sample.T @ sample / len(sample))
    basis = vectors[:, ::-1][:, :count]
    if equal:
        basis = basis / np.sqrt(np.maximum(values[::-1][:count], 1e-6))

    def project(
        features: Float[np.ndarray, "_row channel"],
    ) -> Float[np.ndarray, "_row component"]:
        found: np.ndarray = ((features - mean) / deviation) @ basis.astype(np.float32)
        return found

    return project
