"""Features that are not finite cost an image its row, or stop the run where every image's would be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.extracting import SMALL

from samcls.data.manifest import read_manifest
from samcls.encode.finite import FiniteGuard, largest_stored, not_finite
from samcls.encode.options import ExtractOptions
from samcls.encode.pipeline import Pipeline
from samcls.encode.sam import load_encoder
from samcls.errors import NotFiniteError
from samcls.store.feature_store import RowBatch
from samcls.store.schema import DONE, FAILED


def encoded(folder: Path, images: list[str], size: int, weight: float = 50) -> RowBatch:
    """Encode noise and white images with weights whose first channel sums the pixels."""
    lines, rng = ["id,path,split,label"], np.random.default_rng(0)
    for i, kind in enumerate(images):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        pixels = noise if kind == "noise" else np.full((64, 64, 3), 255 - i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i},{i}.png,train,a")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    encoder = load_encoder("vit_t", levels=("patch",), input_size=64)
    with torch.no_grad():
        encoder.body.patch_embed.proj.weight[0] = weight
    options = ExtractOptions(**{**SMALL.__dict__, "levels": "patch", "batch": size, "size": 64})
    pipeline = Pipeline(read_manifest(folder / "m.csv").rows, encoder, options, print)
    done: list[RowBatch] = []
    for batch in pipeline.run(np.arange(len(images)), {}, lambda _: {}):
        done.append(batch)  # noqa: PERF402 - a comprehension would hide what stops it
    return RowBatch.concatenate(done)


@pytest.mark.parametrize("size", [1, 4])
def test_one_image_that_overflows_costs_its_row(size: int, tmp_path: Path) -> None:
    """The first image alone overflows float16: its row says level and value, and the others are done."""
    found = encoded(tmp_path, ["white", "noise", "noise", "noise"], size)
    assert found.status.tolist() == [FAILED, DONE, DONE, DONE]
    assert "level patch reaches 9" in found.error[0]
    assert "beyond float16's 65,504; extract with --storage float32" in found.error[0]
    assert not found.features["patch"][0].any()


@pytest.mark.parametrize("size", [1, 4])
def test_the_first_images_that_all_overflow_stop_the_run(size: int, tmp_path: Path) -> None:
    """Where no image is finite the run stops, with the reason once."""
    with pytest.raises(NotFiniteError, match=r"no image so far gives finite features.*level patch"):
        encoded(tmp_path, ["white"] * 4, size)


def test_a_single_image_stops_the_run_where_noise_fails_too(tmp_path: Path) -> None:
    """Weights that spoil any image are found at the first one, by a frame of noise."""
    with pytest.raises(NotFiniteError, match="in float32 arithmetic too: the weights are at fault"):
        encoded(tmp_path, ["noise"], 1, float("nan"))


def test_a_run_that_was_proven_goes_on() -> None:
    """After one finite image, any number of others costs rows alone."""
    guard = FiniteGuard(proven=False, probe=lambda: False)
    guard.saw(1, ["a"])
    guard.saw(0, ["b", "c"])
    FiniteGuard(proven=True, probe=lambda: False).saw(0, ["a"] * 9)


def test_the_remedy_follows_the_cause() -> None:
    """Storage, arithmetic and weights each have their own remedy; rounding to few bits overflows sooner."""
    limit = largest_stored("float16", None)
    assert (limit, largest_stored("float16", 3)) == (65520, 63488)
    assert "--storage float32" in not_finite({"neck": 65521.0}, "float16", "float32", limit)
    assert "--precision float32" in not_finite({"neck": np.inf}, "float16", "float16", limit)
    assert "another checkpoint" in not_finite({"neck": np.nan}, "float16", "float32", limit)
