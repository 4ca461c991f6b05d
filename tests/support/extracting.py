"""Small pictures to extract, and what came of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from samcls.encode.extract import ExtractOptions
from samcls.store.feature_store import FeatureStore

__all__ = ["SMALL", "features", "image_folder"]

SMALL = ExtractOptions(encoder="vit_t", size=64, window=2, batch=4, precision="float32")


def image_folder(folder: Path, sizes: Sequence[tuple[int, int]], seed: int = 0) -> Path:
    """Write PNG files of the given (height, width) and their manifest."""
    rng = np.random.default_rng(seed)
    lines = ["id,path,split,label"]
    for i, (height, width) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        split = ("train", "train", "val", "test")[i % 4]
        lines.append(f"image{i},{i}.png,{split},{'ab'[i // 2 % 2]}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def features(store: FeatureStore) -> dict[str, np.ndarray]:
    return {level: store.read(level) for level in store.levels}
