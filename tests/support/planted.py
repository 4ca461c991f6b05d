"""Tiny real stores with a signal to learn."""

from pathlib import Path
from typing import Any

import numpy as np

from samcls.store.feature_store import FeatureStore, RowBatch, RowTable
from samcls.store.schema import DONE, Fingerprint, LevelShape

__all__ = ["planted_store"]

SPLITS = ("train",) * 3 + ("val",) + ("test",)


def fingerprint(levels: tuple[str, ...], **changes: Any) -> Fingerprint:
    values: dict[str, Any] = {
        "encoder": "vit_t",
        "checkpoint_sha256": "0" * 64,
        "input_size": 128,
        "resize": "longest",
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
        "levels": levels,
        "window": 2,
        "views": ("identity",),
        "storage": "float16",
        "precision": "float32",
        "preprocessing": 1,
    }
    return Fingerprint(**values | changes)


def planted(labels: np.ndarray, shape: LevelShape, strength: float, seed: int) -> np.ndarray:
    """Noise whose first channels grow with the labels in one corner; channels differ in scale."""
    generator = np.random.default_rng(seed)
    maps = generator.normal(size=(len(labels), 1, shape.channels, shape.rows, shape.cols))
    for task, column in enumerate(labels.T):
        maps[:, 0, task, 0, 0] += strength * column
    scale = np.exp(generator.normal(size=(shape.channels, 1, 1)))
    return (scale * maps + 3 * generator.normal(size=(shape.channels, 1, 1))).astype(np.float32)


def pairs(splits: list[str]) -> list[str]:
    """Two images a patient, both of one split."""
    return [f"patient-{split}-{splits[:i].count(split) // 2}" for i, split in enumerate(splits)]


def planted_store(
    folder: Path,
    images: int = 100,
    *,
    name: str = "store.zarr",
    strength: float = 3.0,
    tasks: dict[str, tuple[str, ...]] | None = None,
    labels: np.ndarray | None = None,
    splits: list[str] | None = None,
    groups: list[str] | None = None,
    ids: list[str] | None = None,
    status: np.ndarray | None = None,
    levels: dict[str, LevelShape] | None = None,
    features: dict[str, np.ndarray] | None = None,
    valid: np.ndarray | None = None,
    pixels: np.ndarray | None = None,
    meta: dict[str, list[str]] | None = None,
    **changes: Any,
) -> FeatureStore:
    """A store of two levels on a map of 8 x 8 cells, pooled over 2 x 2."""
    tasks = tasks or {"malignancy": ("benign", "malignant")}
    levels = levels or {"block:1": LevelShape(6, 4, 4, 16), "neck": LevelShape(4, 4, 4, 16)}
    splits = splits or [SPLITS[i % len(SPLITS)] for i in range(images)]
    if labels is None:
        generator = np.random.default_rng(1)
        columns = [generator.integers(0, len(c), images) for c in tasks.values()]
        labels = np.stack(columns, axis=1)
    status = np.full(images, DONE, dtype=np.uint8) if status is None else status
    made = fingerprint(tuple(levels), **changes)
    store = FeatureStore.create(
        folder / name,
        made,
        levels,
        RowTable(
            ids=ids or [f"image-{i}" for i in range(images)],
            splits=splits,
            groups=groups or pairs(splits),
            tasks=tasks,
            labels=labels.astype(np.int16),
            meta=meta or {},
        ),
        pixels=0 if pixels is None else pixels.shape[1],
    )
    maps = features or {
        level: planted(labels, shape, strength, seed)
        for seed, (level, shape) in enumerate(levels.items())
    }
    reached = np.flatnonzero(status)
    full = np.full((images, 2), made.input_size, dtype=np.uint16)
    store.write(
        RowBatch(
            rows=reached,
            features={k: v[reached].astype(made.storage) for k, v in maps.items()}
            | ({} if pixels is None else {"pixels": pixels[reached]}),
            valid=(full if valid is None else valid.astype(np.uint16))[reached],
            sha256=np.zeros((len(reached), 32), dtype=np.uint8),
            status=status[reached],
            error=["" if s == DONE else "truncated" for s in status[reached]],
        )
    )
    return FeatureStore.open(store.path)
