"""A batch on each core: the rows, the features and the cuts of a run are those of one batch at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.extracting import SMALL, features, image_folder

from samcls.data.manifest import Manifest, read_manifest
from samcls.encode.base import Encoder
from samcls.encode.encoders import open_encoder
from samcls.encode.extract import ExtractOptions, extract
from samcls.encode.pipeline import Pipeline
from samcls.store.feature_store import FeatureStore, RowBatch
from samcls.store.schema import DONE, FAILED

OPTIONS = ExtractOptions(
    encoder="lite0", size=64, levels="middle", window=2, batch=2, precision="float32", device="cpu"
)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Thirteen pictures, the last the first one's twin."""
    path = image_folder(tmp_path, [(20 + i, 30 + i) for i in range(13)])
    found = read_manifest(path)
    Image.open(found.rows[0].path).save(found.rows[12].path)
    return found


@pytest.mark.usefixtures("three_threads")
def test_lanes_change_no_row(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches side by side come out in order, equal to float32's rounding, and leave the threads alone."""
    extract(manifest, tmp_path / "lanes.zarr", OPTIONS)
    assert torch.get_num_threads() == 3
    monkeypatch.setattr("samcls.encode.timm_encoder._convolves", lambda _: False)
    extract(manifest, tmp_path / "one.zarr", OPTIONS)
    lanes, one = (FeatureStore.open(tmp_path / f"{name}.zarr") for name in ("lanes", "one"))
    assert (lanes.sha256 == one.sha256).all()
    assert (lanes.status == DONE).all()
    found, expected = (features(store)["middle"].astype("f4") for store in (lanes, one))
    assert np.allclose(found, expected, rtol=2e-3, atol=2e-3)  # a step of float16
    assert (found[12] == found[0]).all()


def white_fails(folder: Path) -> tuple[Manifest, Encoder]:
    """Pictures of which the first, third and last are white, and weights that white overflows."""
    rng, lines = np.random.default_rng(0), ["id,path,split,label"]
    for i in range(9):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        white = np.full((64, 64, 3), 255, np.uint8)
        Image.fromarray(white if i in {1, 3, 8} else noise).save(folder / f"{i}.png")
        lines.append(f"{i},{i}.png,train,a")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    encoder = open_encoder(ExtractOptions(**{**SMALL.__dict__, "levels": "patch", "size": 64}))
    with torch.no_grad():
        encoder.body.patch_embed.proj.weight[0] = 50
    return read_manifest(folder / "m.csv"), encoder


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("side_by_side", [False, True])
def test_twins_of_a_failed_image_fail_with_its_reason(side_by_side: bool, tmp_path: Path) -> None:
    """Whether its batch has come back or is on its way, a twin is not encoded again."""
    manifest, encoder = white_fails(tmp_path)
    encoder.side_by_side = side_by_side
    options = ExtractOptions(**{**SMALL.__dict__, "levels": "patch", "batch": 2, "size": 64})
    pipeline = Pipeline(manifest.rows, encoder, options, print, proven=True)
    done: list[RowBatch] = []
    for batch in pipeline.run(np.arange(9), {}, lambda _: {}):
        done.append(batch)  # noqa: PERF402 - a comprehension would hide what stops it
    found = RowBatch.concatenate(done)
    assert found.rows.tolist() == list(range(9))
    assert np.flatnonzero(found.status == FAILED).tolist() == [1, 3, 8]
    assert found.error[1] == found.error[3] == found.error[8]
    assert "level patch reaches" in found.error[1]
