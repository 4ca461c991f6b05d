"""200 JPEGs of odd sizes through a run and its export, beside the same head exported without its preprocessing.

python -m pytest -m slow -s tests/deploy/test_odd_pictures.py
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.data import DATA
from torch import Tensor, nn

import samcls
from samcls.data.images import read_image
from samcls.data.sources.isic2017 import isic2017_manifest
from samcls.deploy.handover import hand_over
from samcls.deploy.predictor import Predictor, load_predictor

ISIC = DATA / "isic2017"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ISIC.exists(), reason=f"ISIC 2017 is not at {ISIC}"),
]
SIDE = 224


def odd_pictures(folder: Path, sources: list[Path]) -> list[Path]:
    """1 x 2000 and the like, 37 x 41, grey, CMYK, turned by EXIF, and any size up to 700."""
    rng, found = np.random.default_rng(5), []
    folder.mkdir()
    for i in range(200):
        image = Image.open(sources[i * 13 % len(sources)]).convert("RGB")
        kind = i % 10
        thin, long = int(rng.integers(1, 5)), int(rng.integers(800, 2001))
        sizes = {0: (thin, long), 1: (37, 41), 2: (long, thin)}
        image = image.resize(sizes.get(kind, tuple(rng.integers(20, 700, 2).tolist())))
        image = image.convert({3: "L", 4: "CMYK"}.get(kind, "RGB"))
        exif = Image.Exif()
        if kind == 5:
            exif[274] = int(rng.integers(2, 9))
        found.append(folder / f"{i:03}.jpg")
        image.save(found[-1], quality=int(rng.integers(60, 96)), exif=exif)
    return found


class Plain(nn.Module):
    """What is exported where preprocessing is left outside: encoder, window means, head."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.encoder, self.model = predictor.encoder.plain(), predictor.models[0]
        self.levels, self.head = predictor.encoder.levels, self.model.head
        for level in self.levels:
            self.register_buffer(f"mean_{level}", self.model.scaler.mean[level])
            self.register_buffer(f"std_{level}", self.model.scaler.std[level])

    def forward(self, pixels: Tensor) -> Tensor:
        tokens, counts = {}, {}
        for level, maps in zip(self.levels, self.encoder(pixels), strict=True):
            means = nn.functional.avg_pool2d(maps, 4, ceil_mode=True, count_include_pad=False)
            flat = means.flatten(2).transpose(1, 2)
            tokens[level] = (flat - getattr(self, f"mean_{level}")) / getattr(self, f"std_{level}")
            counts[level] = torch.full(flat.shape[:2], 16.0)
        logits = self.head.traced(tokens, counts, None)
        return logits[:, : len(next(iter(self.model.tasks.values())))].softmax(1)


def stretched(file: Path) -> np.ndarray:
    return scaled(Image.open(file).convert("RGB").resize((SIDE, SIDE)))


def cropped(file: Path) -> np.ndarray:
    image = Image.open(file).convert("RGB")
    factor = 256 / min(image.size)
    image = image.resize(tuple(max(SIDE, round(side * factor)) for side in image.size))
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return scaled(image.crop((left, top, left + SIDE, top + SIDE)))


def scaled(image: Image.Image) -> np.ndarray:
    values = (np.asarray(image, dtype=np.float32) / 255 - 0.5) / 0.5
    return values.transpose(2, 0, 1)[None]


def test_every_class_is_the_runs_own_and_without_preprocessing_many_are_not(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    isic2017_manifest(ISIC, tmp_path / "all.csv")
    header, *lines = (tmp_path / "all.csv").read_text().splitlines()
    (tmp_path / "some.csv").write_text("\n".join([header, *lines[::4]]))
    samcls.extract(tmp_path / "some.csv", tmp_path / "s.zarr", encoder="lite0")
    samcls.train(tmp_path / "s.zarr", tmp_path / "run", tasks=["melanoma"], intervals=0)
    exported = hand_over(tmp_path / "run", tmp_path / "model", images=[tmp_path / "some.csv"])
    assert exported.equal == exported.checked == 64
    predictor = load_predictor(tmp_path / "run")
    files = odd_pictures(tmp_path / "odd", sorted((ISIC / "images").rglob("*.jpg")))
    own = predictor.predict_proba(files)
    answers = predictor.answers("melanoma", own)

    def session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
        loaded = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        name = loaded.get_inputs()[0].name
        return lambda values: loaded.run(None, {name: values})[0]

    run = session(tmp_path / "model" / "model.onnx")
    found = np.concatenate([run(read_image(str(file))[None]) for file in files])
    equal = int((predictor.answers("melanoma", found) == answers).sum())
    print(f"\nsamcls export: {equal} of 200 equal, worst {np.abs(found - own).max():.1e}")  # noqa: T201
    assert equal == 200
    program = torch.onnx.export(
        Plain(predictor).eval(),
        (torch.zeros(2, 3, SIDE, SIDE),),
        dynamo=True,
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    program.save(str(tmp_path / "plain.onnx"))
    plain = session(tmp_path / "plain.onnx")
    for name, prepare in (("stretched", stretched), ("resized and cropped", cropped)):
        other = np.concatenate([plain(prepare(file)) for file in files])
        same = int((predictor.answers("melanoma", other) == answers).sum())
        worst = np.abs(other - own).max()
        print(f"plain torch.onnx.export, {name}: {same} of 200, worst {worst:.2f}")  # noqa: T201
        assert same < 200
