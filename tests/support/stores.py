"""Tiny real stores that several tests build on."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from samcls.store.feature_store import FeatureStore, RowBatch, RowTable
from samcls.store.lock import writer_lock
from samcls.store.rewrite import finish_rewrite, rewrite_store
from samcls.store.schema import DONE, Fingerprint, LevelShape, Partition

__all__ = [
    "FINGERPRINT",
    "LEVELS",
    "batch",
    "changed",
    "drop",
    "make",
    "make_parted",
    "only",
    "pick",
    "table",
]

FINGERPRINT = Fingerprint(
    encoder="vit_t",
    checkpoint_sha256="0" * 64,
    input_size=64,
    resize="longest",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    levels=("block:0", "neck"),
    window=2,
    views=("identity",),
    storage="float16",
    precision="float32",
    preprocessing=1,
)
LEVELS = {"block:0": LevelShape(3, 2, 2, 16), "neck": LevelShape(5, 2, 2, 16)}


def table(images: int) -> RowTable:
    return RowTable(
        ids=[f"image-{i}-é" for i in range(images)],
        splits=["train", "val", "test"] * (images // 3) + ["train"] * (images % 3),
        groups=[""] * images,
        tasks={"label": ("benign", "malignant")},
        labels=np.arange(images, dtype=np.int16)[:, None] % 2,
    )


def changed(images: int) -> RowTable:
    """The table with every column changed."""
    return replace(
        table(images),
        splits=["test"] * images,
        groups=[f"patient-{i // 2}" for i in range(images)],
        tasks={"label": ("no", "yes"), "age": ("young", "old", "older")},
        labels=np.arange(2 * images, dtype=np.int16).reshape(images, 2) % 3 - 1,
    )


def only(rows: np.ndarray | list[int], images: int = 40) -> RowTable:
    """Some rows of the table, in the order given."""
    whole, at = table(images), np.asarray(rows, dtype=int)
    return replace(
        whole,
        ids=[whole.ids[row] for row in at],
        splits=[whole.splits[row] for row in at],
        groups=[whole.groups[row] for row in at],
        labels=whole.labels[at],
    )


def make(path: Path, images: int = 9) -> FeatureStore:
    return FeatureStore.create(path, FINGERPRINT, LEVELS, table(images))


def batch(start: int, rows: int, seed: int = 0) -> RowBatch:
    rng = np.random.default_rng(seed + start)
    features = {
        name: rng.normal(size=(rows, 1, s.channels, s.rows, s.cols)).astype(np.float16)
        for name, s in LEVELS.items()
    }
    return RowBatch(
        rows=np.arange(start, start + rows),
        features=features,
        valid=np.full((rows, 2), 64, dtype=np.uint16),
        sha256=rng.integers(0, 255, (rows, 32), dtype=np.uint8),
        status=np.full(rows, DONE, dtype=np.uint8),
        error=[""] * rows,
    )


def make_parted(path: Path, images: int = 21) -> tuple[FeatureStore, RowBatch]:
    """A full store of several shards: chunks of 2 rows, shards of 8."""
    store = FeatureStore.create(path, FINGERPRINT, LEVELS, table(images), partition=Partition(2, 8))
    given = batch(0, images)
    store.write(given)
    return store, given


def pick(given: RowBatch, rows: np.ndarray) -> RowBatch:
    """Some rows of a batch that starts at row 0."""
    return RowBatch(
        rows=rows,
        features={name: values[rows] for name, values in given.features.items()},
        valid=given.valid[rows],
        sha256=given.sha256[rows],
        status=given.status[rows],
        error=[given.error[row] for row in rows],
    )


def drop(path: Path, rows: list[int]) -> FeatureStore:
    """Write the store anew with some rows of the table alone, ending what was begun."""
    with writer_lock(path) as lock:
        finish_rewrite(path)
        store = FeatureStore.open(path, mode="r+", claim=lock.claim)
        return rewrite_store(store, only(rows), lock.claim)
