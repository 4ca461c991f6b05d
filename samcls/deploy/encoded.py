"""Encoded images as a head takes them: pooled, rounded and standardised as those of a store.

features = features_of(model, fingerprint, batch, rows, texts, shapes)
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from samcls.deploy.said import TOGETHER
from samcls.errors import InputError
from samcls.learn.features.meta import LEVEL as META
from samcls.learn.features.meta import encode
from samcls.learn.features.pixels import Pixels, extents_of
from samcls.learn.features.tensors import Features, tokens_of
from samcls.learn.fit.prediction import Model
from samcls.learn.heads.registry import reads
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.schema import PIXELS, Fingerprint, LevelShape, cells_under, rounded

__all__ = ["features_of", "placed", "stored"]


def features_of(
    model: Model,
    made: Fingerprint,
    batch: RowBatch,
    rows: Int[np.ndarray, " image"],
    texts: Mapping[str, Sequence[str]],
    shapes: Mapping[str, LevelShape],
) -> Features:
    """Return some images of a batch as features, not standardised, in no split's right and without labels.

    Args:
        model: Says which levels, which window, and whether it looks at images and columns too.
        made: What made the features.
        batch: As stage one gives it; with images, where the model looks at them.
        rows: Which of its images, all of them done.
        texts: Columns of the manifest, by the number that the batch gives an image.
        shapes: Of each level's pooled map.
    """
    factor = model.shape.window // made.window
    valid, views = batch.valid[rows], made.views
    tokens, counts = {}, {}
    for level in model.shape.channels:
        if level == META:
            named = {k: [v[row] for row in batch.rows[rows].tolist()] for k, v in texts.items()}
            values = torch.from_numpy(encode(model.meta, named))[:, None]
            tokens[META] = values.repeat_interleave(len(views), 0)
            counts[META] = torch.ones(len(rows) * len(views), 1)
            continue
        cells = np.stack([cells_under(valid, shapes[level], made.window, v) for v in views], axis=1)
        maps = rounded(batch.features[level][rows], made.storage, made.keep_bits)
        tokens[level], counts[level] = tokens_of(maps, cells, factor)
    pixels = None
    if PIXELS in batch.features:
        images = torch.from_numpy(batch.features[PIXELS][rows])
        extents = extents_of(images, torch.from_numpy(valid.astype(np.int64)), made.input_size)
        pixels = Pixels(images, extents, views)
    return Features(
        tokens=tokens,
        counts=counts,
        labels=torch.full((len(rows), len(model.tasks)), -1, dtype=torch.int64),
        ids=tuple(str(row) for row in batch.rows[rows].tolist()),
        splits=("test",) * len(rows),
        groups=("",) * len(rows),
        tasks=model.tasks,
        window=model.shape.window,
        grids=model.shape.grids,
        views=len(views),
        fingerprint=made.to_dict(),
        failed=0,
        reach=model.shape.reach,
        pixels=pixels,
        meta=model.meta,
    )


def stored(
    model: Model, made: Fingerprint, store: FeatureStore, rows: Int[np.ndarray, " image"]
) -> Iterator[RowBatch]:
    """Yield images whose features a store holds as stage one gives them, 64 at once.

    Args:
        model: Says which levels, and whether it looks at images.
        made: What made the features that it learned from.
        store: An open store.
        rows: Which of its images, ascending.

    Raises:
        FingerprintMismatch: the store was made with other settings.
        InputError: the model looks at images that the store does not keep.
    """
    store.require(made)
    looks, side = reads(model.config).pixels, model.shape.pixels
    if looks and store.pixel_size != side:
        raise InputError(
            f"the run's network looks at images of {side} pixels, and {store.path} keeps "
            f"{store.pixel_size or 'none'}; extract with --keep-pixels {side}"
        )
    levels = [level for level in model.shape.channels if level in store.levels]
    for start in range(0, len(rows), TOGETHER):
        part = rows[start : start + TOGETHER]
        features = {level: store.read(level, part) for level in levels}
        if looks:
            features[PIXELS] = store.pixels(part)
        yield RowBatch(
            rows=part,
            features=features,
            valid=store.valid[part],
            sha256=store.sha256[part],
            status=store.status[part],
            error=[store.errors[row] for row in part.tolist()],
        )


def placed(
    values: np.ndarray | None, good: Bool[np.ndarray, " image"], width: int
) -> Float[np.ndarray, "image width"]:
    """Bring what is known into an array of all rows, the others being not a number."""
    found = np.full((len(good), width), np.nan, dtype=np.float32)
    if values is not None:
        found[good] = values
    return found
