"""A small data set with several runs, for what comes out of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import samcls

__all__ = ["TINY", "Deployed", "deployed", "picture"]

TINY = {"encoder": "vit_t", "size": 64, "window": 2, "levels": ["early", "neck"], "batch": 8}
QUICK = {"epochs": 3, "intervals": 20}
IMAGES = 64


@dataclass(frozen=True)
class Deployed:
    """Where things lie.

    Attributes:
        root: A folder with `manifest.csv` and its pictures, some with one patient, one of them broken.
        store: Their features and pixels.
    """

    root: Path
    store: Path

    def run(self, name: str, **settings: object) -> Path:
        """Train a run, once."""
        path = self.root / name
        if not path.exists():
            samcls.train(self.store, path, **{**QUICK, **settings})
        return path


def picture(rng: np.random.Generator, level: float, height: int, width: int) -> np.ndarray:
    """Noise about a grey level."""
    return np.clip(rng.normal(level, 45, (height, width, 3)), 0, 255).astype(np.uint8)


def deployed(root: Path, seed: int = 0, shift: float = 0.0, labels: bool = True) -> Deployed:
    """Make a data set of two classes.

    Args:
        root: Where.
        seed: Of the noise.
        shift: Added to every grey level: another hospital's.
        labels: Whether the manifest has them.
    """
    rng = np.random.default_rng(seed)
    rows = ["id,path,split,group" + (",label:grade,meta:sex,meta:age" if labels else "")]
    for i in range(IMAGES):
        name, level = ("benign", 100.0) if i % 2 else ("malignant", 125.0)
        height, width = 30 + i % 7, 50 - i % 9
        level += shift + 25 * rng.normal()  # so that classes overlap
        Image.fromarray(picture(rng, level, height, width)).save(root / f"{i:02}.png")
        split = ("train", "train", "val", "test")[i // 2 % 4]
        patient = f"P{i // 8}-{split}"
        rest = f",{name},{'fm'[i % 3 == 0]},{40 + i % 30}" if labels else ""
        rows.append(f"image-{i:02},{i:02}.png,{split},{patient}{rest}")
    (root / "00.png").write_bytes(b"no picture")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    if labels:
        samcls.extract(root / "manifest.csv", root / "features.zarr", keep_pixels=32, **TINY)
    return Deployed(root, root / "features.zarr")
