"""How far stored features are from the float32 encoder's own, on one's own images.

`samcls extract --check 16` encodes some images again in float32 and sets beside that what the
compute precision gave, and what is in the store.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from samcls.data.manifest import Manifest
from samcls.encode.encoders import open_encoder
from samcls.encode.options import ExtractOptions
from samcls.encode.pipeline import Pipeline
from samcls.errors import ConfigError
from samcls.store.feature_store import FeatureStore
from samcls.store.schema import DONE

__all__ = ["LevelError", "check_precision"]

FLOOR = 1e-6  # of a channel's standard deviation; below it a channel is dead


@dataclass(frozen=True)
class LevelError:
    """Distance of one level from the float32 reference, over the images checked.

    Attributes:
        level: Name of the level.
        what: `compute` (the precision of the arithmetic alone) or `stored` (storage type included).
        relative: Norm of the difference over the norm of the reference.
        cosine: Smallest cosine similarity of an image's features.
        worst: Largest difference in units of its channel's standard deviation over the images.
    """

    level: str
    what: str
    relative: float
    cosine: float
    worst: float


def check_precision(
    manifest: Manifest, store_path: str, options: ExtractOptions, images: int
) -> list[LevelError]:
    """Encode some finished images again and compare.

    Args:
        manifest: The store's.
        store_path: A store with finished rows.
        options: Those that the store was made with.
        images: How many to check, spread evenly over the finished rows.

    Raises:
        ConfigError: fewer than one image is asked for, or none is finished.
    """
    store = FeatureStore.open(store_path)
    finished = np.flatnonzero(store.status == DONE)
    if images < 1 or not len(finished):
        raise ConfigError(
            f"--check is {images} and {len(finished)} images are done; expected at least 1 of each"
        )
    rows = finished[np.unique(np.linspace(0, len(finished) - 1, images).astype(int))]
    exact = _encode(manifest, rows, replace(options, precision="float32"))
    own = replace(options, precision=store.fingerprint.precision)
    compute = exact if own.precision == "float32" else _encode(manifest, rows, own)
    errors = []
    for level, reference in exact.items():
        stored = store.read(level, rows).astype(np.float32)
        errors.append(_compare(level, "compute", reference, compute[level]))
        errors.append(_compare(level, "stored", reference, stored))
    return errors


def _encode(
    manifest: Manifest, rows: np.ndarray, options: ExtractOptions
) -> dict[str, Float[np.ndarray, "image view channel row col"]]:
    """Encode rows in float32 storage, each on its own."""
    alone = replace(options, storage="float32", batch=1)
    pipeline = Pipeline(manifest.rows, open_encoder(options), alone, lambda _: None)
    parts: dict[int, dict[str, np.ndarray]] = {}
    for batch in pipeline.run(rows, {}, lambda row: parts[row]):
        parts[int(batch.rows[0])] = {level: x[0] for level, x in batch.features.items()}
    return {level: np.stack([parts[int(row)][level] for row in rows]) for level in parts[rows[0]]}


def _compare(level: str, what: str, reference: np.ndarray, found: np.ndarray) -> LevelError:
    difference = found.astype(np.float64) - reference
    flat, other = (x.reshape(len(x), -1).astype(np.float64) for x in (reference, found))
    norms = np.linalg.norm(flat, axis=1) * np.linalg.norm(other, axis=1)
    spread = reference.std(axis=(0, 1, 3, 4)).reshape(1, 1, -1, 1, 1)
    alive = np.abs(difference) / np.maximum(spread, FLOOR)
    return LevelError(
        level=level,
        what=what,
        relative=float(np.linalg.norm(difference) / np.linalg.norm(flat)),
        cosine=float(((flat * other).sum(axis=1) / np.maximum(norms, 1e-30)).min()),
        worst=float(alive.max()),
    )
